// One sequence's KV: blocks of 64 tokens, raw while they are near the end, codes behind it.
//
//   tokens   0…3       4 … 63 │ 64 … 127 │ …                      │ the last 128 to 191 │ being computed
//   held as  sinks     codes                                        codes and raw         raw
//
// A block is encoded once, when its 64th token is there. Its codes are the object that the store keeps, so a sequence that restores
// the object attends to exactly the bytes that this one does. While the raw copy exists attention uses that.
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

inline constexpr uint32_t kRawWindow = 128;  // a block's raw copy goes when the block lies wholly before the last 128 tokens

// K and V of 64 tokens, rounded to the layout's dtype (bf16 patterns): [layer][head][token][channel].
struct RawBlock {
  std::vector<uint16_t> k, v;
};

// One block as attention sees it. `raw` wins where it is set; else `codes` is.
struct KvPage {
  std::unique_ptr<RawBlock> raw;
  std::optional<BlockReader> codes;  // of the object in SealedBlock
};

class KvSequence final : public Sequence {
 public:
  enum class Retention {
    kWindow,  // seal blocks and drop raw copies, as a worker does
    kAllRaw,  // never seal, never drop what was appended (evaluation): blocks() then lists restored blocks only
  };
  struct Limits {
    uint32_t context = 0;     // tokens
    uint32_t vocabulary = 0;  // ids from here on are refused
  };
  // The codec's layout must have equal layers {key, value} of dtype bf16, and its part must be the whole.
  KvSequence(std::shared_ptr<const BlockCodec> codec, CodecSpec spec, const Digest& root, Limits limits, Retention retention);

  uint32_t length() const override { return length_; }
  std::span<const SealedBlock> blocks() const override { return sealed_; }
  absl::Status Restore(std::span<const uint32_t> tokens, std::shared_ptr<const std::vector<uint8_t>> object) override;
  uint64_t kv_bytes() const override;

  // INVALID_ARGUMENT if a token is not in the vocabulary or `tokens` more would exceed the context.
  absl::Status CheckTokens(std::span<const uint32_t> tokens) const;
  // Appending goes in three steps: Reserve (checks as above), then K and V of every layer written to their slots, then Commit.
  absl::Status Reserve(std::span<const uint32_t> tokens);
  // Where K or V [channel] of a reserved position goes.
  uint16_t* KSlot(uint32_t layer, uint32_t head, uint32_t position) { return Slot(&RawBlock::k, layer, head, position); }
  uint16_t* VSlot(uint32_t layer, uint32_t head, uint32_t position) { return Slot(&RawBlock::v, layer, head, position); }
  // Makes the reserved tokens part of the sequence, seals what became whole and drops raw copies that left the window.
  absl::Status Commit();

  // Encodes whole block `index`, which must be held raw. INVALID_ARGUMENT for a NaN or an infinity (naming it).
  absl::Status EncodeBlock(uint32_t index, const BlockIdentity& identity, const CodecSpec& spec, std::vector<uint8_t>* object) const;

  // Reading side. Pages cover reserved tokens too; only the last one may be partly filled.
  std::span<const KvPage> pages() const { return pages_; }
  uint32_t reserved_end() const { return pending_start_ + static_cast<uint32_t>(pending_.size()); }
  // The first min(4, length) tokens of a sequence whose block 0 is held as codes: [head][token][channel] of one layer.
  std::span<const uint16_t> SinkK(uint32_t layer) const { return SinkOf(sink_k_, layer); }
  std::span<const uint16_t> SinkV(uint32_t layer) const { return SinkOf(sink_v_, layer); }

  uint32_t layers() const { return layers_; }
  uint32_t heads() const { return heads_; }
  uint32_t dim() const { return dim_; }
  const BlockCodec& codec() const { return *codec_; }
  size_t RunOffset(uint32_t layer, uint32_t head) const {  // of a head's [token][channel] within a RawBlock
    return (static_cast<size_t>(layer) * heads_ + head) * kBlockTokens * dim_;
  }

 private:
  uint16_t* Slot(std::vector<uint16_t> RawBlock::*stream, uint32_t layer, uint32_t head, uint32_t position) {
    RawBlock& raw = *pages_[position / kBlockTokens].raw;
    return (raw.*stream).data() + RunOffset(layer, head) + static_cast<size_t>(position % kBlockTokens) * dim_;
  }
  std::span<const uint16_t> SinkOf(const std::vector<uint16_t>& sinks, uint32_t layer) const {
    const size_t run = static_cast<size_t>(heads_) * kMaxSinkTokens * dim_;
    return std::span(sinks).subspan(layer * run, run);
  }
  BlockIdentity NextIdentity(std::span<const uint32_t> tokens) const;
  absl::Status Seal();
  absl::Status SinksFromCodes(const BlockReader& reader, std::vector<uint16_t>* k, std::vector<uint16_t>* v) const;
  void SinksFromRaw(const RawBlock& raw);
  void DropOldRaw();

  const std::shared_ptr<const BlockCodec> codec_;
  const CodecSpec spec_;
  const Digest root_;
  const Limits limits_;
  const Retention retention_;
  uint32_t layers_, heads_, dim_;

  uint32_t length_ = 0;
  uint32_t next_drop_ = 0;  // blocks before it have been considered for dropping
  std::vector<KvPage> pages_;
  std::vector<SealedBlock> sealed_;
  // Tokens that no sealed block covers: first those that count in length_ already, then the reserved ones.
  std::vector<uint32_t> pending_;
  uint32_t pending_start_ = 0;  // position of pending_[0]
  std::vector<uint16_t> sink_k_, sink_v_;  // [layer][head][4][channel], empty while block 0 is raw
};

}  // namespace quire::worker
