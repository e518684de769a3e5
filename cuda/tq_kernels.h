// Inside cuda/: the kernels' launchers. Shapes are checked by then (tq_codec.cc); these know pointers, sizes
// and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/base/dtype.h"
#include "cuda/tq_tables.h"
#include "cuda/tq_task.h"

namespace quire::cuda {

// Tasks of one shape: `count` tasks of `heads` heads, all of dim d and element type `type`.
struct TqLaunch {
  const TqTask* tasks = nullptr;  // device
  uint32_t count = 0, heads = 0, dim = 0;
  DType type = DType::kBf16;
  const DimTable* table = nullptr;  // device
  const void* image = nullptr;      // device; fast kernels
  TqReport* reports = nullptr;      // device; encode
  int multiprocessors = 0;
  uint32_t step_tasks = 0, step_heads = 0;  // fast kernels: set by their launchers
};

// Any dim, bits, type, alignment and effort.
cudaError_t LaunchEncode(const TqLaunch& launch, int effort, cudaStream_t stream);
cudaError_t LaunchDecode(const TqLaunch& launch, cudaStream_t stream);
// Shared memory that they need.
size_t EncodeSharedBytes(uint32_t dim);
size_t DecodeSharedBytes(uint32_t dim);

// REQUIRES: IsFastDim(dim), sm_90a, rows on 16 bytes, no effort; encode: bf16 or f16, bits ≤ 4; decode: kept
// bits ≤ 4.
cudaError_t LaunchFastEncode(const TqLaunch& launch, const FastEncodeTable& table, cudaStream_t stream);
cudaError_t LaunchFastDecode(const TqLaunch& launch, const FastDecodeTable& table, cudaStream_t stream);

// Raw rows into their objects, with the check for NaN and infinity, and back.
cudaError_t LaunchStoreRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, TqReport* reports,
                            cudaStream_t stream);
cudaError_t LaunchLoadRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, cudaStream_t stream);

}  // namespace quire::cuda
