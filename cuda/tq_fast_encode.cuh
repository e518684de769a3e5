// The fast encoder (sm_90a): one warpgroup a head, everything in one pass over the raw values.
//
// A head's 64 × d tile comes into shared memory by asynchronous copies, the next one while this one is worked on. One warpgroup
// matrix product rotates it: R's entries are k/p, exact in bf16 for every power of two (EncodeImage), so the rotated values are
// float sums of exact products. Lane (g, t) of warp w then holds tokens 16w + g and 16w + 8 + g and, by the order of R's columns,
// just the channels whose codes it stores. K's mean is a sum over lanes and warps; norms are sums over a row; an index is a
// polynomial in two halves at a time (FitIndex); ⟨y, c⟩ and ⟨c, c⟩ of every level are the diagonals of small matrix products, which
// cost next to nothing beside reading memory.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/sm90.cuh"
#include "cuda/tq_fast.h"

namespace quire::cuda {

template <int kDim>
struct EncodeShape {
  static constexpr int kWarpgroups = kDim == 64 ? 6 : kDim < 128 ? 5 : kDim == 128 ? 4 : 2;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kBuffers = kDim > 128 ? 1 : 2;
  static constexpr int kPasses = EncodePasses(kDim);
  static constexpr int kChunkPitch = 64 * 16 + 16;  // 8 channels of all tokens; the pad spreads a row over the banks
  static constexpr int kTileBytes = kDim / 8 * kChunkPitch;
  static constexpr int kImageBytes = kPasses * kDim * kDim * 2;
  static constexpr int kColumns = (kDim / 4 + 7) / 8 * 8;  // a lane's, padded so that three halvings come out even
  static constexpr int kSumPitch = 4 * kColumns;
  struct Side {  // of one warpgroup
    float sums[4][kSumPitch];  // [warp][t][column]
    float means[4][kDim];      // each warp its own copy
    float report[2][4][4];     // [parity][warp]: energy, error after levels 0…2
    int bad[2][4];
    float largest[4];
  };
  static constexpr int kSharedBytes = kImageBytes + kWarpgroups * (kBuffers * kTileBytes + static_cast<int>(sizeof(Side)));
};

template <int kDim, typename T>
class FastEncoder {
  using Shape = EncodeShape<kDim>;
  static constexpr int kBlocks = kDim / 16;  // of 16 channels
  static constexpr int kTiles = kDim / 32;   // whole tiles of 32
  static constexpr bool kTail = kDim % 32 != 0;
  static constexpr int kN = kDim <= 128 ? kDim : kDim / 2;  // columns of one product

 public:
  __device__ FastEncoder(const TqLaunch& launch, const FastEncodeTable& table, uint8_t* shared)
      : launch_(launch), table_(table), group_(threadIdx.x / 128), thread_(threadIdx.x % 128), warp_(thread_ / 32), lane_(threadIdx.x % 32) {
    image_ = SharedAddress(shared);
    uint8_t* own = shared + Shape::kImageBytes + group_ * (Shape::kBuffers * Shape::kTileBytes);
    tile_ = SharedAddress(own);
    side_ = reinterpret_cast<typename Shape::Side*>(shared + Shape::kImageBytes + Shape::kWarpgroups * Shape::kBuffers * Shape::kTileBytes) + group_;
  }

  __device__ void Run() {
    uint32_t total = launch_.count * launch_.heads, step = gridDim.x * Shape::kWarpgroups;
    uint32_t at = blockIdx.x * Shape::kWarpgroups + group_;
    Prefetch(at, total, 0);
    int parity = 0;
    uint32_t last = ~0u;
    for (; at < total; last = at, at += step, parity ^= 1) {
      WaitCopies();
      FenceAsyncProxy();
      SyncWarpgroup(group_ + 1);
      if (Shape::kBuffers == 2) Prefetch(at + step, total, parity ^ 1);
      if (last != ~0u) WriteReport(last, parity ^ 1);
      Rotate(Shape::kBuffers == 2 ? parity : 0);
      if (Shape::kBuffers == 1) {
        SyncWarpgroup(group_ + 1);
        Prefetch(at + step, total, 0);
      }
      Encode(at, parity);
    }
    SyncWarpgroup(group_ + 1);
    if (last != ~0u) WriteReport(last, parity ^ 1);
  }

