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
#include "cuda/head_cursor.cuh"
#include "cuda/sm90.cuh"
#include "cuda/tq_fast.h"

namespace quire::cuda {

template <int kDim>
struct EncodeShape {
  static constexpr int kWarpgroups = kDim == 64 ? 6 : kDim < 128 ? 5 : kDim == 128 ? 4 : 2;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kPasses = EncodePasses(kDim);
  static constexpr int kChunkPitch = 64 * 16 + 16;  // 8 channels of all tokens; the pad spreads a row over the banks
  static constexpr int kTileBytes = kDim / 8 * kChunkPitch;
  static constexpr int kImageBytes = kPasses * kDim * kDim * 2;
  static constexpr int kColumns = (kDim / 4 + 7) / 8 * 8;  // a lane's, padded so that three halvings come out even
  static constexpr int kSumPitch = 4 * kColumns;
  struct Side {  // of one warpgroup
    float sums[4][kSumPitch];  // [warp][t][column]
    float means[4][kDim];      // each warp its own copy
    float4 report[64];         // [token, in some order]: energy, error after levels 0…2
    int bad[4];
    float largest[4];
    TaskRing tasks;
  };
  static constexpr int kSharedBytes = kImageBytes + kWarpgroups * (kTileBytes + static_cast<int>(sizeof(Side)));
};

template <int kDim, typename T>
class FastEncoder {
  using Shape = EncodeShape<kDim>;
  static constexpr int kBlocks = kDim / 16;  // of 16 channels
  static constexpr int kTiles = kDim / 32;   // whole tiles of 32
  static constexpr bool kTail = kDim % 32 != 0;
  // Columns of one product; there are one or two, and the first is worked on while the second runs.
  static constexpr int kParts = kDim <= 128 ? 1 : 2, kN = kDim / kParts;
  static constexpr int kPartColumns = Shape::kColumns / kParts;  // a lane's

 public:
  __device__ FastEncoder(const TqLaunch& launch, const FastEncodeTable& table, uint8_t* shared)
      : launch_(launch), table_(table), group_(UniformWarp() / 4), warp_(UniformWarp() % 4), lane_(threadIdx.x % 32) {
    image_ = SharedAddress(shared);
    uint8_t* own = shared + Shape::kImageBytes + group_ * Shape::kTileBytes;
    tile_ = SharedAddress(own);
    side_ = reinterpret_cast<typename Shape::Side*>(shared + Shape::kImageBytes + Shape::kWarpgroups * Shape::kTileBytes) + group_;
  }

  __device__ void Run() {
    HeadCursor cursor(launch_, blockIdx.x * Shape::kWarpgroups + group_, gridDim.x * Shape::kWarpgroups), next = cursor.Next();
    TaskRing& ring = side_->tasks;  // warp 0 fetches; the barrier of each head shows it to the others
    int now = 0;  // the head's place in the ring
    if (warp_ == 0) {
      ring.Fetch(launch_, cursor, 0);
      ring.Fetch(launch_, next, 1);
    }
    CommitCopies();
    LoadImage();  // comes while the first tasks and then the first head are on their way
    WaitForOlderCopies();
    SyncWarpgroup(group_ + 1);
    Prefetch(ring.at(0), cursor);
    WaitForOlderCopies();
    FenceAsyncProxy();
    __syncthreads();
    TqReport* last = nullptr;
    while (cursor.valid()) {
      HeadCursor third = next.Next();
      int after = TaskRing::Next(now);
      WaitCopies();
      FenceAsyncProxy();
      SyncWarpgroup(group_ + 1);
      if (warp_ == 0) ring.Fetch(launch_, third, TaskRing::Next(after));
      StartRotation();
      if (last != nullptr && warp_ == 0) WriteReport(last, last_bits_);
      const TqTask& task = ring.at(now);
      Encode(task, cursor.head, ring.at(after), next);
      last = launch_.reports + task.report + cursor.head;
      last_bits_ = task.bits;
      cursor = next;
      next = third;
      now = after;
    }
    SyncWarpgroup(group_ + 1);
    if (last != nullptr && warp_ == 0) WriteReport(last, last_bits_);
  }

 private:
  __device__ int g() const { return lane_ >> 2; }
  __device__ int t() const { return lane_ & 3; }
  __device__ int thread() const { return 32 * warp_ + lane_; }

