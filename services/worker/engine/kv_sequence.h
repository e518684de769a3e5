// One sequence's KV: blocks of 64 tokens, raw while they are near the end, codes behind it.
//
//   tokens   0…3       4 … 63 │ 64 … 127 │ …                      │ the last 128 to 191 │ being computed
//   held as  sinks     codes                                        codes and raw         raw
//
// A block is encoded once, when its 64th token is there. Its codes are the object that the store keeps, so a
// sequence that restores the object attends to exactly the bytes that this one does. While the raw copy
// exists attention uses that.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "core/codec/spec.h"
#include "services/worker/engine/engine.h"

namespace quire::worker {

inline constexpr uint32_t kRawWindow =
    128;  // a block's raw copy goes when the block lies wholly before the last 128 tokens

// K and V of 64 tokens, elements of one dtype: [layer][head][token][channel]. Unfilled tokens are zero.
struct RawBlock {
  std::vector<uint8_t> k, v;
};

// One block as attention sees it. `raw` wins where it is set; else `codes` is.
struct KvPage {
  std::unique_ptr<RawBlock> raw;
  std::optional<BlockReader> codes;  // of the object in SealedBlock
};

class KvSequence final : public Sequence {
 public:
  enum class Mode {
    kServing,     // raw copies are of the layout's dtype, blocks are sealed, raw copies dropped behind the
                  // window
    kEvaluation,  // raw copies are fp32; nothing that is appended is sealed or dropped: blocks() lists
                  // restored blocks only
  };
  struct Limits {
    uint32_t context = 0;     // tokens
    uint32_t vocabulary = 0;  // ids from here on are refused
  };
  // The codec's layout must have equal layers {key, value}, and its part must be the whole.
  // `shapes`: how the model's queries look, for its keys' encoding; may be null.
  KvSequence(std::shared_ptr<const BlockCodec> codec, CodecSpec spec,
             std::shared_ptr<const QueryShapes> shapes, const Digest& root, Limits limits, Mode mode);

  uint32_t length() const override { return length_; }
  std::span<const SealedBlock> blocks() const override { return sealed_; }
  absl::Status Restore(std::span<const uint32_t> tokens,
                       std::shared_ptr<const std::vector<uint8_t>> object) override;
  uint64_t kv_bytes() const override;

  // INVALID_ARGUMENT if a token is not in the vocabulary or `tokens` more would exceed the context.
  absl::Status CheckTokens(std::span<const uint32_t> tokens) const;
  // Appending goes in three steps: Reserve (checks as above), then StoreKv for every layer, head and reserved
  // position, then Commit.
  absl::Status Reserve(std::span<const uint32_t> tokens);
  // Takes K (after RoPE) and V [channel] of one position, rounded to the raw copies' dtype. Different
  // positions may go side by side.
  void StoreKv(uint32_t layer, uint32_t head, uint32_t position, const float* k, const float* v);
  // Makes the reserved tokens part of the sequence, seals what became whole and drops raw copies that left
  // the window.
  absl::Status Commit();

  // Encodes whole block `index`, which must be held raw. INVALID_ARGUMENT for a NaN or an infinity (naming
  // it).
  absl::Status EncodeBlock(uint32_t index, const BlockIdentity& identity, const CodecSpec& spec,
                           std::vector<uint8_t>* object) const;

  // Reading side. Pages cover reserved tokens too; only the last one may be partly filled.
  std::span<const KvPage> pages() const { return pages_; }
  uint32_t reserved_end() const { return pending_start_ + static_cast<uint32_t>(pending_.size()); }
  // K and V of tokens [first, first + count) of a page that is held raw, one layer and head:
  // [count][channel].
  void LoadRaw(const KvPage& page, uint32_t layer, uint32_t head, uint32_t first, uint32_t count, float* k,
               float* v) const;
  // The 4 sink tokens, once block 0 is held as codes: [4][channel].
  void LoadSinks(uint32_t layer, uint32_t head, float* k, float* v) const;

  uint32_t layers() const { return layers_; }
  uint32_t heads() const { return heads_; }
  uint32_t dim() const { return dim_; }
  const BlockCodec& codec() const { return *codec_; }

 private:
  // In elements: where a head's [token][channel] begin in a RawBlock, and a head's [4][channel] in the sinks.
  size_t RunOffset(uint32_t layer, uint32_t head) const {
    return (size_t{layer} * heads_ + head) * kBlockTokens * dim_;
  }
  size_t SinkOffset(uint32_t layer, uint32_t head) const {
    return (size_t{layer} * heads_ + head) * kMaxSinkTokens * dim_;
  }
  BlockIdentity NextIdentity(std::span<const uint32_t> tokens) const;
  absl::Status Seal();
  struct Sinks {
    std::vector<float> k, v;  // [layer][head][4][channel]; empty while block 0 is raw
  };
  absl::StatusOr<Sinks> SinksOf(const BlockReader& reader) const;
  Sinks SinksOf(const KvPage& page) const;
  void DropOldRaw();

  const std::shared_ptr<const BlockCodec> codec_;
  const CodecSpec spec_;
  const std::shared_ptr<const QueryShapes> shapes_;
  const Digest root_;
  const Limits limits_;
  const Mode mode_;
  const DType dtype_;  // of raw copies
  uint32_t layers_, heads_, dim_;

  uint32_t length_ = 0;
  uint32_t next_drop_ = 0;  // blocks before it have been considered for dropping
  std::vector<KvPage> pages_;
  std::vector<SealedBlock> sealed_;
  // Tokens that no sealed block covers: first those that count in length_ already, then the reserved ones.
  std::vector<uint32_t> pending_;
  uint32_t pending_start_ = 0;  // position of pending_[0]
  Sinks sinks_;
};

}  // namespace quire::worker