 private:
  __device__ const TqTask& TaskOf(uint32_t at) const { return launch_.tasks[at / launch_.heads]; }
  __device__ int g() const { return lane_ >> 2; }
  __device__ int t() const { return lane_ & 3; }

  __device__ void Prefetch(uint32_t at, uint32_t total, int buffer) {
    if (at < total) {
      const TqTask& task = TaskOf(at);
      uint32_t head = at % launch_.heads;
      const auto* base = static_cast<const uint8_t*>(task.tensor) + head * task.head_stride * 2;
      int64_t stride = task.token_stride * 2;
      int first = task.first_token;
      uint32_t to = tile_ + buffer * Shape::kTileBytes;
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i) {
        int chunk = thread_ + 128 * i, row = chunk / (kDim / 8), column = chunk % (kDim / 8);
        CopyAsync16(to + column * Shape::kChunkPitch + row * 16, base + row * stride + column * 16, row < first ? 0 : 16);
      }
    }
    CommitCopies();
  }

  __device__ void Rotate(int buffer) {
    uint32_t x = tile_ + buffer * Shape::kTileBytes;
    WgmmaFence();
#pragma unroll
    for (int pass = 0; pass < Shape::kPasses; ++pass) {
#pragma unroll
      for (int k = 0; k < kBlocks; ++k) {
        uint64_t a = MatrixDescriptor(x + k * 2 * Shape::kChunkPitch, Shape::kChunkPitch, 128);
#pragma unroll
        for (int n = 0; n < kDim; n += kN) {
          uint64_t b = MatrixDescriptor(image_ + pass * kDim * kDim * 2 + k * 2 * 16 * kDim + n * 16, 16 * kDim, 128);
          Wgmma<kN, T>::Shared(y_ + n / 2, a, b, pass + k > 0);
        }
      }
    }
    WgmmaCommit();
    WgmmaWait();
  }

