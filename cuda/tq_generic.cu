// The kernels that take every head size, bit count, element type, stride and effort: one thread block a head, floats in shared
// memory, the same steps as core/codec/tq.cc. What the fast kernels (tq_fast_*.cu) do not take comes here.
#include <cuda_runtime.h>

#include "cuda/any_codes.cuh"
#include "cuda/element.cuh"
#include "cuda/shared_head.cuh"
#include "cuda/tq_kernels.h"

namespace quire::cuda {
namespace {

// y: [d][kPitch], channel-major. Scratch for one value a (quarter, token) and results by token.
struct Shared {
  float* y;
  float (*partial)[kTokens];  // [kQuarters]
  float *energy, *inverse, *scale, *wanted, *second;
  float* mean;  // [d]
  float* reduce;  // [kThreads / 32]
};

__host__ __device__ constexpr size_t SharedFloats(uint32_t dim) { return size_t{dim} * kPitch + (kQuarters + 5) * kTokens + dim + kThreads / 32; }

__device__ Shared Carve(float* base, uint32_t dim) {
  Shared s;
  s.y = base;
  base += dim * kPitch;
  s.partial = reinterpret_cast<float (*)[kTokens]>(base);
  base += kQuarters * kTokens;
  float** arrays[] = {&s.energy, &s.inverse, &s.scale, &s.wanted, &s.second};
  for (float** array : arrays) {
    *array = base;
    base += kTokens;
  }
  s.mean = base;
  s.reduce = base + dim;
  return s;
}

template <typename Term>
__device__ void SumChannels(uint32_t dim, const Shared& s, float* out, Term term) {
  cuda::SumChannels(dim, s.partial, out, term);
}

__device__ float BlockMax(float value, const Shared& s) {
  for (int delta = 16; delta > 0; delta /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, delta));
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.reduce[threadIdx.x / 32] = value;
  __syncthreads();
  value = s.reduce[0];
  for (uint32_t i = 1; i < kThreads / 32; ++i) value = fmaxf(value, s.reduce[i]);
  return value;
}

// values[t] summed over tokens from `first` by thread 0, in order.
__device__ float SumTokens(uint32_t first, const float* values) {
  float sum = 0;
  for (uint32_t t = first; t < kTokens; ++t) sum += values[t];
  return sum;
}

// K: the int8 mean of each channel over the coded tokens, stored and subtracted.
__device__ void RemoveMean(const TqTask& task, uint32_t head, uint32_t dim, const Shared& s) {
  float largest = 0, count = static_cast<float>(kTokens - task.first_token);
  for (uint32_t c = threadIdx.x; c < dim; c += kThreads) {
    float sum = 0;
    for (uint32_t t = task.first_token; t < kTokens; ++t) sum += s.y[c * kPitch + t];
    s.mean[c] = sum / count;
    largest = fmaxf(largest, fabsf(s.mean[c]));
  }
  uint16_t step_bits = ToBf16Bits(BlockMax(largest, s) / 127);
  float step = FromBf16Bits(step_bits);
  for (uint32_t c = threadIdx.x; c < dim; c += kThreads) {
    float steps = step > 0 ? fminf(fmaxf(s.mean[c] / step, -127.0f), 127.0f) : 0.0f;
    int8_t rounded = static_cast<int8_t>(__float2int_rn(steps));
    task.mean[size_t{head} * task.slice_stride[0] + c] = static_cast<uint8_t>(rounded);
    s.mean[c] = rounded * step;
  }
  if (threadIdx.x == 0) {
    auto* scalars = reinterpret_cast<uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0]);
    scalars[0] = step_bits;
    if (task.kind == 2) scalars[1] = 0;
    for (int i = 2; i < 8; ++i) scalars[i] = 0;
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) s.y[i / kTokens * kPitch + i % kTokens] -= s.mean[i / kTokens];
  __syncthreads();
}

__device__ void SetInverse(const TqTask& task, uint32_t dim, const Shared& s) {
  if (threadIdx.x < kTokens) {
    uint32_t t = threadIdx.x;
    bool live = t >= task.first_token && s.energy[t] >= kTinySquare;
    s.inverse[t] = live ? sqrtf(static_cast<float>(dim)) / sqrtf(s.energy[t]) : 0.0f;
    if (!live) s.energy[t] = 0;
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    if (s.inverse[i % kTokens] == 0) s.y[i / kTokens * kPitch + i % kTokens] = 0;
  }
  __syncthreads();
}

__device__ float ChosenAt(const BookTable& book, int bits, int kept, const Shared& s, uint32_t c, uint32_t t) {
  return Centroid(book, bits, kept, CodeOf(book, bits, s.y[c * kPitch + t], s.inverse[t]));
}

