// The fast encoder's kernel and its launch; fast_encoder.cuh tells how it works.
#pragma once

#include <cuda_runtime.h>

#include "cuda/fast_encoder.cuh"
#include "cuda/tq_fast.h"

namespace quire::cuda {

template <int kDim, typename T>
__global__ void __launch_bounds__(EncodeShape<kDim>::kThreads, 1) FastEncodeKernel(const __grid_constant__ TqLaunch launch,
                                                                                   const __grid_constant__ FastEncodeTable table) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = EncodeShape<kDim>;
  extern __shared__ __align__(128) uint8_t image[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(image + Shape::kImageBytes);
  for (int i = threadIdx.x * 16; i < Shape::kImageBytes; i += Shape::kThreads * 16) {
    CopyAsync16(SharedAddress(image) + i, static_cast<const uint8_t*>(launch.image) + i, 16);
  }
  CommitCopies();
  FastEncoder<kDim, T> encoder(launch, table, image, shared);  // the first heads' copies start
  WaitCopies();
  FenceAsyncProxy();
  __syncthreads();
  encoder.Run();
#endif
}

template <int kDim>
cudaError_t LaunchFastEncodeOf(const TqLaunch& launch, const FastEncodeTable& table, cudaStream_t stream) {
  using Shape = EncodeShape<kDim>;
  static_assert(Shape::kSharedBytes <= 227 * 1024);
  auto kernel = launch.type == DType::kBf16 ? FastEncodeKernel<kDim, __nv_bfloat16> : FastEncodeKernel<kDim, __half>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  uint32_t tiles = launch.count * launch.heads, needed = (tiles + Shape::kWarpgroups - 1) / Shape::kWarpgroups;
  uint32_t blocks = needed < static_cast<uint32_t>(launch.multiprocessors) ? needed : launch.multiprocessors;
  kernel<<<blocks, Shape::kThreads, Shape::kSharedBytes, stream>>>(WithStep(launch, blocks * Shape::kWarpgroups), table);
  return cudaGetLastError();
}

}  // namespace quire::cuda
