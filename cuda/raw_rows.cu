// Rows that stay raw: sinks, and all tokens of layers that are not coded.
#include <cuda_runtime.h>

#include "cuda/element.cuh"
#include "cuda/tq_kernels.h"

namespace quire::cuda {
namespace {

constexpr uint32_t kTokens = 64, kThreads = 128;

// One thread block a (task, head).
template <bool kStore>
__global__ void RowsKernel(const RowsTask* tasks, TqReport* reports) {
  const RowsTask task = tasks[blockIdx.x];
  uint32_t head = blockIdx.y, width = task.key_dim + task.value_dim;
  if (head >= task.heads) return;
  auto stored = static_cast<DType>(task.stored_dtype);
  constexpr int kNone = 2 * kTokens;
  __shared__ int bad;
  if (threadIdx.x == 0) bad = kNone;
  __syncthreads();
  uint8_t* key_rows = task.rows + size_t{head} * task.head_bytes;
  uint8_t* value_rows = key_rows + size_t{task.tokens} * task.key_dim * SizeOf(stored);
  for (uint32_t i = threadIdx.x; i < task.tokens * width; i += blockDim.x) {
    uint32_t t = i / width, c = i % width;
    bool value = c >= task.key_dim;
    if (value) c -= task.key_dim;
    void* tensor = value ? task.value : task.key;
    int64_t at = value ? t * task.value_token_stride + head * task.value_head_stride + c
                       : t * task.key_token_stride + head * task.key_head_stride + c;
    auto type = static_cast<DType>(value ? task.value_dtype : task.key_dtype);
    uint8_t* rows = value ? value_rows : key_rows;
    int64_t row_at = int64_t{t} * (value ? task.value_dim : task.key_dim) + c;
    if (kStore) {
      StoreValue(rows, row_at, LoadValue(tensor, at, type), stored);
      if (!isfinite(LoadValue(rows, row_at, stored))) atomicMin(&bad, static_cast<int>(value ? t + kTokens : t));
    } else {
      StoreValue(tensor, at, LoadValue(rows, row_at, stored), type);
    }
  }
  __syncthreads();
  if (kStore && threadIdx.x == 0) {
    TqReport report;
    report.bad_token = bad == kNone ? -1 : bad % static_cast<int>(kTokens);
    report.bad_value = bad != kNone && bad >= static_cast<int>(kTokens);
    reports[task.report + head] = report;
  }
}

}  // namespace

cudaError_t LaunchStoreRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, TqReport* reports, cudaStream_t stream) {
  RowsKernel<true><<<dim3(count, max_heads), kThreads, 0, stream>>>(tasks, reports);
  return cudaGetLastError();
}

cudaError_t LaunchLoadRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, cudaStream_t stream) {
  RowsKernel<false><<<dim3(count, max_heads), kThreads, 0, stream>>>(tasks, nullptr);
  return cudaGetLastError();
}

}  // namespace quire::cuda
