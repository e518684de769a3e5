// XXH3-64 of the slices of objects in device memory: the checksums that headers hold, without the slices'
// coming to the host.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/slice_map.h"
#include "cuda/memory.h"
#include "cuda/stream.h"

namespace quire::cuda {

// The slices of one slice map. Immutable, thread-safe.
class SliceChecksums {
 public:
  // UNIMPLEMENTED where a slice has 16 bytes or fewer, or not a multiple of 16, which no codec makes.
  static absl::StatusOr<SliceChecksums> Create(const SliceMap& map);

  // Enqueues the checksums of all slices of `count` objects. `objects` and `out` are what kernels reach
  // (device memory, or pinned); out[object · pitch +
  // SliceMap::ChecksumIndex]. Objects stand on 16 bytes.
  absl::Status Launch(StreamRef stream, const uint8_t* const* objects, uint32_t count, uint64_t* out,
                      size_t pitch) const;
  uint32_t slices() const { return slices_; }

 private:
  SliceChecksums(DeviceBuffer extents, uint32_t slices) : extents_(std::move(extents)), slices_(slices) {}
  DeviceBuffer extents_;
  uint32_t slices_;
};

}  // namespace quire::cuda