  // Σ y² of this lane's row r; all four lanes of the row get it.
  __device__ float RowEnergy(int r) const {
    float even = 0, odd = 0;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      even = fmaf(y_[4 * n + 2 * r], y_[4 * n + 2 * r], even);
      odd = fmaf(y_[4 * n + 2 * r + 1], y_[4 * n + 2 * r + 1], odd);
    }
    even += odd;
    even += __shfl_xor_sync(~0u, even, 1);
    return even + __shfl_xor_sync(~0u, even, 2);
  }

  // The first coded token of this warp whose energy is not finite, or 64.
  __device__ int FirstBad(int first, const float (&energy)[2]) const {
    int bad = 64;
#pragma unroll
    for (int r = 1; r >= 0; --r) {
      int token = 16 * warp_ + 8 * r + g();
      if (token >= first && !(energy[r] <= 3.402823466e38f)) bad = token;
    }
    return __reduce_min_sync(~0u, bad);
  }

  // Adds v over the eight g, leaving each lane kColumns / 8 columns, from `start` on.
  __device__ int SumOverRows(float (&v)[Shape::kColumns]) const {
    int start = 0;
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      int half = Shape::kColumns >> (level + 1), bit = 16 >> level;
      bool upper = lane_ & bit;
#pragma unroll
      for (int i = 0; i < Shape::kColumns / 2; ++i) {
        if (i >= half) continue;
        float send = upper ? v[i] : v[i + half], keep = upper ? v[i + half] : v[i];
        v[i] = keep + __shfl_xor_sync(~0u, send, bit);
      }
      start += upper ? half : 0;
    }
    return start;
  }

  // K: the rotated mean of each channel, in int8 steps; stored and subtracted from y.
  __device__ void RemoveMean(const TqTask& task, uint32_t head) {
    float v[Shape::kColumns];
#pragma unroll
    for (int c = 0; c < Shape::kColumns; ++c) v[c] = c < kDim / 4 ? y_[4 * (c / 2) + c % 2] + y_[4 * (c / 2) + 2 + c % 2] : 0.0f;
    int start = SumOverRows(v);
#pragma unroll
    for (int i = 0; i < Shape::kColumns / 8; ++i) side_->sums[warp_][t() * Shape::kColumns + start + i] = v[i];
    SyncWarpgroup(group_ + 1);

    // Four channels a lane and step; every warp does all of it, which saves a barrier.
    constexpr int kSteps = (kDim / 4 + 31) / 32;
    float4 mean[kSteps];
    float largest = 0, scale = 1.0f / (64 - task.first_token);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      int q = lane_ + 32 * i;
      mean[i] = make_float4(0, 0, 0, 0);
      if (q >= kDim / 4) continue;
      bool whole = q < 8 * kTiles;
      int at = whole ? (q >> 1 & 3) * Shape::kColumns + 8 * (q >> 3) + 4 * (q & 1) : (q & 3) * Shape::kColumns + 8 * kTiles;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        float4 sum = *reinterpret_cast<const float4*>(&side_->sums[w][at]);
        mean[i].x += sum.x, mean[i].y += sum.y, mean[i].z += sum.z, mean[i].w += sum.w;
      }
      mean[i].x *= scale, mean[i].y *= scale, mean[i].z *= scale, mean[i].w *= scale;
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(mean[i].x), fabsf(mean[i].y)), fmaxf(fabsf(mean[i].z), fabsf(mean[i].w))));
    }
    largest = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(largest)));
    uint16_t step_bits = ToBf16Bits(largest / 127);
    float step = FromBf16Bits(step_bits), inverse = step > 0 ? 1 / step : 0.0f;
    uint8_t* slice_mean = task.mean + size_t{head} * task.slice_stride[0];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      int q = lane_ + 32 * i;
      if (q >= kDim / 4) continue;
      uint32_t packed = 0;
      float* m = &mean[i].x;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        int steps = __float2int_rn(fminf(fmaxf(m[c] * inverse, -127.0f), 127.0f));
        packed |= (steps & 0xFF) << (8 * c);
        m[c] = steps * step;
      }
      *reinterpret_cast<float4*>(&side_->means[warp_][4 * q]) = mean[i];
      if (warp_ == 0) reinterpret_cast<uint32_t*>(slice_mean)[q] = packed;
    }
    if (thread_ == 0) {
      auto* scalars = reinterpret_cast<uint32_t*>(task.scalars + size_t{head} * task.slice_stride[0]);
      if (task.kind == 2) {
        scalars[0] = step_bits;
      } else {
        reinterpret_cast<uint16_t*>(scalars)[0] = step_bits;
      }
      scalars[1] = scalars[2] = scalars[3] = 0;
    }
    __syncwarp();
    SubtractMeans();
  }

  __device__ void SubtractMeans() {
    const float* means = side_->means[warp_];
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      int channel = kTail && k == kBlocks - 1 ? 16 * k + 4 * t() : 32 * (k / 2) + 8 * t() + 4 * (k % 2);
      float4 m = *reinterpret_cast<const float4*>(means + channel);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        y_[8 * k + 2 * r] -= m.x;
        y_[8 * k + 2 * r + 1] -= m.y;
        y_[8 * k + 4 + 2 * r] -= m.z;
        y_[8 * k + 4 + 2 * r + 1] -= m.w;
      }
    }
  }

  // Two values that stand in one register: code nibbles (aligned to the top) at bits 0 and 16, and |z|.
  __device__ uint32_t Index(float a, float b, float inverse, int which, uint32_t* magnitude) const {
    // Adding 0 turns −0 into 0, so that a vector that is not coded has no sign bits.
    __half2 z = __floats2half2_rn(fmaf(a, inverse, 0.0f), fmaf(b, inverse, 0.0f));
    uint32_t bits = reinterpret_cast<const uint32_t&>(z), absolute = bits & 0x7FFF7FFFu;
    *magnitude = absolute;
    auto pair = [](const uint32_t& x) { return reinterpret_cast<const __half2&>(x); };
    __half2 u = __hmin2(pair(absolute), pair(cap_)), f = pair(poly_[0]);
#pragma unroll
    for (int i = 1; i < 5; ++i) f = __hfma2(f, u, pair(poly_[i]));
    f = __hadd2(f, __float2half2_rn(1032.0f));  // the unit in the last place is 1: rounds
    return (reinterpret_cast<const uint32_t&>(f) & mask_) | (bits >> 12 & 0x00080008u);
  }

  // ⟨|z|, c⟩ and ⟨c, c⟩ of one row and level; right in the lane with t = g / 2.
  struct Dots {
    float along, square;
  };

  // Codes of row r as nibbles: `packed[k]` for block k: column pairs at bits 0, 16 (block's half 0) and 8, 24 (half 1).
  __device__ void IndexRow(int r, float inverse, int levels, uint32_t (&packed)[kBlocks], Dots (&dots)[3]) const {
    float products[3][4] = {};
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      uint32_t u0, u1;
      uint32_t q0 = Index(y_[8 * k + 2 * r], y_[8 * k + 2 * r + 1], inverse, 0, &u0);
      uint32_t q1 = Index(y_[8 * k + 4 + 2 * r], y_[8 * k + 4 + 2 * r + 1], inverse, 1, &u1);
      packed[k] = q0 | q1 << 8;
      uint32_t selector = (packed[k] | packed[k] >> 12) & 0x7777u;
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        if (level < levels) {
          const NibbleTable& table = tables_[level];
          uint32_t low = Permute(table.low[0], table.low[1], selector), high = Permute(table.high[0], table.high[1], selector);
          uint32_t c0 = Permute(low, high, 0x5140), c1 = Permute(low, high, 0x7362);
          MmaHalf(products[level], u0, c0, u1, c1, c0, c1);
        }
      }
    }
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      dots[level].along = g() & 1 ? products[level][1] : products[level][0];
      dots[level].square = g() & 1 ? products[level][3] : products[level][2];
    }
  }

  __device__ bool OnDiagonal() const { return t() == g() >> 1; }

  __device__ void Encode(uint32_t at, int parity) {
    const TqTask& task = TaskOf(at);
    uint32_t head = at % launch_.heads;
    int first = task.first_token, bits = task.bits;
    bool value = task.kind == 1;
    float raw[2] = {RowEnergy(0), RowEnergy(1)};
    int bad = FirstBad(first, raw);
    float energy[2] = {raw[0], raw[1]};
    if (!value) {
      RemoveMean(task, head);
      energy[0] = RowEnergy(0);
      energy[1] = RowEnergy(1);
      bad = min(bad, FirstBad(first, energy));
    }
    LoadTables(bits);
    float inverse[2], lost[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      bool coded = 16 * warp_ + 8 * r + g() >= first, live = coded && energy[r] >= kTinySquare;
      inverse[r] = live ? table_.root * rsqrtf(energy[r]) : 0.0f;
      lost[r] = coded && !live ? energy[r] : 0.0f;
      if (!live) energy[r] = 0;
    }
    uint32_t packed[2][kBlocks];
    Dots dots[2][3];
    int levels = bits - 1;
    IndexRow(0, inverse[0], levels, packed[0], dots[0]);
    IndexRow(1, inverse[1], levels, packed[1], dots[1]);
    float error[3] = {};
    if (value) {
      ValueScales(task, head, levels, energy, inverse, dots, error);
      StoreValuePlanes(task, head, levels, packed);
    } else {
      KeyScales(task, head, levels, energy, inverse, dots, error);
      StoreKeyPlanes(task, head, levels, packed);
    }
    float sums[4] = {raw[0] + raw[1], error[0] + lost[0] + lost[1], error[1] + lost[0] + lost[1], error[2] + lost[0] + lost[1]};
#pragma unroll
    for (float& sum : sums) {
      sum = OnDiagonal() ? sum : 0.0f;
#pragma unroll
      for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_xor_sync(~0u, sum, delta);
    }
    if (lane_ == 0) {
      *reinterpret_cast<float4*>(side_->report[parity][warp_]) = make_float4(sums[0], sums[1], sums[2], sums[3]);
      side_->bad[parity][warp_] = bad;
    }
  }

  __device__ void LoadTables(int bits) {
#pragma unroll
    for (int i = 0; i < 5; ++i) poly_[i] = table_.index[bits - 2][i];
    cap_ = table_.cap[bits - 2];
    mask_ = table_.mask[bits - 2];
#pragma unroll
    for (int level = 0; level < 3; ++level) tables_[level] = table_.centroids[bits - 2][level];
  }

  // The report of a tile whose partial sums all warps have left. Levels that the bits lack repeat the last one.
  __device__ void WriteReport(uint32_t at, int parity) {
    if (thread_ != 0) return;
    const TqTask& task = TaskOf(at);
    TqReport report;
    float sums[4] = {};
    int bad = 64;
    for (int w = 0; w < 4; ++w) {
      for (int i = 0; i < 4; ++i) sums[i] += side_->report[parity][w][i];
      bad = min(bad, side_->bad[parity][w]);
    }
    report.energy = sums[0];
    for (int level = 0; level < 4; ++level) report.error[level] = fmaxf(sums[1 + min(level, task.bits - 2)], 0.0f);
    report.bad_token = bad == 64 ? -1 : bad;
    launch_.reports[task.report + at % launch_.heads] = report;
  }

  static __device__ float Error(float energy, float scale, float along, float square) {
    return fmaf(scale, fmaf(scale, square, -2 * along), energy);
  }

  // Unbiased scales, E / ⟨y, c⟩; with z = y · inverse, ⟨y, c⟩ is dots.along / inverse and 1 / inverse is E · inverse / d.
  __device__ void KeyScales(const TqTask& task, uint32_t head, int levels, const float (&energy)[2], const float (&inverse)[2],
                            const Dots (&dots)[2][3], float (&error)[3]) {
    uint32_t scales = 0, corrections[2] = {0, 0};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float unit = energy[r] * inverse[r] * (1.0f / kDim), scale = 0;
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        if (level >= levels) continue;
        float wanted = dots[r][level].along > 0 ? __fdividef(energy[r] * inverse[r], dots[r][level].along) : 0.0f;
        if (level == 0) {
          uint16_t stored = ToBf16Bits(wanted);
          scales |= uint32_t{stored} << (16 * r);
          scale = FromBf16Bits(stored);
        } else {
          float from = scale * table_.ratio[levels - 1][level];
          int8_t correction = CorrectionSteps(wanted, from);
          corrections[level - 1] |= (correction & 0xFF) << (8 * r);
          scale = CorrectedScale(from, correction);
        }
        error[level] += Error(energy[r], scale, dots[r][level].along * unit, dots[r][level].square);
      }
    }
    if (!OnDiagonal()) return;
    auto at = [&](int level) { return task.scales[level] + size_t{head} * task.slice_stride[level]; };
    reinterpret_cast<uint32_t*>(at(0))[4 * g() + warp_] = scales;
