// Inside cuda/: one instantiation a head size, each its own translation unit.
#pragma once

#include "cuda/tq_kernels.h"

namespace quire::cuda {

template <int kDim>
cudaError_t LaunchFastEncodeOf(const TqLaunch& launch, const FastEncodeTable& table, cudaStream_t stream);
template <int kDim>
cudaError_t LaunchFastDecodeOf(const TqLaunch& launch, const FastDecodeTable& table, cudaStream_t stream);

}  // namespace quire::cuda
