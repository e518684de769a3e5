// XXH3-64 (seed 0) of many slices. XXH3 runs eight accumulators over stripes of eight words; each takes from its own
// word and from its neighbour's in the pair. So a thread takes a pair, in loads of 16 bytes, and four take a slice.
#include <cuda_runtime.h>

#include "cuda/checksum_kernel.h"

namespace quire::cuda {
namespace {

constexpr uint64_t kPrime32_1 = 0x9E3779B1u, kPrime32_2 = 0x85EBCA77u, kPrime32_3 = 0xC2B2AE3Du;
constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87u, kPrime64_2 = 0xC2B2AE3D27D4EB4Fu, kPrime64_3 = 0x165667B19E3779F9u,
                   kPrime64_4 = 0x85EBCA77C2B2AE63u, kPrime64_5 = 0x27D4EB2F165667C5u;
constexpr uint32_t kLanes = 4, kThreads = 256, kStripe = 64, kStripesABlock = 16;

__device__ uint64_t Fold(uint64_t a, uint64_t b) { return (a * b) ^ __umul64hi(a, b); }

__device__ uint64_t Avalanche(uint64_t h) {
  h ^= h >> 37;
  h *= 0x165667919E3779F9u;
  return h ^ (h >> 32);
}

__device__ uint64_t FirstAccumulator(uint32_t i) {
  switch (i) {
    case 0: return kPrime32_3;
    case 1: return kPrime64_1;
    case 2: return kPrime64_2;
    case 3: return kPrime64_3;
    case 4: return kPrime64_4;
    case 5: return kPrime32_2;
    case 6: return kPrime64_5;
    default: return kPrime32_1;
  }
}

// 16 bytes with two secret words.
__device__ uint64_t Mix(const uint64_t* in, const uint64_t* secret) { return Fold(in[0] ^ secret[0], in[1] ^ secret[1]); }

// 17 to 240 bytes, all multiples of 8, by one thread.
__device__ uint64_t Short(const uint64_t* in, uint32_t bytes, const Xxh3Secret& secret) {
  uint64_t sum = bytes * kPrime64_1;
  const uint64_t* end = in + bytes / 8;
  if (bytes <= 128) {
    for (int i = static_cast<int>((bytes - 1) / 32); i >= 0; --i) sum += Mix(in + 2 * i, secret.words + 4 * i) + Mix(end - 2 * (i + 1), secret.words + 4 * i + 2);
    return Avalanche(sum);
  }
  for (uint32_t i = 0; i < 8; ++i) sum += Mix(in + 2 * i, secret.words + 2 * i);
  sum = Avalanche(sum);
  for (uint32_t i = 8; i < bytes / 16; ++i) sum += Mix(in + 2 * i, secret.offset3 + 2 * (i - 8));
  return Avalanche(sum + Mix(end - 2, secret.tail));
}

// Two accumulators, 2 · lane and the next.
struct Pair {
  uint64_t even, odd;

  // One stripe: each takes its own word times itself, and the other's word.
  __device__ void Take(ulonglong2 words, const uint64_t* secret) {
    const uint64_t a = words.x ^ secret[0], b = words.y ^ secret[1];
    even += words.y + (a & 0xFFFFFFFFu) * (a >> 32);
    odd += words.x + (b & 0xFFFFFFFFu) * (b >> 32);
  }
  __device__ void Scramble(const uint64_t* secret) {
    even = (even ^ (even >> 47) ^ secret[0]) * kPrime32_1;
    odd = (odd ^ (odd >> 47) ^ secret[1]) * kPrime32_1;
  }
};

__global__ void __launch_bounds__(kThreads) ChecksumKernel(const __grid_constant__ Xxh3Secret secret, const SliceExtent* extents, uint32_t slices,
                                                           const uint8_t* const* objects, uint64_t* out, uint64_t pitch) {
  const uint32_t slice = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  if (slice >= slices) return;
  const SliceExtent extent = extents[slice];
  const uint8_t* data = objects[blockIdx.y] + extent.offset;
  const uint64_t bytes = extent.length;
  uint64_t result;
  if (bytes <= 240) {
    if (lane > 0) return;
    result = Short(reinterpret_cast<const uint64_t*>(data), static_cast<uint32_t>(bytes), secret);
  } else {
    Pair pair{FirstAccumulator(2 * lane), FirstAccumulator(2 * lane + 1)};
    const uint64_t stripes = (bytes - 1) / kStripe, blocks = stripes / kStripesABlock;
    const auto* at = reinterpret_cast<const ulonglong2*>(data) + lane;
    for (uint64_t b = 0; b < blocks; ++b) {
#pragma unroll
      for (uint32_t n = 0; n < kStripesABlock; ++n, at += kLanes) pair.Take(*at, secret.words + n + 2 * lane);
      pair.Scramble(secret.words + 16 + 2 * lane);
    }
    const auto rest = static_cast<uint32_t>(stripes % kStripesABlock);
    for (uint32_t n = 0; n < rest; ++n, at += kLanes) pair.Take(*at, secret.words + n + 2 * lane);
    pair.Take(reinterpret_cast<const ulonglong2*>(data + bytes - kStripe)[lane], secret.last + 2 * lane);
    uint64_t sum = Fold(pair.even ^ secret.merge[2 * lane], pair.odd ^ secret.merge[2 * lane + 1]);
    const uint32_t mask = 0xFu << (threadIdx.x % 32 / kLanes * kLanes);
    for (uint32_t step = 1; step < kLanes; step *= 2) sum += __shfl_xor_sync(mask, sum, step);
    if (lane > 0) return;
    result = Avalanche(sum + bytes * kPrime64_1);
  }
  out[blockIdx.y * pitch + slice] = result;
}

}  // namespace

cudaError_t LaunchSliceChecksums(const Xxh3Secret& secret, const SliceExtent* extents, uint32_t slices, const uint8_t* const* objects, uint32_t count,
                                 uint64_t* out, size_t pitch, cudaStream_t stream) {
  const dim3 grid((slices + kThreads / kLanes - 1) / (kThreads / kLanes), count);
  ChecksumKernel<<<grid, kThreads, 0, stream>>>(secret, extents, slices, objects, out, pitch);
  return cudaGetLastError();
}

}  // namespace quire::cuda
