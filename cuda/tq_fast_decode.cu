// Compiled once for each head size, QUIRE_CUDA_DIM.
#include "cuda/tq_fast_decode.cuh"

namespace quire::cuda {

template cudaError_t LaunchFastDecodeOf<QUIRE_CUDA_DIM>(const TqLaunch&, const FastDecodeTable&, cudaStream_t);

}  // namespace quire::cuda