  __device__ void LoadImage() const {
    const auto* image = static_cast<const uint8_t*>(launch_.image);
    for (int i = threadIdx.x * 16; i < Shape::kImageBytes; i += Shape::kThreads * 16) CopyAsync16(image_ + i, image + i, 16);
    CommitCopies();
  }

  __device__ void Prefetch(const TqTask& task, const HeadCursor& cursor) const {
    if (cursor.valid()) {
      const auto* base = static_cast<const uint8_t*>(task.tensor) + cursor.head * task.head_stride * 2;
      int64_t stride = task.token_stride * 2;
      int first = task.first_token;
      uint32_t to = tile_;
      if constexpr (128 % (kDim / 8) == 0) {  // a thread stays in its column
        constexpr int kRows = 128 / (kDim / 8);
        int row = thread() / (kDim / 8), column = thread() % (kDim / 8);
        const uint8_t* from = base + row * stride + column * 16;
        to += column * Shape::kChunkPitch + row * 16;
#pragma unroll
        for (int i = 0; i < kDim / 16; ++i) {
          CopyAsync16(to + i * kRows * 16, from, row + i * kRows < first ? 0 : 16);
          from += kRows * stride;
        }
      } else {
#pragma unroll
        for (int i = 0; i < kDim / 16; ++i) {
          int chunk = thread() + 128 * i, row = chunk / (kDim / 8), column = chunk % (kDim / 8);
          CopyAsync16(to + column * Shape::kChunkPitch + row * 16, base + row * stride + column * 16, row < first ? 0 : 16);
        }
      }
    }
    CommitCopies();
  }

  __device__ void StartRotation() {
    uint64_t x = MatrixDescriptor(tile_, Shape::kChunkPitch, 128), image = MatrixDescriptor(image_, 16 * kDim, 128);
    WgmmaFence();
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int pass = 0; pass < Shape::kPasses; ++pass) {
#pragma unroll
        for (int k = 0; k < kBlocks; ++k) {
          Wgmma<kN, T>::Shared(y_[part], Advance(x, k * 2 * Shape::kChunkPitch),
                               Advance(image, pass * kDim * kDim * 2 + k * 2 * 16 * kDim + part * kN * 16), pass + k > 0);
        }
      }
      WgmmaCommit();
    }
  }

  // What a product gave: y(n, i) is value i = 2r + e of 8-wide tile n.
  __device__ float& y(int n, int i) { return y_[n / (kN / 8)][n % (kN / 8) * 4 + i]; }
  __device__ float y(int n, int i) const { return y_[n / (kN / 8)][n % (kN / 8) * 4 + i]; }

  // Waits for product `part`.
  template <int kPart>
  __device__ void AwaitPart() const {
    if constexpr (kPart + 1 < kParts) {
      WgmmaWaitAllButOne();
    } else {
      WgmmaWait();
    }
  }

  // Σ y² of this lane's row r over the tiles of one part.
  __device__ float PartEnergy(int part, int r) const {
    float even = 0, odd = 0;
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
      even = fmaf(y_[part][4 * n + 2 * r], y_[part][4 * n + 2 * r], even);
      odd = fmaf(y_[part][4 * n + 2 * r + 1], y_[part][4 * n + 2 * r + 1], odd);
    }
    return even + odd;
  }
  // Over the four lanes of a row.
  static __device__ float SumOverLanes(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
  }
  __device__ float RowEnergy(int r) const {
    float sum = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) sum += PartEnergy(part, r);
    return SumOverLanes(sum);
  }

  // The first coded token of this warp whose energy is not finite, or 64.
  __device__ int FirstBad(int first, const float (&energy)[2]) const {
    constexpr float kLargest = 3.402823466e38f;
    if (!__any_sync(~0u, !(energy[0] <= kLargest) || !(energy[1] <= kLargest))) return 64;
    int bad = 64;
#pragma unroll
    for (int r = 1; r >= 0; --r) {
      int token = 16 * warp_ + 8 * r + g();
      if (token >= first && !(energy[r] <= kLargest)) bad = token;
    }
    return __reduce_min_sync(~0u, bad);
  }

  static __device__ float Select(uint32_t mask, float a, float b) {
    return __uint_as_float((__float_as_uint(a) & mask) | (__float_as_uint(b) & ~mask));
  }

  // Column sums of one part over this warp's 16 tokens. Three exchanges halve the columns that a lane holds, over the eight g; what
  // is left goes to shared memory.
  __device__ void SumPart(int part) {
    float v[kPartColumns];
#pragma unroll
    for (int c = 0; c < kPartColumns; ++c) v[c] = c < kN / 4 ? y_[part][4 * (c / 2) + c % 2] + y_[part][4 * (c / 2) + 2 + c % 2] : 0.0f;
    int start = part * kPartColumns;
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      int half = kPartColumns >> (level + 1), bit = 16 >> level;
      uint32_t upper = lane_ & bit ? ~0u : 0;
#pragma unroll
      for (int i = 0; i < kPartColumns / 2; ++i) {
        if (i >= half) continue;
        float send = Select(upper, v[i], v[i + half]), keep = Select(upper, v[i + half], v[i]);
        v[i] = keep + __shfl_xor_sync(~0u, send, bit);
      }
      start += upper & half;
    }
    float* sums = &side_->sums[warp_][t() * Shape::kColumns + start];
