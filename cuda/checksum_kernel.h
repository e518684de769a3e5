// What checksum.cc and checksum.cu share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quire::cuda {

// XXH3's constants for seed 0, as the kernel reads them: the 192 secret bytes in words, and the words of them
// that do not stand on 8 bytes.
struct Xxh3Secret {
  uint64_t words[24];
  uint64_t last[8];      // from byte 121: for the last stripe
  uint64_t merge[8];     // from byte 11
  uint64_t offset3[16];  // from byte 3: for lengths of 129 to 240
  uint64_t tail[2];      // from byte 119: the same
};

struct SliceExtent {
  uint64_t offset = 0, length = 0;
};

cudaError_t LaunchSliceChecksums(const Xxh3Secret& secret, const SliceExtent* extents, uint32_t slices,
                                 const uint8_t* const* objects, uint32_t count, uint64_t* out, size_t pitch,
                                 cudaStream_t stream);

}  // namespace quire::cuda
