#include "cuda/checksum.h"

#include <cstring>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL  // for the secret
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "cuda/check.h"
#include "cuda/checksum_kernel.h"

namespace quire::cuda {
namespace {

Xxh3Secret MakeSecret() {
  static_assert(sizeof(XXH3_kSecret) == 192);
  Xxh3Secret secret;
  auto take = [](uint64_t* to, size_t words, size_t from) {
    std::memcpy(to, XXH3_kSecret + from, words * 8);
  };
  take(secret.words, 24, 0);
  take(secret.last, 8, 121);
  take(secret.merge, 8, 11);
  take(secret.offset3, 16, 3);
  take(secret.tail, 2, 119);
  return secret;
}

}  // namespace

absl::StatusOr<SliceChecksums> SliceChecksums::Create(const SliceMap& map) {
  std::vector<SliceExtent> extents(map.checksums());
  for (uint32_t l = 0; l < map.layers(); ++l) {
    if (Extent sinks = map.sinks(l); sinks.length > 0)
      extents[map.SinkChecksumIndex(l)] = {sinks.offset, sinks.length};
    for (int level = 0; level < map.levels(); ++level) {
      for (uint32_t h = 0; h < map.heads(); ++h) {
        if (Extent slice = map.slice(level, l, h); slice.length > 0)
          extents[map.ChecksumIndex(level, l, h)] = {slice.offset, slice.length};
      }
    }
  }
  for (const SliceExtent& extent : extents) {
    if (extent.length <= 16 || extent.length % 16 != 0 || extent.offset % 16 != 0)
      return absl::UnimplementedError(
          absl::StrCat("checksums: a slice of ", extent.length, " bytes at ", extent.offset));
  }
  size_t bytes = extents.size() * sizeof(SliceExtent);
  QUIRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(bytes));
  QUIRE_CUDA_RETURN_IF_ERROR(cudaMemcpy(buffer.data(), extents.data(), bytes, cudaMemcpyHostToDevice));
  return SliceChecksums(std::move(buffer), static_cast<uint32_t>(extents.size()));
}

absl::Status SliceChecksums::Launch(StreamRef stream, const uint8_t* const* objects, uint32_t count,
                                    uint64_t* out, size_t pitch) const {
  static const Xxh3Secret secret = MakeSecret();
  if (count == 0 || slices_ == 0) return absl::OkStatus();
  return QUIRE_CUDA_CALL(LaunchSliceChecksums(secret, reinterpret_cast<const SliceExtent*>(extents_.data()),
                                              slices_, objects, count, out, pitch,
                                              static_cast<cudaStream_t>(stream.handle)));
}

}  // namespace quire::cuda
