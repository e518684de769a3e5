// Attention of a chunk's queries over a sequence's pages, raw and coded.
//
// History that is held as `tq` codes is never rebuilt: with y = R·k a score is q·k = (R·q)·y, so the queries
// are rotated once, and Σ p·v = Rᵀ·Σ p·(R·v), so the sum over rotated values is rotated back once. Pages are
// decoded in tiles into one scratch, each page once a call; tiles are merged by their log-sum-exp, which
// makes them one softmax.
//
// Pages that need no rotation (raw ones, and codes of codec `raw`) are tiled at multiples of 512 positions
// and padded to that with masked rows, so that a query's sums run in an order that depends on its position
// only. Hence with codec `raw` a restored prefix gives the very bits of a recomputed one, in whatever pieces
// either was computed (of two or more tokens).
//
// In a layer with a sliding window a query sees the last `window` positions, its own among them. Pages that
// no query sees are left out (direct ones by whole spans, as above), and what a query doesn't see of the rest
// is masked.
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
  // `score_scale`: what query · key is multiplied by.
  PageAttention(std::shared_ptr<const BlockCodec> codec, uint32_t query_heads, double score_scale);

  // q: fp32 [n, query_heads, d], after RoPE, of the positions [kv.length(), kv.length() + n), whose K and V
  // are in `kv` already. Query head h reads KV head h / (query_heads / KV heads). Returns fp32 [n,
  // query_heads · d].
  absl::StatusOr<at::Tensor> Run(const KvSequence& kv, uint32_t layer, const at::Tensor& q);

 private:
  struct Span {  // tokens [0, count) of a page, at this row of the tile
    uint32_t page, count;
    int64_t row;
  };
  struct Tile {
    bool rotated = false;  // tq codes, as they are; else keys and values in the model's own basis
    bool sinks = false;    // the sequence's raw sinks come first
    bool aligned = false;  // row 0 is a position divisible by 512 and rows are consecutive positions
    int64_t skip = 0;  // rows at the start that must not be seen (block 0's sink slots among rotated codes)
    int64_t rows = 0;
    std::vector<Span> spans;
    void Add(uint32_t page, uint32_t count);
    // Of the rows [skip, rows), in ascending order; rows that the tile does not fill stand nowhere.
    std::vector<int64_t> Positions(int64_t padded_rows) const;
  };
  // Additive, [1, 1, query rows, tile rows]: 0 where query row r (query r % n of a group) sees the tile's
  // row.
  struct Mask {
    int64_t start, n, window;
    std::vector<int64_t> positions;
    at::Tensor values;
  };

  static std::vector<Tile> Plan(const KvSequence& kv, uint32_t layer, int64_t window);
  // Fills k and v [KV heads, rows, d], of which the tile may fill fewer; the rest becomes zero.
  absl::Status Fill(const KvSequence& kv, uint32_t layer, const Tile& tile, int64_t rows, float* k,
                    float* v) const;
  absl::Status FillRotated(const BlockReader& codes, uint32_t layer, uint32_t head, float* k, float* v) const;
  absl::Status FillDirect(const KvSequence& kv, uint32_t layer, const Span& span, int64_t rows, float* k,
                          float* v) const;
  // Of n queries from position `start` on; window 0: they see all before them.
  const at::Tensor& MaskOf(int64_t start, int64_t n, int64_t window, int64_t query_rows,
                           std::vector<int64_t> positions);

  const std::shared_ptr<const BlockCodec> codec_;
  const int64_t query_heads_, kv_heads_, dim_;
  const double score_scale_;
  at::Tensor rotation_;               // R [d, d]: a row x becomes x·Rᵀ, and y goes back as y·R
  at::Tensor k_scratch_, v_scratch_;  // as long as the largest tile so far
  std::vector<Mask> masks_;           // of the last chunk: few, and the same for many of its layers
};

}  // namespace quire::worker
