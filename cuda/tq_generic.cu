// The kernels that take every head size, bit count, element type, stride and effort: one thread block a head, floats in shared
// memory, the same steps as core/codec/tq.cc. What the fast kernels (tq_fast_*.cu) do not take comes here.
#include <cuda_runtime.h>

#include "cuda/element.cuh"
#include "cuda/tq_kernels.h"

namespace quire::cuda {
namespace {

constexpr uint32_t kTokens = 64, kThreads = 256, kQuarters = kThreads / kTokens;
constexpr uint32_t kPitch = kTokens + 1;  // floats a channel: rows of tokens and columns of channels both go without bank conflicts
constexpr uint32_t kLanes = 128;

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

__device__ bool Negative(const DimTable& table, int round, uint32_t channel) { return table.signs[round][channel / 64] >> (channel % 64) & 1; }

__device__ void FlipSigns(const DimTable& table, int round, float factor, float* y) {
  for (uint32_t i = threadIdx.x; i < table.dim * kTokens; i += kThreads) {
    uint32_t c = i / kTokens, t = i % kTokens;
    y[c * kPitch + t] *= Negative(table, round, c) ? -factor : factor;
  }
  __syncthreads();
}

// The unnormalised Hadamard butterflies on each block of `power` channels, then the Hartley matrix across blocks.
__device__ void MixChannels(const DimTable& table, float* y) {
  for (uint32_t h = 1; h < table.power; h *= 2) {
    for (uint32_t i = threadIdx.x; i < table.dim / 2 * kTokens; i += kThreads) {
      uint32_t pair = i / kTokens, t = i % kTokens, c = pair / h * 2 * h + pair % h;
      float a = y[c * kPitch + t], b = y[(c + h) * kPitch + t];
      y[c * kPitch + t] = a + b;
      y[(c + h) * kPitch + t] = a - b;
    }
    __syncthreads();
  }
  if (table.odd == 1) return;
  for (uint32_t i = threadIdx.x; i < table.power * kTokens; i += kThreads) {
    uint32_t b = i / kTokens, t = i % kTokens;
    float column[kMaxOdd];
    for (uint32_t k = 0; k < table.odd; ++k) column[k] = y[(k * table.power + b) * kPitch + t];
    for (uint32_t a = 0; a < table.odd; ++a) {
      float sum = 0;
      for (uint32_t k = 0; k < table.odd; ++k) sum += table.hartley[a * table.odd + k] * column[k];
      y[(a * table.power + b) * kPitch + t] = sum;
    }
  }
  __syncthreads();
}

__device__ void Rotate(const DimTable& table, float* y) {
  FlipSigns(table, 0, 1.0f, y);
  MixChannels(table, y);
  FlipSigns(table, 1, 1.0f / table.power, y);
  MixChannels(table, y);
}

__device__ void RotateBack(const DimTable& table, float* y) {
  MixChannels(table, y);
  FlipSigns(table, 1, 1.0f / table.power, y);
  MixChannels(table, y);
  FlipSigns(table, 0, 1.0f, y);
}

// out[t] = Σ_c term(c, t); every thread sees the result.
template <typename Term>
__device__ void SumChannels(uint32_t dim, const Shared& s, float* out, Term term) {
  uint32_t t = threadIdx.x % kTokens, quarter = threadIdx.x / kTokens;
  float sum = 0;
  for (uint32_t c = quarter; c < dim; c += kQuarters) sum += term(c, t);
  s.partial[quarter][t] = sum;
  __syncthreads();
  if (threadIdx.x < kTokens) out[t] = s.partial[0][t] + s.partial[1][t] + s.partial[2][t] + s.partial[3][t];
  __syncthreads();
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

__device__ uint32_t CodeOf(const BookTable& book, int bits, float y, float inverse) {
  float z = fabsf(y) * inverse;
  uint32_t half = 1u << (bits - 1), cell = 0;
  for (uint32_t step = half / 2; step > 0; step /= 2) cell += book.thresholds[cell + step - 1] < z ? step : 0;
  return cell | (y < 0 ? half : 0);
}

// The centroid that the first `kept` bits of a code stand for.
__device__ float Centroid(const BookTable& book, int bits, int kept, uint32_t code) {
  uint32_t half = 1u << (bits - 1);
  float magnitude = book.centroids[kept][(code & (half - 1)) >> (bits - kept)];
  return code & half ? -magnitude : magnitude;
}

// Token and channel of value j of unit u of lane (m, g, t) (core/codec/planes.h).
__device__ void PlaceOf(bool value, uint32_t dim, uint32_t lane, uint32_t unit, uint32_t j, uint32_t* token, uint32_t* channel) {
  uint32_t m = lane >> 5, g = lane >> 2 & 7, t = lane & 3, units = dim / 16;
  if (value) {
    bool alone = unit + 1 == units && units % 2 == 1;
    *token = 16 * m + 2 * t + (j & 1) + 8 * (j >> 1 & 1);
    *channel = (alone ? 16 * unit + 4 * (g >> 1) : 32 * (unit >> 1) + 4 * (unit & 1) + 8 * (g >> 1)) + 2 * (j >> 2) + (g & 1);
  } else if (uint32_t n = dim / 32; unit < 2 * n) {
    *token = 16 * m + 8 * (unit / n) + g;
    *channel = 32 * (unit % n) + 8 * t + j;
  } else {
    *token = 16 * m + 8 * (j >> 2) + g;
    *channel = 32 * n + 4 * t + (j & 3);
  }
}

// A run of 4, 2 or 1 units of one lane, and where its bits stand in a plane of `bits` bits.
struct Run {
  uint32_t lane, first, count;
  size_t offset;  // bytes, at one bit a code
};

__device__ Run RunOf(uint32_t dim, uint32_t index) {
  uint32_t fours = dim / 64, pair = dim / 32 & 1;
  if (index < kLanes * fours) return {index / fours, index % fours * 4, 4, size_t{index} * 4};
  index -= kLanes * fours;
  if (pair && index < kLanes) return {index, fours * 4, 2, size_t{kLanes} * fours * 4 + index * 2};
  if (pair) index -= kLanes;
  return {index, fours * 4 + pair * 2, 1, size_t{kLanes} * (fours * 4 + pair * 2) + index};
}
__device__ uint32_t RunCount(uint32_t dim) { return kLanes * (dim / 64 + (dim / 32 & 1) + (dim / 16 & 1)); }

// Plane p of an object whose levels' planes begin at `levels`; offset of its first byte.
__device__ uint8_t* PlaneAt(const TqTask& task, uint32_t head, uint32_t dim, int p) {
  int level = p < 3 ? p : 3;
  uint8_t* base = task.planes[level] + size_t{head} * task.slice_stride[level];
  return p < 3 ? base : base + size_t(p - 3) * (kTokens / 8) * dim;
}

// Bit k of value j of a run at `count` units, in the word of a one-bit plane.
__device__ uint32_t BitPosition(uint32_t count, uint32_t unit, uint32_t j) { return count * j + unit; }

__device__ void StoreWord(uint8_t* at, uint32_t count, uint32_t word) {
  if (count == 4) {
    *reinterpret_cast<uint32_t*>(at) = word;
  } else if (count == 2) {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(word);
  } else {
    *at = static_cast<uint8_t>(word);
  }
}
__device__ uint32_t LoadWord(const uint8_t* at, uint32_t count) {
  if (count == 4) return *reinterpret_cast<const uint32_t*>(at);
  return count == 2 ? *reinterpret_cast<const uint16_t*>(at) : *at;
}

// The two-bit plane's words: four units: two u32; a pair: one u32; one unit: u16.
__device__ void CrumbPlace(uint32_t count, uint32_t unit, uint32_t j, uint32_t* word, uint32_t* bit) {
  *word = unit >> 1;
  *bit = count == 1 ? 2 * j : 4 * j + 2 * (unit & 1);
}

__device__ void PackRun(const TqTask& task, uint32_t head, uint32_t dim, const BookTable& book, const Shared& s, uint32_t index) {
  Run run = RunOf(dim, index);
  uint32_t crumbs[2] = {0, 0}, ones[kMaxCodeBits - 2] = {};
  int bits = task.bits;
  for (uint32_t k = 0; k < run.count; ++k) {
    for (uint32_t j = 0; j < 8; ++j) {
      uint32_t token, channel, word, bit;
      PlaceOf(task.kind == 1, dim, run.lane, run.first + k, j, &token, &channel);
      uint32_t code = CodeOf(book, bits, s.y[channel * kPitch + token], s.inverse[token]);
      CrumbPlace(run.count, k, j, &word, &bit);
      crumbs[word] |= (code >> (bits - 2)) << bit;
#pragma unroll
      for (int p = 1; p < kMaxCodeBits - 1; ++p) {
        if (p < bits - 1) ones[p - 1] |= (code >> (bits - 2 - p) & 1) << BitPosition(run.count, k, j);
      }
    }
  }
  uint8_t* plane = PlaneAt(task, head, dim, 0) + run.offset * 2;
  if (run.count == 1) {
    *reinterpret_cast<uint16_t*>(plane) = static_cast<uint16_t>(crumbs[0]);
  } else {
    reinterpret_cast<uint32_t*>(plane)[0] = crumbs[0];
    if (run.count == 4) reinterpret_cast<uint32_t*>(plane)[1] = crumbs[1];
  }
#pragma unroll
  for (int p = 1; p < kMaxCodeBits - 1; ++p) {
    if (p < bits - 1) StoreWord(PlaneAt(task, head, dim, p) + run.offset, run.count, ones[p - 1]);
  }
}

// The first token, of those that count, whose energy is no finite float; −1: none. Every thread calls it.
__device__ int FirstNotFinite(uint32_t first, const float* energy) {
  for (uint32_t t = first; t < kTokens; ++t) {
    if (!isfinite(energy[t])) return static_cast<int>(t);
  }
  return -1;
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
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t t = i / dim, c = i % dim;
    s.y[c * kPitch + t] = t < task.first_token ? 0.0f : LoadValue(task.tensor, t * task.token_stride + head * task.head_stride + c, launch.type);
  }
  __syncthreads();
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
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) PackRun(task, head, dim, book, s, i);
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

__device__ void UnpackRun(const TqTask& task, uint32_t head, uint32_t dim, const BookTable& book, int kept, const Shared& s, uint32_t index) {
  Run run = RunOf(dim, index);
  uint32_t crumbs[2] = {0, 0}, ones[kMaxCodeBits - 2] = {};
  const uint8_t* plane = PlaneAt(task, head, dim, 0) + run.offset * 2;
  if (run.count == 1) {
    crumbs[0] = *reinterpret_cast<const uint16_t*>(plane);
  } else {
    crumbs[0] = reinterpret_cast<const uint32_t*>(plane)[0];
    if (run.count == 4) crumbs[1] = reinterpret_cast<const uint32_t*>(plane)[1];
  }
#pragma unroll
  for (int p = 1; p < kMaxCodeBits - 1; ++p) {
    if (p < kept - 1) ones[p - 1] = LoadWord(PlaneAt(task, head, dim, p) + run.offset, run.count);
  }
  for (uint32_t k = 0; k < run.count; ++k) {
    for (uint32_t j = 0; j < 8; ++j) {
      uint32_t token, channel, word, bit;
      PlaceOf(task.kind == 1, dim, run.lane, run.first + k, j, &token, &channel);
      CrumbPlace(run.count, k, j, &word, &bit);
      uint32_t code = crumbs[word] >> bit & 3;
#pragma unroll
      for (int p = 1; p < kMaxCodeBits - 1; ++p) {
        if (p < kept - 1) code = code << 1 | (ones[p - 1] >> BitPosition(run.count, k, j) & 1);
      }
      float mean = task.kind == 1 ? 0.0f : s.mean[channel];
      s.y[channel * kPitch + token] = s.scale[token] * Centroid(book, kept, kept, code) + mean;
    }
  }
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
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) UnpackRun(task, head, dim, book, kept, s, i);
  __syncthreads();
  RotateBack(table, s.y);
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t t = i / dim, c = i % dim;
    if (t >= task.first_token) StoreValue(task.tensor, t * task.token_stride + head * task.head_stride + c, s.y[c * kPitch + t], launch.type);
  }
}

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

cudaError_t LaunchStoreRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, TqReport* reports, cudaStream_t stream) {
  RowsKernel<true><<<dim3(count, max_heads), 128, 0, stream>>>(tasks, reports);
  return cudaGetLastError();
}

cudaError_t LaunchLoadRows(const RowsTask* tasks, uint32_t count, uint32_t max_heads, cudaStream_t stream) {
  RowsKernel<false><<<dim3(count, max_heads), 128, 0, stream>>>(tasks, nullptr);
  return cudaGetLastError();
}

}  // namespace quire::cuda
