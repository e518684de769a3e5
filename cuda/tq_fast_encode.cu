// Compiled once for each head size, QUIRE_CUDA_DIM.
#include "cuda/tq_fast_encode.cuh"

namespace quire::cuda {

template cudaError_t LaunchFastEncodeOf<QUIRE_CUDA_DIM>(const TqLaunch&, const FastEncodeTable&, cudaStream_t);

}  // namespace quire::cuda
