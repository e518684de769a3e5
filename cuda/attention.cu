// Compiled once for each head size, QUIRE_CUDA_DIM.
#include "cuda/attention_kernel.cuh"

namespace quire::cuda {

template cudaError_t LaunchAttentionOf<QUIRE_CUDA_DIM>(const AttentionLaunch&, cudaStream_t);

}  // namespace quire::cuda
