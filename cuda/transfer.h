// Moving blocks between host and device while they are coded or decoded, so that the link carries codes and
// nothing waits for anything but the link.
//
// A ring of slots, each with its own stream: while one slot's chunk is on the link, another's is in the
// kernel. By `kCopy` the copy engines move a chunk of blocks, one call a block or a run of neighbours; blocks
// may lie scattered. By `kZeroCopy` the kernels read or write the pinned host memory themselves: no call a
// block and no device memory for codes, at a third to half of kCopy's rate on an H100 (the parts of a slice
// are small for the link); for when device memory is what is short. Only the levels that are asked for cross
// the link: they are a prefix of the object.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cuda/block_batch.h"
#include "cuda/memory.h"
#include "cuda/stream.h"
#include "cuda/tq_batch.h"

namespace quire::cuda {

class Transfer {
 public:
  enum class Path { kCopy, kZeroCopy };
  struct Options {
    size_t chunk_bytes =
        size_t{16} << 20;  // of codes; the last chunk may be smaller, a larger block is a chunk of its own
    uint32_t chunk_blocks = 64;  // at most
    int slots = 3;               // 2…16
    // The pinned allocation that objects lie in, if they do: there neighbours at one distance go in one copy.
    // May be empty.
    std::span<const uint8_t> arena = {};
  };
  // A block to bring to the device. `object` is pinned host memory; its header is not looked at, its
  // checksums are the caller's business. `layers` holds device tensors, one view a layer of the part.
  struct RestoreItem {
    const uint8_t* object = nullptr;
    bool first_block = false;
    int levels = 1;
    std::span<const MutableLayerView> layers;
  };
  // A block to bring to the host: all levels' slices are written to `object`, pinned, of
  // SliceMap::ObjectBytes; the header is not.
  struct OffloadItem {
    uint8_t* object = nullptr;
    bool first_block = false;
    std::span<const LayerView> layers;
  };
  // Called on the calling thread when item `item`'s slices and reports are in host memory: the place for
  // SealObject. The batch's reports are those of its chunk and stay until this returns.
  using OnOffloaded = std::function<absl::Status(size_t item, const TqBatch& batch, size_t first_task)>;

  static absl::StatusOr<Transfer> Create(std::shared_ptr<const TqCodec> codec, const BlockShape& shape,
                                         const Options& options);
  Transfer(Transfer&&) noexcept;
  Transfer& operator=(Transfer&&) noexcept;
  ~Transfer();

  // Memory that it holds on either side, beside what the callers give: the slots' chunks and their tasks and
  // reports.
  size_t device_bytes() const;
  size_t pinned_bytes() const;

  // Enqueues all items in order, behind what `stream` has been given so far, and makes `stream` wait for
  // them. Blocks the host only while all slots are in use. Items and tensors must stay until `stream` has
  // come past.
  absl::Status Restore(std::span<const RestoreItem> items, Path path, StreamRef stream);
  // Blocks until all items are in host memory and `done` was called for each, in order. INVALID_ARGUMENT for
  // a vector with a NaN or an infinity; the items of that chunk and those after it are then not to be used.
  absl::Status Offload(std::span<const OffloadItem> items, Path path, StreamRef stream,
                       const OnOffloaded& done);

 private:
  struct Impl;
  explicit Transfer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::cuda
