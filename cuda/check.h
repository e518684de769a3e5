// Inside cuda/: the one way a CUDA runtime call is checked.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

namespace quire::cuda {

// OK, or the error with the call's text: RESOURCE_EXHAUSTED for memory, NOT_FOUND where no device can be
// used, else INTERNAL.
absl::Status ToStatus(cudaError_t error, const char* call);

}  // namespace quire::cuda

#define QUIRE_CUDA_CALL(expr) ::quire::cuda::ToStatus((expr), #expr)
#define QUIRE_CUDA_RETURN_IF_ERROR(expr)                                \
  do {                                                                  \
    if (cudaError_t quire_error_ = (expr); quire_error_ != cudaSuccess) \
      return ::quire::cuda::ToStatus(quire_error_, #expr);              \
  } while (false)
