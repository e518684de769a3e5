// Whole blocks as tasks of a TqBatch: which tensors and which bytes of an object belong together.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "core/block/slice_map.h"
#include "cuda/tq_batch.h"

namespace quire::cuda {

// The layout, part and codecs that a run of blocks shares, and where each block's slices lie. Immutable,
// thread-safe.
class BlockShape {
 public:
  // INVALID_ARGUMENT or UNIMPLEMENTED as SliceMap::Create says.
  static absl::StatusOr<BlockShape> Create(const Layout& layout, const Part& part, const CodecSpec& spec);
  // The same of objects that are there already; spec() is then the default one.
  static absl::StatusOr<BlockShape> CreateFor(const Layout& layout, const Part& part,
                                              std::vector<LayerCodec> codecs);

  // The map of block 0, which holds the sinks, or of any other block.
  const SliceMap& map(bool first_block) const { return first_block ? first_ : other_; }
  const Layout& layout() const { return layout_; }
  const Part& part() const { return part_; }
  const CodecSpec& spec() const { return spec_; }
  const std::vector<LayerCodec>& codecs() const { return codecs_; }
  // What TqCodec::Create wants: the head sizes that tq and tq_prod have here, and those of them that tq_prod
  // has.
  std::vector<uint32_t> dims() const { return DimsOf({CodecId::kTq, CodecId::kTqProd}); }
  std::vector<uint32_t> projected_dims() const { return DimsOf({CodecId::kTqProd}); }
  // What one block adds to a batch.
  TqBatch::Limits TasksPerBlock() const;

 private:
  std::vector<uint32_t> DimsOf(std::initializer_list<CodecId> codecs) const;

  Layout layout_;
  Part part_;
  CodecSpec spec_;
  std::vector<LayerCodec> codecs_;
  SliceMap first_, other_;
};

// Collects blocks for one TqBatch::Set.
struct BlockTasks {
  std::vector<ShapedTask> tasks;
  std::vector<RowsTask> rows;

  void Clear() {
    tasks.clear();
    rows.clear();
  }
  // `object` is where the object's first byte is or would be, in memory that kernels reach; only slices are
  // touched. One view a layer of the part, device pointers. INVALID_ARGUMENT where the views do not fit,
  // UNIMPLEMENTED for a raw layer of another type.
  absl::Status AddEncode(const BlockShape& shape, bool first_block, std::span<const LayerView> layers,
                         uint8_t* object);
  // The first `levels` levels, which must be present.
  absl::Status AddDecode(const BlockShape& shape, bool first_block, int levels, const uint8_t* object,
                         std::span<const MutableLayerView> layers);
  // One layer of it, counted within the part.
  absl::Status AddDecodeLayer(const BlockShape& shape, bool first_block, int levels, const uint8_t* object,
                              uint32_t layer, const MutableLayerView& view);
};

// The header, checksums included, of a block that a batch encoded; its bytes are SerializeHeader's.
// `checksums`: by SliceMap::ChecksumIndex. `first_task` as below. REQUIRES: CheckReports was OK.
BlockHeader HeaderOf(const BlockShape& shape, const Digest& fingerprint, const BlockIdentity& identity,
                     const TqBatch& batch, size_t first_task, std::span<const uint64_t> checksums);

// Writes the header and the checksums of a block that a batch encoded: `object` is the whole object in host
// memory. `first_task` is where the block's own tasks begin in the batch. REQUIRES: CheckReports was OK.
absl::Status SealObject(const BlockShape& shape, const BlockIdentity& identity, const TqBatch& batch,
                        size_t first_task, std::span<uint8_t> object);

}  // namespace quire::cuda