__device__ void Alternate(int effort, uint32_t dim, const BookTable& book, int bits, const Shared& s) {
  for (int i = 0; i < effort; ++i) {
    SumChannels(dim, s, s.wanted, [&](uint32_t c, uint32_t t) { return s.y[c * kPitch + t] * ChosenAt(book, bits, bits, s, c, t); });
    SumChannels(dim, s, s.second, [&](uint32_t c, uint32_t t) {
      float chosen = ChosenAt(book, bits, bits, s, c, t);
      return chosen * chosen;
    });
    if (threadIdx.x < kTokens && s.wanted[threadIdx.x] > 0) s.inverse[threadIdx.x] = s.second[threadIdx.x] / s.wanted[threadIdx.x];
    __syncthreads();
  }
}

// Σ over channels of (y − scale · chosen)² by token, into s.second.
__device__ void MeasureError(uint32_t dim, const BookTable& book, int bits, int kept, const Shared& s) {
  SumChannels(dim, s, s.second, [&](uint32_t c, uint32_t t) {
    float miss = s.y[c * kPitch + t] - s.scale[t] * ChosenAt(book, bits, kept, s, c, t);
    return miss * miss;
  });
}

__device__ void KeyScales(const TqTask& task, uint32_t head, uint32_t dim, const BookTable& book, float tiny, const Shared& s, TqReport* report) {
  int bits = task.bits;
  for (int level = 0; level < kTaskLevels; ++level) {
    if (!HasLevelOf(bits, level)) {
      if (threadIdx.x == 0) report->error[level] = report->error[level - 1];
      continue;
    }
    int kept = KeptBitsOf(bits, level);
    SumChannels(dim, s, s.wanted, [&](uint32_t c, uint32_t t) { return s.y[c * kPitch + t] * ChosenAt(book, bits, kept, s, c, t); });
    if (threadIdx.x < kTokens) {
      uint32_t t = threadIdx.x;
      float wanted = s.wanted[t] > 0 ? s.energy[t] / s.wanted[t] : 0.0f;
      uint8_t* out = task.scales[level] + size_t{head} * task.slice_stride[level];
      if (level == 0) {
        uint16_t stored = ToBf16Bits(wanted);
        reinterpret_cast<uint16_t*>(out)[TokenSlotOf(t)] = stored;
        s.scale[t] = FromBf16Bits(stored);
      } else {
        float from = s.scale[t] * book.ratio[level];
        int8_t correction = CorrectionSteps(wanted, from);
        reinterpret_cast<int8_t*>(out)[TokenSlotOf(t)] = correction;
        s.scale[t] = CorrectedScale(from, correction);
      }
    }
    __syncthreads();
    MeasureError(dim, book, bits, kept, s);
    if (threadIdx.x == 0) report->error[level] = SumTokens(0, s.second) + tiny;
    __syncthreads();
  }
}

__device__ void ValueScales(const TqTask& task, uint32_t head, uint32_t dim, const BookTable& book, float tiny, const Shared& s, TqReport* report) {
  int bits = task.bits;
  SumChannels(dim, s, s.wanted, [&](uint32_t c, uint32_t t) { return s.y[c * kPitch + t] * ChosenAt(book, bits, bits, s, c, t); });
  SumChannels(dim, s, s.second, [&](uint32_t c, uint32_t t) {
    float chosen = ChosenAt(book, bits, bits, s, c, t);
    return chosen * chosen;
  });
  uint32_t t = threadIdx.x;
  float wanted = t < kTokens && s.wanted[t] > 0 ? s.wanted[t] / s.second[t] : 0.0f;
  uint16_t base_bits = ToBf16Bits(BlockMax(wanted, s));
  float base = FromBf16Bits(base_bits);
  if (t == 0) reinterpret_cast<uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0])[1] = base_bits;
  if (t < kTokens) {
    uint8_t code = kZeroCode;
    if (wanted > ValueScaleOf(base, kZeroCode - 1) / 2) {
      code = static_cast<uint8_t>(__float2int_rn(fminf(fmaxf(-16 * log2f(wanted / base), 0.0f), kZeroCode - 1.0f)));
    }
    s.scale[t] = ValueScaleOf(base, code);
    task.scales[0][size_t{head} * task.slice_stride[0] + TokenSlotOf(t)] = code;
    int8_t correction = CorrectionSteps(wanted, s.scale[t]);
    s.wanted[t] = correction;
    if (HasLevelOf(bits, 3)) task.scales[3][size_t{head} * task.slice_stride[3] + TokenSlotOf(t)] = static_cast<uint8_t>(correction);
  }
  __syncthreads();
  for (int level = 0; level < kTaskLevels; ++level) {
    if (!HasLevelOf(bits, level)) {
      if (t == 0) report->error[level] = report->error[level - 1];
      continue;
    }
    if (level == 3 && t < kTokens) s.scale[t] = CorrectedScale(s.scale[t], static_cast<int8_t>(s.wanted[t]));
    __syncthreads();
    MeasureError(dim, book, bits, KeptBitsOf(bits, level), s);
    if (t == 0) report->error[level] = SumTokens(0, s.second) + tiny;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) EncodeKernel(TqLaunch launch, int effort) {
  extern __shared__ float memory[];
  const DimTable& table = *launch.table;
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  Shared s = Carve(memory, dim);
  const BookTable& book = table.books[task.bits - kMinBits];
  TqReport* report = launch.reports + task.report + head;
  LoadHead(task, head, dim, launch.type, s.y);
  Rotate(table, s.y);
  auto square = [&](uint32_t c, uint32_t t) { return s.y[c * kPitch + t] * s.y[c * kPitch + t]; };
  SumChannels(dim, s, s.energy, square);
  int bad = FirstNotFinite(task.first_token, s.energy);
  if (threadIdx.x == 0) report->energy = SumTokens(task.first_token, s.energy);
  if (bad < 0 && task.kind != 1) {
    RemoveMean(task, head, dim, s);
    SumChannels(dim, s, s.energy, square);
    bad = FirstNotFinite(task.first_token, s.energy);
  }
  if (threadIdx.x == 0) report->bad_token = bad;
  if (bad >= 0) return;
  float tiny = 0;
  for (uint32_t t = task.first_token; t < kTokens; ++t) tiny += s.energy[t] < kTinySquare ? s.energy[t] : 0.0f;
  __syncthreads();
  SetInverse(task, dim, s);
  Alternate(effort, dim, book, task.bits, s);
  if (task.kind == 1) {
    ValueScales(task, head, dim, book, tiny, s, report);
  } else {
    KeyScales(task, head, dim, book, tiny, s, report);
  }
  auto code_of = [&](uint32_t c, uint32_t t) { return CodeOf(book, task.bits, s.y[c * kPitch + t], s.inverse[t]); };
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) PackRun(task, head, dim, i, code_of);
}