#pragma unroll
    for (int i = 0; i < kPartColumns / 8; ++i) sums[i] = v[i];
  }

  // K: once all warps are done with the tile, starts on the next one. The rotated mean of each channel, in int8 steps; stored and subtracted from y. `*taken` is what that takes away from the sum
  // of all coded energies, in lane 0 of warp 0; `*bad` as FirstBad has it before. False if the mean is not finite.
  __device__ bool RemoveMean(const TqTask& task, uint32_t head, const TqTask& next_task, const HeadCursor& next, float* taken, int* bad) {
    AwaitPart<0>();
    SumPart(0);
    if constexpr (kParts == 2) {
      AwaitPart<1>();
      SumPart(1);
    }
    SyncWarpgroup(group_ + 1);
    Prefetch(next_task, next);

    // Four channels a lane and step; every warp does all of it, which saves a barrier.
    constexpr int kSteps = (kDim / 4 + 31) / 32;
    float mean[kSteps][4];
    uint32_t largest = 0;
    int coded = 64 - task.first_token;
    float scale = __fdividef(1.0f, static_cast<float>(coded));
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      int q = min(lane_ + 32 * i, kDim / 4 - 1);
      bool whole = !kTail || q < 8 * kTiles;
      int at = whole ? (q >> 1 & 3) * Shape::kColumns + 8 * (q >> 3) + 4 * (q & 1) : (q & 3) * Shape::kColumns + 8 * kTiles;
      float4 sum = *reinterpret_cast<const float4*>(&side_->sums[0][at]);
#pragma unroll
      for (int w = 1; w < 4; ++w) {
        float4 more = *reinterpret_cast<const float4*>(&side_->sums[w][at]);
        sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
      }
      mean[i][0] = sum.x * scale, mean[i][1] = sum.y * scale, mean[i][2] = sum.z * scale, mean[i][3] = sum.w * scale;
#pragma unroll
      for (float m : mean[i]) largest = max(largest, __float_as_uint(m) & 0x7FFFFFFFu);
    }
    // As bits, a NaN is larger than any number.
    largest = __reduce_max_sync(~0u, largest);
    if (largest > __float_as_uint(1e17f)) {
      float energy[2] = {RowEnergy(0), RowEnergy(1)};
      *bad = FirstBad(task.first_token, energy);
    }
    uint16_t step_bits = ToBf16Bits(__uint_as_float(largest) * (1.0f / 127));
    float step = FromBf16Bits(step_bits), inverse = step > 0 ? __frcp_rn(step) : 0.0f, part = 0;
    uint8_t* slice_mean = task.mean + size_t{head} * task.slice_stride[0];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      int q = lane_ + 32 * i;
      if (kDim % 128 != 0 && q >= kDim / 4) continue;
      uint32_t packed = 0;
      float rounded[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        // 1.5 · 2^23 + x has the rounded x in its low bits.
        float shifted = __fadd_rn(fminf(fmaxf(mean[i][c] * inverse, -127.0f), 127.0f), 12582912.0f);
        packed |= (__float_as_uint(shifted) & 0xFF) << (8 * c);
        rounded[c] = (shifted - 12582912.0f) * step;
        part = fmaf(rounded[c], 2 * mean[i][c] - rounded[c], part);
      }
      *reinterpret_cast<float4*>(&side_->means[warp_][4 * q]) = make_float4(rounded[0], rounded[1], rounded[2], rounded[3]);
      if (warp_ == 0) reinterpret_cast<uint32_t*>(slice_mean)[q] = packed;
    }
    if (warp_ == 0) {
#pragma unroll
      for (int delta = 16; delta > 0; delta /= 2) part += __shfl_xor_sync(~0u, part, delta);
      *taken = lane_ == 0 ? part * coded : 0.0f;
      if (lane_ == 0) {
        auto* scalars = reinterpret_cast<uint32_t*>(task.scalars + size_t{head} * task.slice_stride[0]);
        if (task.kind == 2) {
          scalars[0] = step_bits;
        } else {
          reinterpret_cast<uint16_t*>(scalars)[0] = step_bits;
        }
        scalars[1] = scalars[2] = scalars[3] = 0;
      }
    }
    __syncwarp();
    SubtractMeans();
    return largest < 0x7F800000u;
  }

  __device__ void SubtractMeans() {
    const float* means = side_->means[warp_];
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      int channel = kTail && k == kBlocks - 1 ? 16 * k + 4 * t() : 32 * (k / 2) + 8 * t() + 4 * (k % 2);
      float4 m = *reinterpret_cast<const float4*>(means + channel);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        y(2 * k, 2 * r) -= m.x;
        y(2 * k, 2 * r + 1) -= m.y;
        y(2 * k + 1, 2 * r) -= m.z;
        y(2 * k + 1, 2 * r + 1) -= m.w;
      }
    }
  }

  // y · inverse as pairs of halves: what indices need, in half the registers.
  __device__ void Normalise(const float (&inverse)[2]) {
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          // Adding 0 turns −0 into 0, so that a vector that is not coded has no sign bits.
          __half2 z = __floats2half2_rn(fmaf(y(2 * k + h, 2 * r), inverse[r], 0.0f), fmaf(y(2 * k + h, 2 * r + 1), inverse[r], 0.0f));
          z_[r][k][h] = reinterpret_cast<const uint32_t&>(z);
        }
      }
    }
  }

  // 1032 + the index of |z|, as halves.
  __device__ uint32_t Index(uint32_t magnitude) const {
    auto pair = [](const uint32_t& x) { return reinterpret_cast<const __half2&>(x); };
    __half2 u = pair(magnitude), f = pair(poly_[0]);
#pragma unroll
    for (int i = 1; i < 4; ++i) f = __hfma2(f, u, pair(poly_[i]));
    f = __hfma2_sat(f, u, pair(poly_[4]));
    f = __hfma2(f, __float2half2_rn(kIndexScale), __float2half2_rn(1032.0f));  // the unit in the last place is 1: rounds
    return reinterpret_cast<const uint32_t&>(f);
  }

  // ⟨|z|, c⟩ and ⟨c, c⟩ of one row and level; right in the lane with t = g / 2.
  struct Dots {
    float along, square;
  };

  // Codes as nibbles: `packed[r][k]` of row r and block k: column pairs at bits 0, 16 (the block's half 0) and 8, 24 (half 1).
  template <int kLevels>
  __device__ void IndexRows(uint32_t (&packed)[2][kBlocks], Dots (&dots)[2][3]) const {
    float products[2][kLevels][4] = {};
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t z0 = z_[r][k][0], z1 = z_[r][k][1], u0 = z0 & 0x7FFF7FFFu, u1 = z1 & 0x7FFF7FFFu;
        packed[r][k] = (Permute(Index(u0), Index(u1), 0x6240) & mask_) | (Permute(z0, z1, 0x7351) >> 4 & 0x08080808u);
        uint32_t selector = (packed[r][k] | packed[r][k] >> 12) & 0x7777u;
#pragma unroll
        for (int level = 0; level < kLevels; ++level) {
          const NibbleTable& table = tables_[level];
          uint32_t low = Permute(table.low[0], table.low[1], selector), high = Permute(table.high[0], table.high[1], selector);
          uint32_t c0 = Permute(low, high, 0x5140), c1 = Permute(low, high, 0x7362);
          MmaHalf(products[r][level], u0, c0, u1, c1, c0, c1);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        int l = level < kLevels ? level : kLevels - 1;
        dots[r][level].along = g() & 1 ? products[r][l][1] : products[r][l][0];
        dots[r][level].square = g() & 1 ? products[r][l][3] : products[r][l][2];
      }
    }
  }

  // Lanes with t = g / 2 finish their row 0, their neighbours t ^ 1 row 1, with what the diagonal gave.
  __device__ bool Finishes() const { return t() >> 1 == g() >> 2; }
  __device__ int Row() const { return t() == g() >> 1 ? 0 : 1; }

  __device__ void Encode(const TqTask& task, uint32_t head, const TqTask& next_task, const HeadCursor& next) {
    int first = task.first_token, bits = task.bits, bad = 64;
    bool value = task.kind == 1, finite = true;
    float taken = 0;  // what the sum of the energies below lacks
    float energy[2];
    if (value) {
      AwaitPart<0>();
      energy[0] = PartEnergy(0, 0);
      energy[1] = PartEnergy(0, 1);
      if constexpr (kParts == 2) {
        AwaitPart<1>();
        energy[0] += PartEnergy(1, 0);
        energy[1] += PartEnergy(1, 1);
      }
      SyncWarpgroup(group_ + 1);
      Prefetch(next_task, next);
      energy[0] = SumOverLanes(energy[0]);
      energy[1] = SumOverLanes(energy[1]);
    } else {
      finite = RemoveMean(task, head, next_task, next, &taken, &bad);
      energy[0] = RowEnergy(0);
      energy[1] = RowEnergy(1);
    }
    if (finite) bad = min(bad, FirstBad(first, energy));
    float inverse[2], raw[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      bool coded = 16 * warp_ + 8 * r + g() >= first, live = coded && energy[r] >= kTinySquare;
      inverse[r] = live ? table_.root * rsqrtf(energy[r]) : 0.0f;
      raw[r] = coded ? energy[r] : 0.0f;
      if (!live) energy[r] = 0;
    }
    Normalise(inverse);
    LoadTables(bits);
    uint32_t packed[2][kBlocks];
    Dots dots[2][3];
    int levels = bits - 1;
    if (levels == 3) {
      IndexRows<3>(packed, dots);
    } else if (levels == 2) {
      IndexRows<2>(packed, dots);
    } else {
      IndexRows<1>(packed, dots);
    }
    bool second = Row() == 1;
    Token token{second ? energy[1] : energy[0], second ? inverse[1] : inverse[0], {}};
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      float along = __shfl_xor_sync(~0u, dots[1][level].along, 1), square = __shfl_xor_sync(~0u, dots[1][level].square, 1);
      token.dots[level] = {second ? along : dots[0][level].along, second ? square : dots[0][level].square};
    }
    float error[3];
    if (value) {
      ValueScales(task, head, levels, token, error);
      StoreValuePlanes(task, head, levels, packed);
    } else {
      KeyScales(task, head, levels, token, error);
      StoreKeyPlanes(task, head, levels, packed);
    }
    float all = second ? raw[1] : raw[0], lost = all - token.energy;
    if (Finishes()) side_->report[16 * warp_ + 2 * g() + Row()] = make_float4(all + taken, error[0] + lost, error[1] + lost, error[2] + lost);
    if (lane_ == 0) side_->bad[warp_] = bad;
  }

  // A token on the lane that finishes it.
  struct Token {
    float energy, inverse;
    Dots dots[3];
  };

  __device__ void LoadTables(int bits) {
#pragma unroll
    for (int i = 0; i < 5; ++i) poly_[i] = table_.index[bits - 2][i];
    mask_ = table_.mask[bits - 2];
#pragma unroll
    for (int level = 0; level < 3; ++level) tables_[level] = table_.centroids[bits - 2][level];
  }

  // The report of a head whose partial sums all warps have left: they do not leave the next head's before one more barrier. Levels that the bits lack repeat the last one. One warp calls it.
  __device__ void WriteReport(TqReport* to, int bits) {
    float4 sum = side_->report[lane_], other = side_->report[lane_ + 32];
    sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
#pragma unroll
    for (int delta = 16; delta > 0; delta /= 2) {
      sum.x += __shfl_xor_sync(~0u, sum.x, delta);
      sum.y += __shfl_xor_sync(~0u, sum.y, delta);
      sum.z += __shfl_xor_sync(~0u, sum.z, delta);
      sum.w += __shfl_xor_sync(~0u, sum.w, delta);
    }
    if (lane_ != 0) return;
    int4 found = *reinterpret_cast<const int4*>(side_->bad);
    int bad = min(min(found.x, found.y), min(found.z, found.w));
    float second = bits > 2 ? sum.z : sum.y, third = bits > 3 ? sum.w : second;
    auto* out = reinterpret_cast<float4*>(to);
    out[0] = make_float4(fmaxf(sum.x, 0.0f), fmaxf(sum.y, 0.0f), fmaxf(second, 0.0f), fmaxf(third, 0.0f));
    out[1] = make_float4(fmaxf(third, 0.0f), __int_as_float(bad == 64 ? -1 : bad), 0.0f, 0.0f);
  }

  static __device__ float Error(float energy, float scale, float along, float square) {
    return fmaf(scale, fmaf(scale, square, -2 * along), energy);
  }

  static __device__ int QuickCorrection(float wanted, float from) {
    float steps = fmaf(__fdividef(wanted, from), 1024.0f, -1024.0f);
    return from > 0 ? __float2int_rn(fminf(fmaxf(steps, -127.0f), 127.0f)) : 0;
  }
  static __device__ float QuickValueScale(float base, int code) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(static_cast<float>(code) * (-1.0f / 16)));
    return code == kZeroCode ? 0.0f : base * power;
  }

  // Unbiased scales, E / ⟨y, c⟩; with z = y · inverse, ⟨y, c⟩ is dots.along / inverse and 1 / inverse is E · inverse / d.
  __device__ void KeyScales(const TqTask& task, uint32_t head, int levels, const Token& token, float (&error)[3]) const {
    float numerator = token.energy * token.inverse, unit = numerator * (1.0f / kDim), scale = 0;
    int slot = 8 * g() + 2 * warp_ + Row();
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      error[level] = 0;
      if (level >= levels) continue;
      float wanted = token.dots[level].along > 0 ? __fdividef(numerator, token.dots[level].along) : 0.0f;
      uint8_t* at = task.scales[level] + size_t{head} * task.slice_stride[level];
      if (level == 0) {
        uint16_t stored = ToBf16Bits(wanted);
        scale = FromBf16Bits(stored);
        if (Finishes()) reinterpret_cast<uint16_t*>(at)[slot] = stored;
      } else {
        float from = scale * table_.ratio[levels - 1][level];
        int correction = QuickCorrection(wanted, from);
        scale = CorrectedScale(from, static_cast<int8_t>(correction));
        if (Finishes()) at[slot] = static_cast<uint8_t>(correction);
      }
      error[level] = Error(token.energy, scale, token.dots[level].along * unit, token.dots[level].square);
    }
  }

  // Least-squares scales of the whole code, as sixteenths of an octave below the head's largest.
  __device__ void ValueScales(const TqTask& task, uint32_t head, int levels, const Token& token, float (&error)[3]) {
    float unit = token.energy * token.inverse * (1.0f / kDim);
    Dots top = levels == 3 ? token.dots[2] : levels == 2 ? token.dots[1] : token.dots[0];
    float wanted = Finishes() && top.along > 0 ? __fdividef(top.along * unit, top.square) : 0.0f;
    float largest = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(wanted)));
    if (lane_ == 0) side_->largest[warp_] = largest;
    SyncWarpgroup(group_ + 1);
    float4 of_warps = *reinterpret_cast<const float4*>(side_->largest);
    uint16_t base_bits = ToBf16Bits(fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w)));
    float base = FromBf16Bits(base_bits), smallest = QuickValueScale(base, kZeroCode - 1);
    if (thread() == 0) reinterpret_cast<uint16_t*>(task.scalars + size_t{head} * task.slice_stride[0])[1] = base_bits;
    float steps = -16 * __log2f(__fdividef(wanted, base));
    int code = wanted > smallest / 2 ? __float2int_rn(fminf(fmaxf(steps, 0.0f), kZeroCode - 1.0f)) : kZeroCode;
    float scale = QuickValueScale(base, code);
#pragma unroll
    for (int level = 0; level < 3; ++level) error[level] = Error(token.energy, scale, token.dots[level].along * unit, token.dots[level].square);
    if (Finishes()) (task.scales[0] + size_t{head} * task.slice_stride[0])[8 * g() + 2 * warp_ + Row()] = static_cast<uint8_t>(code);
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
  const int group_, warp_, lane_;
  int last_bits_ = 2;
  uint32_t image_, tile_;
  typename Shape::Side* side_;
  float y_[kParts][kN / 2];
  uint32_t z_[2][kBlocks][2];
  uint32_t poly_[5], mask_;
  NibbleTable tables_[3];
};

template <int kDim, typename T>
__global__ void __launch_bounds__(EncodeShape<kDim>::kThreads, 1) FastEncodeKernel(const __grid_constant__ TqLaunch launch,
                                                                                   const __grid_constant__ FastEncodeTable table) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) uint8_t shared[];
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
