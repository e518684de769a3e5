// Inside cuda/: the kernels of the codecs that have level 0 alone, fp8 and tq_prod. Shapes are checked by
// then (tq_batch.cc).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/dtype.h"
#include "cuda/tq_tables.h"
#include "cuda/tq_task.h"

namespace quire::cuda {

// What tq_prod needs beside a head size's DimTable, in device memory: the codebook of one bit, and S
// (core/codec/tq_prod.h) behind it, [d][d] floats.
struct alignas(16) ProjectionTable {
  BookTable one_bit;
  float kappa;

  __host__ __device__ const float* entries() const { return reinterpret_cast<const float*>(this + 1); }
};
// Its bytes with S.
std::vector<uint8_t> MakeProjectionTable(uint32_t dim, uint64_t seed);

// `count` tasks of `heads` heads, all of dim d and element type `type`.
struct FlatLaunch {
  const TqTask* tasks = nullptr;  // device
  uint32_t count = 0, heads = 0, dim = 0;
  DType type = DType::kBf16;
  bool aligned = false;                         // fp8: every row of every tensor stands on 16 bytes
  const DimTable* table = nullptr;              // device; tq_prod
  const ProjectionTable* projection = nullptr;  // device; tq_prod
  TqReport* reports = nullptr;                  // device; encode
};

cudaError_t LaunchEncodeFp8(const FlatLaunch& launch, cudaStream_t stream);
cudaError_t LaunchDecodeFp8(const FlatLaunch& launch, cudaStream_t stream);

cudaError_t LaunchEncodeProd(const FlatLaunch& launch, cudaStream_t stream);
cudaError_t LaunchDecodeProd(const FlatLaunch& launch, cudaStream_t stream);
// Shared memory that tq_prod's kernels need.
size_t ProdSharedBytes(uint32_t dim);

}  // namespace quire::cuda
