// Decode attention on codes: one query token a sequence against its pages, coded or raw, of whatever levels.
//
// With y = R·k a score is q·k = (R·q)·y, so a query is rotated once and K stays as it is: bytes of centroids
// go through int8 matrix units, the block's mean is one dot product a page. Values are summed rotated and
// rotated back once. Each unpacked page serves all query heads of its KV head. Long contexts are split among
// thread blocks; whichever of a (sequence, head) ends last merges them, in a fixed order: the same plan gives
// the same bits.
//
//   AttentionForm   how a page's layer is coded and where it lies; a few a layer (attention_task.h)
//   AttentionForms  the forms of all layers, in device memory; made once
//   AttentionPlan   which pages each sequence sees, and who works on what; set once a step, shared by all
//                   layers with the same sliding window
//   DecodeAttention the kernels of one head size and one grouping, and their scratch
//
// Nothing here waits for the device or allocates, except Create. sm_90a alone; bf16 queries and outputs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/block/slice_map.h"
#include "core/codec/spec.h"
#include "cuda/attention_task.h"
#include "cuda/memory.h"
#include "cuda/stream.h"

namespace quire::cuda {

constexpr bool IsAttentionDim(uint32_t dim) { return dim == 64 || dim == 128 || dim == 192 || dim == 256; }

// Layer `layer` (counted within the part) of objects of this map, of which a page holds the first `levels`
// levels; the page's address is that of the object's first byte. UNIMPLEMENTED for another codec than `tq`,
// for a latent, where K and V differ in d, and where more than 4 bits are kept.
absl::StatusOr<AttentionForm> CodedForm(const SliceMap& map, const LayerLayout& layout,
                                        const LayerCodec& codec, uint32_t layer, int levels);
// The raw sinks of block 0 in such an object, as tokens 0…3 of a page. INVALID_ARGUMENT where it has none.
absl::StatusOr<AttentionForm> SinkForm(const SliceMap& map, const LayerLayout& layout, uint32_t layer);
// bf16 rows anywhere: byte offsets of K's and V's first row from the page's address, and byte strides from
// head to head and from token to token. INVALID_ARGUMENT unless all are multiples of 16.
absl::StatusOr<AttentionForm> RawForm(uint32_t dim, uint32_t k_offset, uint32_t v_offset,
                                      uint32_t head_stride, uint32_t token_stride);

// Immutable, thread-safe.
class AttentionForms {
 public:
  // layers[l][i] is form i of layer l; every layer has the same number, at most kMaxForms. Waits for the
  // upload.
  static constexpr uint32_t kMaxForms = 32;
  static absl::StatusOr<AttentionForms> Create(std::span<const std::vector<AttentionForm>> layers);

  uint32_t layers() const { return layers_; }
  uint32_t count() const { return static_cast<uint32_t>(forms_.size()) / layers_; }
  const AttentionForm& form(uint32_t layer, uint32_t i) const { return forms_[size_t{layer} * count() + i]; }
  const AttentionForm* device(uint32_t layer) const {
    return reinterpret_cast<const AttentionForm*>(buffer_.data()) + size_t{layer} * count();
  }

 private:
  std::vector<AttentionForm> forms_;
  uint32_t layers_ = 0;
  DeviceBuffer buffer_;
};

// Up to 64 consecutive tokens of a sequence.
struct AttentionPage {
  const uint8_t* data = nullptr;  // device memory
  uint16_t form = 0;              // of its tokens from first_token on
  uint8_t first_token = 0;        // 4 in block 0, whose sinks are a page of their own; else 0
  uint8_t tokens = 64;            // up to and including the last
  uint32_t position = 0;          // of the page's token 0
};

struct AttentionSequence {
  std::span<const AttentionPage> pages;  // in any order; their tokens do not overlap
  uint32_t length = 0;                   // the query's position + 1: it sees positions [.., length)
};

// Set, upload, run layers, set again. Not thread-safe. Its device addresses never change, so launches that
// were captured into a graph see what the last upload brought.
class AttentionPlan {
 public:
  struct Limits {
    uint32_t sequences = 0, items = 0;  // items: pages seen by all sequences together
    uint32_t kv_heads = 0;
  };
  static absl::StatusOr<AttentionPlan> Create(const Limits& limits);
  AttentionPlan(AttentionPlan&&) noexcept;
  AttentionPlan& operator=(AttentionPlan&&) noexcept;
  ~AttentionPlan();

  // `window`: positions that a query sees, its own among them; 0: all. `layer`: whose forms say what a page
  // costs and whether it is raw, which must be the same in every layer the plan is used for. INVALID_ARGUMENT
  // naming sequence and page where something is off, or where a sequence sees nothing; RESOURCE_EXHAUSTED
  // over a limit. REQUIRES: the device has done the last Upload.
  absl::Status Set(std::span<const AttentionSequence> sequences, const AttentionForms& forms, uint32_t layer,
                   uint32_t window);
  absl::Status Upload(StreamRef stream);

  uint32_t sequences() const;
  // Bytes of K and V that one layer's launch reads, counted once for each sequence.
  uint64_t bytes() const;
  size_t memory_bytes() const;  // on the device, and once more pinned

 private:
  friend class DecodeAttention;
  struct Impl;
  explicit AttentionPlan(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One launch at a time (its scratch). Thread-compatible.
class DecodeAttention {
 public:
  struct Shape {
    uint64_t seed = 0;  // the layout's rotation
    uint32_t dim = 0;
    uint32_t kv_heads = 0, group = 1;  // query head h reads KV head h / group; group ≤ 8
    uint32_t sequences = 0;            // at most
    // Whether what wrote the pages was over before the kernel that stands before a Run in its stream began:
    // their bytes are then fetched while that kernel ends.
    bool pages_settled = false;
  };
  // INVALID_ARGUMENT or UNIMPLEMENTED for a shape, UNIMPLEMENTED for a device, that has no kernel.
  static absl::StatusOr<DecodeAttention> Create(const Shape& shape);
  DecodeAttention(DecodeAttention&&) noexcept;
  DecodeAttention& operator=(DecodeAttention&&) noexcept;
  ~DecodeAttention();

  // q, out: bf16 [sequences][kv_heads · group][d], rows of d side by side, `*_stride` elements from sequence
  // to sequence; on 16 bytes. Scores are q·k · score_scale. Enqueues one kernel.
  absl::Status Run(const AttentionPlan& plan, const AttentionForms& forms, uint32_t layer, float score_scale,
                   const void* q, int64_t q_stride, void* out, int64_t out_stride, StreamRef stream) const;
  size_t memory_bytes() const;

 private:
  struct Impl;
  explicit DecodeAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::cuda
