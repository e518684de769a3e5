#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/check.h"
#include "tests/cuda/plain.h"

namespace quire::cuda {
namespace {

// One thread block a piece.
__global__ void MoveKernel(const uint4* from, uint32_t read, uint4* to, uint32_t write, uint32_t pieces) {
  for (uint32_t p = blockIdx.x; p < pieces; p += gridDim.x) {
    uint4 sum = make_uint4(p, 0, 0, 0);
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < read; i += blockDim.x) {
      uint4 v = __ldcs(from + size_t{p} * read + i);
      sum.x ^= v.x, sum.y ^= v.y, sum.z ^= v.z, sum.w ^= v.w;
    }
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < write; i += blockDim.x) __stcs(to + size_t{p} * write + i, sum);
  }
}

__device__ uint32_t Hash(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return static_cast<uint32_t>(x >> 16);
}

__global__ void RandomKernel(__nv_bfloat16* to, size_t count, uint32_t dim, bool mean) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
    float u = (Hash(2 * i + 1) + 1.0f) * 0x1p-32f, v = Hash(2 * i + 2) * 0x1p-32f;
    float x = sqrtf(-2 * logf(fminf(u, 1.0f))) * cospif(2 * v), length = 0.5f + Hash(i / dim + (1ull << 40)) * 0x1p-32f;
    uint32_t c = i % dim;
    to[i] = __float2bfloat16_rn(x * length + (mean ? (c % 16 == 3 ? 6.0f : 0.5f * (c * 37 % 5) - 1.0f) : 0.0f));
  }
}

}  // namespace

absl::Status PlainMove(StreamRef stream, int variant, const void* from, size_t read, void* to, size_t write, size_t pieces) {
  static constexpr int kThreads[kPlainVariants] = {128, 256, 256, 512, 512, 1024}, kBlocks[kPlainVariants] = {132 * 16, 132 * 8, 1 << 20, 132 * 4, 1 << 20, 132 * 2};
  size_t blocks = kBlocks[variant];
  MoveKernel<<<static_cast<uint32_t>(blocks < pieces ? blocks : pieces), kThreads[variant], 0, static_cast<cudaStream_t>(stream.handle)>>>(
      static_cast<const uint4*>(from), static_cast<uint32_t>(read / 16), static_cast<uint4*>(to), static_cast<uint32_t>(write / 16),
      static_cast<uint32_t>(pieces));
  return QUIRE_CUDA_CALL(cudaGetLastError());
}

absl::Status RandomBf16(StreamRef stream, void* to, size_t count, uint32_t dim, bool mean) {
  RandomKernel<<<132 * 8, 256, 0, static_cast<cudaStream_t>(stream.handle)>>>(static_cast<__nv_bfloat16*>(to), count, dim, mean);
  return QUIRE_CUDA_CALL(cudaGetLastError());
}

}  // namespace quire::cuda