#pragma unroll
    for (int level = 1; level < 3; ++level) {
      if (level < levels) reinterpret_cast<uint16_t*>(at(level))[4 * g() + warp_] = static_cast<uint16_t>(corrections[level - 1]);
    }
  }

  // Least-squares scales of the whole code, as eighths of an octave below the head's largest.
  __device__ void ValueScales(const TqTask& task, uint32_t head, int levels, const float (&energy)[2], const float (&inverse)[2],
                              const Dots (&dots)[2][3], float (&error)[3]) {
    float wanted[2], unit[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      unit[r] = energy[r] * inverse[r] * (1.0f / kDim);
      Dots top = levels == 3 ? dots[r][2] : levels == 2 ? dots[r][1] : dots[r][0];
      wanted[r] = OnDiagonal() && top.along > 0 ? __fdividef(top.along * unit[r], top.square) : 0.0f;
    }
    float largest = fmaxf(wanted[0], wanted[1]);
    largest = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(largest)));
    if (lane_ == 0) side_->largest[warp_] = largest;
    SyncWarpgroup(group_ + 1);
    float4 all = *reinterpret_cast<const float4*>(side_->largest);
    uint16_t base_bits = ToBf16Bits(fmaxf(fmaxf(all.x, all.y), fmaxf(all.z, all.w)));
    float base = FromBf16Bits(base_bits), smallest = ValueScaleOf(base, kZeroCode - 1);
    if (thread_ == 0) reinterpret_cast<uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0])[1] = base_bits;
    uint32_t codes = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint8_t code = kZeroCode;
      if (wanted[r] > smallest / 2) {
        code = static_cast<uint8_t>(__float2int_rn(fminf(fmaxf(-16 * __log2f(__fdividef(wanted[r], base)), 0.0f), kZeroCode - 1.0f)));
      }
      codes |= uint32_t{code} << (8 * r);
      float scale = ValueScaleOf(base, code);
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        if (level < levels) error[level] += Error(energy[r], scale, dots[r][level].along * unit[r], dots[r][level].square);
      }
    }
    if (!OnDiagonal()) return;
    uint8_t* at = task.scales[0] + size_t{head} * task.slice_stride[0];
    reinterpret_cast<uint16_t*>(at)[4 * g() + warp_] = static_cast<uint16_t>(codes);
  }

  __device__ void StoreKeyPlanes(const TqTask& task, uint32_t head, int levels, const uint32_t (&packed)[2][kBlocks]) const {
    uint32_t units[kBlocks];
    auto codes = [&](int r, int k) { return packed[r][k] | packed[r][k] >> 12; };  // the low 16 bits
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) units[r * kTiles + i] = Permute(codes(r, 2 * i), codes(r, 2 * i + 1), 0x5410);
    }
    if constexpr (kTail) units[kBlocks - 1] = Permute(codes(0, kBlocks - 1), codes(1, kBlocks - 1), 0x5410);
    StorePlanes(task, head, levels, units);
  }

  // V's units hold four tokens of two channels: an 8 × 8 transposition, two blocks in one.
  __device__ void StoreValuePlanes(const TqTask& task, uint32_t head, int levels, const uint32_t (&packed)[2][kBlocks]) const {
    uint32_t units[kBlocks];
#pragma unroll
    for (int k = 0; k < kBlocks; k += 2) {
      bool two = k + 1 < kBlocks;
      uint32_t low = Transpose8x8(packed[0][k] | (two ? packed[0][(k + 1) % kBlocks] << 4 : 0));
      uint32_t high = Transpose8x8(packed[1][k] | (two ? packed[1][(k + 1) % kBlocks] << 4 : 0));
      auto unit = [](uint32_t a, uint32_t b) {
        a &= 0x0F0F0F0Fu;
        b &= 0x0F0F0F0Fu;
        return Permute(a | a >> 12, b | b >> 12, 0x5140);
      };
      units[k] = unit(low, high);
      if (two) units[(k + 1) % kBlocks] = unit(low >> 4, high >> 4);
    }
    StorePlanes(task, head, levels, units);
  }

  static __device__ uint32_t Halve4(uint32_t x) {  // bits 4j + {0, 1} to 2j + {0, 1}
    x = (x | x >> 2) & 0x0F0F0F0Fu;
    x = (x | x >> 4) & 0x00FF00FFu;
    return (x | x >> 8) & 0xFFFFu;
  }
  static __device__ uint32_t Halve2(uint32_t x) {
    x = (x | x >> 1) & 0x3333u;
    x = (x | x >> 2) & 0x0F0Fu;
    return (x | x >> 4) & 0xFFu;
  }

  // Units (core/codec/planes.h) of this lane as nibbles, to the planes of the levels.
  __device__ void StorePlanes(const TqTask& task, uint32_t head, int levels, const uint32_t (&units)[kBlocks]) const {
    constexpr int kFours = kDim / 64;
    constexpr bool kPair = kDim / 32 % 2, kSingle = kDim / 16 % 2;
    int lane = 32 * warp_ + lane_;
    auto at = [&](int level) { return task.planes[level] + size_t{head} * task.slice_stride[level]; };
    uint32_t crumbs[2 * kFours];
#pragma unroll
    for (int q = 0; q < 2 * kFours; ++q) crumbs[q] = (units[2 * q] >> 2 & 0x33333333u) | (units[2 * q + 1] & 0xCCCCCCCCu);
    StoreWords(reinterpret_cast<uint32_t*>(at(0)) + lane * 2 * kFours, crumbs);
    uint8_t* pairs = at(0) + 128 * 8 * kFours;
    if constexpr (kPair) {
      reinterpret_cast<uint32_t*>(pairs)[lane] = (units[4 * kFours] >> 2 & 0x33333333u) | (units[4 * kFours + 1] & 0xCCCCCCCCu);
    }
    if constexpr (kSingle) {
      reinterpret_cast<uint16_t*>(pairs + (kPair ? 512 : 0))[lane] = static_cast<uint16_t>(Halve4(units[kBlocks - 1] >> 2 & 0x33333333u));
    }
#pragma unroll
    for (int level = 1; level < 3; ++level) {
      if (level < levels) StoreBits(at(level), lane, 2 - level, units);
    }
  }

  // The one-bit plane of nibble bit `bit`.
  __device__ void StoreBits(uint8_t* plane, int lane, int bit, const uint32_t (&units)[kBlocks]) const {
    constexpr int kFours = kDim / 64;
    constexpr bool kPair = kDim / 32 % 2, kSingle = kDim / 16 % 2;
    auto place = [&](uint32_t unit, int i) { return (i >= bit ? unit << (i - bit) : unit >> (bit - i)) & (0x11111111u << i); };
    uint32_t words[kFours];
#pragma unroll
    for (int q = 0; q < kFours; ++q) {
      words[q] = place(units[4 * q], 0) | place(units[4 * q + 1], 1) | place(units[4 * q + 2], 2) | place(units[4 * q + 3], 3);
    }
    StoreWords(reinterpret_cast<uint32_t*>(plane) + lane * kFours, words);
    uint8_t* pairs = plane + 128 * 4 * kFours;
    if constexpr (kPair) {
      uint32_t both = place(units[4 * kFours], 0) | place(units[4 * kFours + 1], 1);
      reinterpret_cast<uint16_t*>(pairs)[lane] = static_cast<uint16_t>(Halve4(both));
    }
    if constexpr (kSingle) {
      pairs[(kPair ? 256 : 0) + lane] = static_cast<uint8_t>(Halve2(Halve4(place(units[kBlocks - 1], 0))));
    }
  }

  template <int kCount>
  static __device__ void StoreWords(uint32_t* to, const uint32_t (&words)[kCount]) {
    if constexpr (kCount % 4 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 4) __stcs(reinterpret_cast<uint4*>(to + i), make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]));
    } else if constexpr (kCount % 2 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) __stcs(reinterpret_cast<uint2*>(to + i), make_uint2(words[i], words[i + 1]));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) __stcs(to + i, words[i]);
    }
  }

  const TqLaunch& launch_;
  const FastEncodeTable& table_;
  const int group_, thread_, warp_, lane_;
  uint32_t image_, tile_;
  typename Shape::Side* side_;
  float y_[kDim / 2];
  uint32_t poly_[5], cap_, mask_;
  NibbleTable tables_[3];
};

