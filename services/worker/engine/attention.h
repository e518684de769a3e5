// Attention of a chunk's queries over a sequence's pages, raw and coded.
//
// History that is held as `tq` codes is never rebuilt: with y = R·k a score is q·k = (R·q)·y, so the queries are rotated once, and
// Σ p·v = Rᵀ·Σ p·(R·v), so the sum over rotated values is rotated back once. Pages are decoded in tiles into one scratch, each page once
// a call; tiles are merged by their log-sum-exp, which makes them one softmax.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/worker/engine/kv_sequence.h"

namespace quire::worker {

// Has scratch: one call at a time. Torch's exceptions pass through.
class PageAttention {
 public:
  PageAttention(std::shared_ptr<const BlockCodec> codec, uint32_t query_heads);

  // q: fp32 [n, query_heads, d], after RoPE, of the positions [kv.length(), kv.length() + n), whose K and V are in `kv` already.
  // Query head h reads KV head h / (query_heads / KV heads). Returns fp32 [n, query_heads · d].
  absl::StatusOr<at::Tensor> Run(const KvSequence& kv, uint32_t layer, const at::Tensor& q);

 private:
  enum class Kind {
    kRaw,      // raw tokens
    kOwn,      // the queries' own tokens, raw, causal
    kRotated,  // tq codes
    kPlain,    // codes of a codec that does not rotate
  };
  struct Span {  // tokens [first, first + count) of a page
    uint32_t page, first, count;
  };
  struct Tile {
    explicit Tile(Kind kind) : kind(kind) {}
    Kind kind;
    bool sinks = false;  // raw: the sequence's sinks come first
    int64_t skip = 0;    // coded: rows at its start that attention must not see (block 0's sink slots)
    int64_t rows = 0;
    std::vector<Span> runs;
  };

  static std::vector<Tile> Plan(const KvSequence& kv, uint32_t layer);
  // Fills [KV heads, rows, d] scratch with the tile's keys and values.
  absl::Status Fill(const KvSequence& kv, uint32_t layer, const Tile& tile, float* k, float* v) const;
  void FillRaw(const KvSequence& kv, uint32_t layer, const Tile& tile, uint32_t head, float* k, float* v) const;
  absl::Status FillRotated(const BlockReader& codes, uint32_t layer, uint32_t head, float* k, float* v) const;

  const std::shared_ptr<const BlockCodec> codec_;
  const int64_t query_heads_, kv_heads_, dim_;
  at::Tensor rotation_;               // R [d, d]: a row x becomes x·Rᵀ, and y goes back as y·R
  at::Tensor k_scratch_, v_scratch_;  // as long as the largest tile so far
};

}  // namespace quire::worker