// Scales that a decoder of `levels` levels works with, by token.
__device__ float ScaleOf(const TqTask& task, uint32_t head, const BookTable& book, uint32_t token) {
  uint32_t slot = TokenSlotOf(token);
  auto part = [&](int level) { return task.scales[level] + size_t{head} * task.slice_stride[level]; };
  if (task.kind == 1) {
    float base = FromBf16Bits(reinterpret_cast<const uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0])[1]);
    float scale = ValueScaleOf(base, part(0)[slot]);
    return task.levels > 3 && HasLevelOf(task.bits, 3) ? CorrectedScale(scale, static_cast<int8_t>(part(3)[slot])) : scale;
  }
  float scale = FromBf16Bits(reinterpret_cast<const uint16_t*>(part(0))[slot]);
  for (int level = 1; level < task.levels; ++level) {
    if (HasLevelOf(task.bits, level)) scale = CorrectedScale(scale * book.ratio[level], static_cast<int8_t>(part(level)[slot]));
  }
  return scale;
}

// The codebook's merged centroids at `kept` bits are indexed by codes of `kept` bits.
__global__ void __launch_bounds__(kThreads) DecodeKernel(TqLaunch launch) {
  extern __shared__ float memory[];
  const DimTable& table = *launch.table;
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  Shared s = Carve(memory, dim);
  const BookTable& book = table.books[task.bits - kMinBits];
  if (threadIdx.x < kTokens) s.scale[threadIdx.x] = ScaleOf(task, head, book, threadIdx.x);
  if (task.kind != 1) {
    float step = FromBf16Bits(*reinterpret_cast<const uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0]));
    for (uint32_t c = threadIdx.x; c < dim; c += kThreads) {
      s.mean[c] = static_cast<int8_t>(task.mean[size_t{head} * task.slice_stride[0] + c]) * step;
    }
  }
  __syncthreads();
  int kept = KeptBitsOf(task.bits, task.levels - 1);
  auto take = [&](uint32_t c, uint32_t t, uint32_t code) {
    s.y[c * kPitch + t] = s.scale[t] * Centroid(book, kept, kept, code) + (task.kind == 1 ? 0.0f : s.mean[c]);
  };
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) UnpackRun(task, head, dim, kept, i, take);
  __syncthreads();
  RotateBack(table, s.y);
  StoreHead(task, head, dim, launch.type, s.y);
}

template <typename Kernel>
cudaError_t AllowShared(Kernel kernel, size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace

size_t EncodeSharedBytes(uint32_t dim) { return SharedFloats(dim) * sizeof(float); }
size_t DecodeSharedBytes(uint32_t dim) { return SharedFloats(dim) * sizeof(float); }

cudaError_t LaunchEncode(const TqLaunch& launch, int effort, cudaStream_t stream) {
  size_t bytes = EncodeSharedBytes(launch.dim);
  if (cudaError_t error = AllowShared(EncodeKernel, bytes); error != cudaSuccess) return error;
  EncodeKernel<<<launch.count * launch.heads, kThreads, bytes, stream>>>(launch, effort);
  return cudaGetLastError();
}

cudaError_t LaunchDecode(const TqLaunch& launch, cudaStream_t stream) {
  size_t bytes = DecodeSharedBytes(launch.dim);
  if (cudaError_t error = AllowShared(DecodeKernel, bytes); error != cudaSuccess) return error;
  DecodeKernel<<<launch.count * launch.heads, kThreads, bytes, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace quire::cuda