template <int kDim, typename T>
__global__ void __launch_bounds__(EncodeShape<kDim>::kThreads, 1) FastEncodeKernel(const __grid_constant__ TqLaunch launch,
                                                                                   const __grid_constant__ FastEncodeTable table) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) uint8_t shared[];
  const auto* image = static_cast<const uint8_t*>(launch.image);
  for (int i = threadIdx.x * 16; i < EncodeShape<kDim>::kImageBytes; i += EncodeShape<kDim>::kThreads * 16) {
    CopyAsync16(SharedAddress(shared) + i, image + i, 16);
  }
  CommitCopies();
  WaitCopies();
  FenceAsyncProxy();
  __syncthreads();
  FastEncoder<kDim, T>(launch, table, shared).Run();
#endif
}

template <int kDim>
cudaError_t LaunchFastEncodeOf(const TqLaunch& launch, const FastEncodeTable& table, cudaStream_t stream) {
  using Shape = EncodeShape<kDim>;
  static_assert(Shape::kSharedBytes <= 227 * 1024);
  auto kernel = launch.type == DType::kBf16 ? FastEncodeKernel<kDim, __nv_bfloat16> : FastEncodeKernel<kDim, __half>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  uint32_t tiles = launch.count * launch.heads, needed = (tiles + Shape::kWarpgroups - 1) / Shape::kWarpgroups;
  uint32_t blocks = needed < static_cast<uint32_t>(launch.multiprocessors) ? needed : launch.multiprocessors;
  kernel<<<blocks, Shape::kThreads, Shape::kSharedBytes, stream>>>(launch, table);
  return cudaGetLastError();
}

}  // namespace quire::cuda
