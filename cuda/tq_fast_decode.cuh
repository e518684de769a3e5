// The fast decoder (sm_90a): one warpgroup a head.
//
// A warp brings its own words of a head's planes, and scales and mean, into shared memory, one head ahead; no other warp waits for
// it. A lane finds in its words the codes of just those values that a matrix fragment wants from it (for V after one 8 × 8
// transposition a register), turns nibbles into centroids by byte tables, and one warpgroup product with Rᵀ undoes the rotation.
// K's mean enters before the product, so the whole affine step costs a multiplication and a fused one for two values; rows leave
// through shared memory as whole lines.
#pragma once

#include <cuda_runtime.h>

#include "cuda/element.cuh"
#include "cuda/head_cursor.cuh"
#include "cuda/sm90.cuh"
#include "cuda/tq_fast.h"

namespace quire::cuda {

template <int kDim>
struct DecodeShape {
  static constexpr int kWarpgroups = kDim == 64 ? 6 : kDim <= 128 ? 4 : 3;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kImageBytes = kDim * kDim * 2;
  static constexpr int kFours = kDim / 64;
  static constexpr bool kPair = kDim / 32 % 2, kSingle = kDim / 16 % 2;
  // One warp's share of a head's codes at up to 4 bits: of each plane 32 lanes' runs of four units, the pair, the single one.
  static constexpr int kCrumbs = 4 * kDim, kOnes = 2 * kDim;
  struct alignas(16) Stage {
    uint8_t crumbs[kCrumbs];
    uint8_t ones[2][kOnes];
    uint8_t scales[128];
    uint8_t corrections[3][64];  // after levels 1, 2, 3
    uint8_t mean[kDim];
    uint8_t scalars[16];
  };
  using Tasks = TaskRing<3>;
  // A warp's 16 rows on their way out, 256 bytes of each at a time.
  static constexpr int kRowPitch = kDim == 256 ? 256 + 16 : 256 + 64, kRowBytes = 16 * kRowPitch;
  static constexpr int kOfWarp = static_cast<int>(sizeof(Stage) + sizeof(Tasks)) + kRowBytes;
  static constexpr int kSharedBytes = kImageBytes + kWarpgroups * 4 * kOfWarp;
};

template <int kDim, DType kOut>
class FastDecoder {
  using Shape = DecodeShape<kDim>;
  using Stage = typename Shape::Stage;
  static constexpr int kBlocks = kDim / 16, kTiles = kDim / 32, kFours = Shape::kFours;
  static constexpr bool kTail = kDim % 32 != 0, kPair = Shape::kPair, kSingle = Shape::kSingle;
  static constexpr int kN = kDim < 128 ? kDim : 64;  // columns of one product
  static constexpr int kSize = kOut == DType::kF32 ? 4 : 2;

 public:
  __device__ FastDecoder(const TqLaunch& launch, const FastDecodeTable& table, uint8_t* shared)
      : launch_(launch), table_(table), group_(UniformWarp() / 4), warp_(UniformWarp() % 4), lane_(threadIdx.x % 32) {
    image_ = SharedAddress(shared);
    int warp = 4 * group_ + warp_;
    stage_ = reinterpret_cast<Stage*>(shared + Shape::kImageBytes) + warp;
    uint8_t* after = shared + Shape::kImageBytes + Shape::kWarpgroups * 4 * sizeof(Stage);
    rows_ = after + warp * Shape::kRowBytes;
    ring_ = reinterpret_cast<typename Shape::Tasks*>(after + Shape::kWarpgroups * 4 * Shape::kRowBytes) + warp;
  }

  __device__ HeadCursor First() const { return HeadCursor(launch_, blockIdx.x * Shape::kWarpgroups + group_); }

  // Starts the copies of the first two tasks.
  __device__ void Start() {
    HeadCursor first = First();
    ring_->Fetch(launch_, first, 0);
    ring_->Fetch(launch_, first.Next(), 1);
    CommitCopies();
  }

  // REQUIRES: what Start copies has come.
  __device__ void Run() {
    HeadCursor cursor = First(), next = cursor.Next();
    int now = 0;  // the head's place in the ring
    if (cursor.valid()) FetchParts(ring_->at(0), cursor.head, *stage_);
    CommitCopies();
    while (cursor.valid()) {
      HeadCursor third = next.Next();
      int after = Shape::Tasks::Next(now);
      WaitCopies();
      __syncwarp();
      const TqTask& task = ring_->at(now);
      int bits = task.bits, levels = task.levels, kept = KeptBitsOf(bits, levels - 1);
      uint32_t units[kBlocks];
      float factor[2];
      LoadUnits(*stage_, kept, units);
      const NibbleTable table = table_.centroids[bits - 2][kept - 2];
      if (task.kind == 1) {
        ValueFragments(table, units);
        ValueFactors(*stage_, bits, levels, factor);
      } else {
        KeyFragments(*stage_, table, bits, levels, units, factor);
      }
      __syncwarp();  // all lanes have read the stage
      if (next.valid()) FetchParts(ring_->at(after), next.head, *stage_);
      ring_->Fetch(launch_, third, Shape::Tasks::Next(after));
      CommitCopies();
      RotateAndStore(task, cursor.head, factor);
      cursor = next;
      next = third;
      now = after;
    }
  }

 private:
  __device__ int g() const { return lane_ >> 2; }
  __device__ int t() const { return lane_ & 3; }

  // kChunks · 16 bytes by the lanes of this warp.
  template <int kChunks>
  __device__ void CopyChunks(uint8_t* to, const uint8_t* from) const {
#pragma unroll
    for (int i = 0; i < kChunks; i += 32) {
      if (i + 32 <= kChunks || lane_ + i < kChunks) CopyAsync16(SharedAddress(to) + 16 * (i + lane_), from + 16 * (i + lane_), 16);
    }
  }

  // This warp's part of a plane whose runs of four, two and one unit have 4, 2 and 1 times kUnit bytes.
  template <int kUnit>
  __device__ void CopyPlane(uint8_t* to, const uint8_t* plane) const {
    constexpr int kFourBytes = 32 * 4 * kUnit * kFours, kPairBytes = kPair ? 64 * kUnit : 0;
    CopyChunks<kFourBytes / 16>(to, plane + warp_ * kFourBytes);
    if constexpr (kPair) CopyChunks<kPairBytes / 16>(to + kFourBytes, plane + 4 * kFourBytes + warp_ * kPairBytes);
    if constexpr (kSingle) {
      CopyChunks<2 * kUnit>(to + kFourBytes + kPairBytes, plane + 4 * (kFourBytes + kPairBytes) + warp_ * 32 * kUnit);
    }
  }

  __device__ void FetchParts(const TqTask& task, uint32_t head, Stage& stage) const {
    int bits = task.bits, levels = task.levels, kept = KeptBitsOf(bits, levels - 1);
    bool value = task.kind == 1;
    auto at = [&](const uint8_t* part, int level) { return part + size_t{head} * task.slice_stride[level]; };
    CopyPlane<2>(stage.crumbs, at(task.planes[0], 0));
    if (kept > 2) CopyPlane<1>(stage.ones[0], at(task.planes[1], 1));
    if (kept > 3) CopyPlane<1>(stage.ones[1], at(task.planes[2], 2));
    CopyChunks<1>(stage.scalars, at(task.scalars, 0));
    if (value) {
      CopyChunks<4>(stage.scales, at(task.scales[0], 0));
    } else {
      CopyChunks<8>(stage.scales, at(task.scales[0], 0));
      CopyChunks<kDim / 16>(stage.mean, at(task.mean, 0));
      if (kept > 2) CopyChunks<4>(stage.corrections[0], at(task.scales[1], 1));
      if (kept > 3) CopyChunks<4>(stage.corrections[1], at(task.scales[2], 2));
    }
    if (levels > 3 && HasLevelOf(bits, 3)) CopyChunks<4>(stage.corrections[2], at(task.scales[3], 3));
  }

  static __device__ uint32_t Double4(uint32_t x) {  // bits 2j + {0, 1} to 4j + {0, 1}
    x = (x | x << 8) & 0x00FF00FFu;
    x = (x | x << 4) & 0x0F0F0F0Fu;
    return (x | x << 2) & 0x33333333u;
  }
  static __device__ uint32_t Double2(uint32_t x) {
    x = (x | x << 4) & 0x0F0Fu;
    x = (x | x << 2) & 0x3333u;
    return (x | x << 1) & 0x5555u;
  }

  // Nibbles from a crumb word's half and the two one-bit words, for unit i of a run of four.
  static __device__ uint32_t Merge(uint32_t crumbs, uint32_t high, uint32_t low, int i) {
    uint32_t top = i & 1 ? crumbs & 0xCCCCCCCCu : crumbs << 2 & 0xCCCCCCCCu;
    uint32_t second = i >= 1 ? high >> (i - 1) : high << 1, third = low >> i;
    return top | (second & 0x22222222u) | (third & 0x11111111u);
  }

  // This lane's units (core/codec/planes.h) as nibbles aligned to the top; bits below `kept` are zero.
  __device__ void LoadUnits(const Stage& stage, int kept, uint32_t (&units)[kBlocks]) const {
    int lane = lane_;
    uint32_t crumbs[2 * kFours], high[kFours] = {}, low[kFours] = {};
    LoadWords(reinterpret_cast<const uint32_t*>(stage.crumbs) + lane * 2 * kFours, crumbs);
    if (kept > 2) LoadWords(reinterpret_cast<const uint32_t*>(stage.ones[0]) + lane * kFours, high);
    if (kept > 3) LoadWords(reinterpret_cast<const uint32_t*>(stage.ones[1]) + lane * kFours, low);
#pragma unroll
    for (int u = 0; u < 4 * kFours; ++u) units[u] = Merge(crumbs[u / 2], high[u / 4], low[u / 4], u % 4);
    if constexpr (kPair) {
      uint32_t both = reinterpret_cast<const uint32_t*>(stage.crumbs + 256 * kFours)[lane], h = 0, l = 0;
      if (kept > 2) h = Double4(reinterpret_cast<const uint16_t*>(stage.ones[0] + 128 * kFours)[lane]);
      if (kept > 3) l = Double4(reinterpret_cast<const uint16_t*>(stage.ones[1] + 128 * kFours)[lane]);
      units[4 * kFours] = Merge(both, h, l, 0);
      units[4 * kFours + 1] = Merge(both, h, l, 1);
    }
    if constexpr (kSingle) {
      constexpr int kAfter = kPair ? 2 : 0;
      uint32_t one = Double4(reinterpret_cast<const uint16_t*>(stage.crumbs + 256 * kFours + 64 * kAfter)[lane]), h = 0, l = 0;
      if (kept > 2) h = Double4(Double2((stage.ones[0] + 128 * kFours + 32 * kAfter)[lane]));
      if (kept > 3) l = Double4(Double2((stage.ones[1] + 128 * kFours + 32 * kAfter)[lane]));
      units[kBlocks - 1] = Merge(one, h, l, 0);
    }
  }

  template <int kCount>
  static __device__ void LoadWords(const uint32_t* from, uint32_t (&words)[kCount]) {
    if constexpr (kCount % 4 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 4) {
        uint4 v = *reinterpret_cast<const uint4*>(from + i);
        words[i] = v.x, words[i + 1] = v.y, words[i + 2] = v.z, words[i + 3] = v.w;
      }
    } else if constexpr (kCount % 2 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) {
        uint2 v = *reinterpret_cast<const uint2*>(from + i);
        words[i] = v.x, words[i + 1] = v.y;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) words[i] = from[i];
    }
  }

  // Four nibbles in the low 16 bits as two pairs of halves.
  static __device__ void Centroids(const NibbleTable& table, uint32_t nibbles, uint32_t* first, uint32_t* second) {
    uint32_t magnitude = nibbles & 0x7777u;
    uint32_t low = Permute(table.low[0], table.low[1], magnitude), high = Permute(table.high[0], table.high[1], magnitude);
    // A selector with bit 3 set repeats the byte's sign: 0xFF where the value is negative, else 0x80.
    uint32_t sign = Permute(0x80808080u, 0x80808080u, nibbles);
    high |= sign << 1 & 0x80808080u;
    *first = Permute(low, high, 0x5140);
    *second = Permute(low, high, 0x7362);
  }

  __device__ void ValueFragments(const NibbleTable& table, const uint32_t (&units)[kBlocks]) {
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      Centroids(table, units[k], &a_[k][0], &a_[k][1]);
      Centroids(table, units[k] >> 16, &a_[k][2], &a_[k][3]);
#pragma unroll
      for (uint32_t& x : a_[k]) x = Transpose8x8(x);
    }
  }

  __device__ void ValueFactors(const Stage& stage, int bits, int levels, float (&factor)[2]) const {
    float base = FromBf16Bits(reinterpret_cast<const uint16_t*>(stage.scalars)[1]);
    int at = 8 * g() + 2 * warp_;
    uint32_t codes = *reinterpret_cast<const uint16_t*>(stage.scales + at), corrections = 0;
    if (levels > 3 && HasLevelOf(bits, 3)) corrections = *reinterpret_cast<const uint16_t*>(stage.corrections[2] + at);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint32_t code = codes >> (8 * r) & 0xFF;
      float power;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(static_cast<float>(code) * (-1.0f / 16)));
      factor[r] = CorrectedScale(code == kZeroCode ? 0.0f : base * power, static_cast<int8_t>(corrections >> (8 * r)));
    }
  }

  // y / u = (scale / u) · centroid + (step / u) · mean, u the larger of scale and step, so that all stays within a half's range;
  // u itself multiplies the result.
  __device__ void KeyFragments(const Stage& stage, const NibbleTable& table, int bits, int levels, const uint32_t (&units)[kBlocks],
                               float (&factor)[2]) {
    float step = FromBf16Bits(reinterpret_cast<const uint16_t*>(stage.scalars)[0]);
    int at = 8 * g() + 2 * warp_;
    uint32_t scales = *reinterpret_cast<const uint32_t*>(stage.scales + 2 * at);
    float scale[2] = {FromBf16Bits(static_cast<uint16_t>(scales)), FromBf16Bits(static_cast<uint16_t>(scales >> 16))};
#pragma unroll
    for (int level = 1; level < 4; ++level) {
      uint32_t corrections = 0;
      float ratio = 1;
      if (level < levels && HasLevelOf(bits, level)) {
        corrections = *reinterpret_cast<const uint16_t*>(stage.corrections[level - 1] + at);
        ratio = table_.ratio[bits - 2][level];
      }
      scale[0] = CorrectedScale(scale[0] * ratio, static_cast<int8_t>(corrections));
      scale[1] = CorrectedScale(scale[1] * ratio, static_cast<int8_t>(corrections >> 8));
    }
    __half2 of_centroid[2], of_mean[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = fmaxf(scale[r], step);
      float inverse = factor[r] > 0 ? __frcp_rn(factor[r]) : 0.0f;
      of_centroid[r] = __float2half2_rn(scale[r] * inverse);
      of_mean[r] = __float2half2_rn(step * inverse);
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint2 bytes = *reinterpret_cast<const uint2*>(stage.mean + 32 * i + 8 * t());
      uint32_t mean[4];
      Means(bytes.x, &mean[0], &mean[1]);
      Means(bytes.y, &mean[2], &mean[3]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t nibbles = units[r * kTiles + i];
        KeyBlock(table, nibbles, of_centroid[r], of_mean[r], mean[0], mean[1], &a_[2 * i][r], &a_[2 * i][2 + r]);
        KeyBlock(table, nibbles >> 16, of_centroid[r], of_mean[r], mean[2], mean[3], &a_[2 * i + 1][r], &a_[2 * i + 1][2 + r]);
      }
    }
    if constexpr (kTail) {
      uint32_t mean[2];
      Means(*reinterpret_cast<const uint32_t*>(stage.mean + 32 * kTiles + 4 * t()), &mean[0], &mean[1]);
      constexpr int k = kBlocks - 1;
      KeyBlock(table, units[k], of_centroid[0], of_mean[0], mean[0], mean[1], &a_[k][0], &a_[k][2]);
      KeyBlock(table, units[k] >> 16, of_centroid[1], of_mean[1], mean[0], mean[1], &a_[k][1], &a_[k][3]);
    }
  }

  // Four int8 as two pairs of halves: 0x6400 + (b + 128) is the half 1152 + b.
  static __device__ void Means(uint32_t bytes, uint32_t* first, uint32_t* second) {
    bytes ^= 0x80808080u;
    uint32_t a = Permute(bytes, 0x64646464u, 0x4140), b = Permute(bytes, 0x64646464u, 0x4342);
    __half2 offset = __float2half2_rn(1152.0f);
    __half2 x = __hsub2(reinterpret_cast<const __half2&>(a), offset), y = __hsub2(reinterpret_cast<const __half2&>(b), offset);
    *first = reinterpret_cast<const uint32_t&>(x);
    *second = reinterpret_cast<const uint32_t&>(y);
  }

  static __device__ void KeyBlock(const NibbleTable& table, uint32_t nibbles, __half2 of_centroid, __half2 of_mean, uint32_t mean0,
                                  uint32_t mean1, uint32_t* first, uint32_t* second) {
    uint32_t c[2], m[2] = {mean0, mean1};
    Centroids(table, nibbles, &c[0], &c[1]);
    uint32_t* out[2] = {first, second};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      __half2 y = __hfma2(reinterpret_cast<const __half2&>(c[i]), of_centroid, __hmul2(reinterpret_cast<const __half2&>(m[i]), of_mean));
      *out[i] = reinterpret_cast<const uint32_t&>(y);
    }
  }

  // Channels of fragment columns [kFirst, kFirst + kN): those channels, too.
  template <int kFirst>
  __device__ void RotateBack() {
    uint64_t image = MatrixDescriptor(image_, 16 * kDim, 128);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) Wgmma<kN, __half>::Registers(x_, a_[k], Advance(image, k * 2 * 16 * kDim + kFirst * 16), k > 0);
    WgmmaCommit();
    WgmmaWait();
    Settle(x_);
  }

  static __device__ uint32_t Pair(float a, float b) {
    if constexpr (kOut == DType::kBf16) {
      __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
      return reinterpret_cast<const uint32_t&>(v);
    } else {
      __half2 v = __floats2half2_rn(a, b);
      return reinterpret_cast<const uint32_t&>(v);
    }
  }

  // `count` (4 or 8) channels of row r from fragment column 4n on, to shared memory.
  template <int kCount>
  __device__ void Stage1(int n, int r, float factor, uint8_t* to) const {
    float v[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) v[j] = x_[4 * (n + j / 2) + 2 * r + j % 2] * factor;
    if constexpr (kOut == DType::kF32) {
#pragma unroll
      for (int j = 0; j < kCount; j += 4) *reinterpret_cast<float4*>(to + 4 * j) = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
    } else if constexpr (kCount == 8) {
      *reinterpret_cast<uint4*>(to) = make_uint4(Pair(v[0], v[1]), Pair(v[2], v[3]), Pair(v[4], v[5]), Pair(v[6], v[7]));
    } else {
      *reinterpret_cast<uint2*>(to) = make_uint2(Pair(v[0], v[1]), Pair(v[2], v[3]));
    }
  }

  __device__ void RotateAndStore(const TqTask& task, uint32_t head, const float (&factor)[2]) {
    int64_t stride = task.token_stride * kSize;
    auto* base = static_cast<uint8_t*>(task.tensor) + head * task.head_stride * kSize + 16 * warp_ * stride;
    int skip = task.first_token - 16 * warp_;
    Parts<0>(base, stride, skip, factor);
  }

  // Products of kN columns, one after the other; rows go out 256 bytes at a time, which may be two of them or a part of one.
  template <int kFirst>
  __device__ __forceinline__ void Parts(uint8_t* base, int64_t stride, int skip, const float (&factor)[2]) {
    if constexpr (kFirst < kDim) {
      constexpr int kStep = 256 / kSize, kEnd = kFirst + kN;  // channels
      RotateBack<kFirst>();
#pragma unroll
      for (int c0 = kFirst / kStep * kStep; c0 < kEnd; c0 += kStep) {
        __syncwarp();
        StageRows<kFirst>(c0, factor);
        if (c0 + kStep > kEnd && kEnd < kDim) continue;  // the next product completes these
        __syncwarp();
        int bytes = kDim * kSize - c0 * kSize < 256 ? kDim * kSize - c0 * kSize : 256;
        uint8_t* to = base + c0 * kSize;
        if (skip <= 0) {
          CopyOut<false>(to, stride, bytes / 16, skip);
        } else {
          CopyOut<true>(to, stride, bytes / 16, skip);
        }
      }
      Parts<kEnd>(base, stride, skip, factor);
    }
  }

  // Those of the product's channels that are among the 256 bytes from channel c0 on.
  template <int kFirst>
  __device__ __forceinline__ void StageRows(int c0, const float (&factor)[2]) const {
    constexpr int kStep = 256 / kSize, kEnd = kFirst + kN;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint8_t* row = rows_ + (8 * r + g()) * Shape::kRowPitch;
#pragma unroll
      for (int c = kFirst; c + 32 <= kEnd; c += 32) {
        if (c >= c0 && c < c0 + kStep) Stage1<8>((c - kFirst) / 8, r, factor[r], row + (c - c0 + 8 * t()) * kSize);
      }
      constexpr int kLast = 32 * kTiles;
      if (kTail && kFirst <= kLast && kLast >= c0 && kLast < c0 + kStep) {
        Stage1<4>((kLast - kFirst) / 8, r, factor[r], row + (kLast - c0 + 4 * t()) * kSize);
      }
    }
  }

  // 16 rows of `chunks` · 16 bytes; rows before `skip` are left alone.
  template <bool kSkip>
  __device__ __forceinline__ void CopyOut(uint8_t* to, int64_t stride, int chunks, int skip) const {
    if (32 % chunks == 0) {  // a lane stays in its column
      int row = lane_ / chunks, rows = 32 / chunks;
      const uint8_t* from = rows_ + row * Shape::kRowPitch + lane_ % chunks * 16;
      to += row * stride + lane_ % chunks * 16;
#pragma unroll
      for (int k = 0; k < 16; k += rows) {
        uint4 v = *reinterpret_cast<const uint4*>(from + k * Shape::kRowPitch);
        if (!kSkip || row + k >= skip) __stcs(reinterpret_cast<uint4*>(to), v);
        to += rows * stride;
      }
      return;
    }
#pragma unroll
    for (int k = 0; k < chunks / 2; ++k) {
      int index = lane_ + 32 * k, row = index / chunks, chunk = index % chunks;
      uint4 v = *reinterpret_cast<const uint4*>(rows_ + row * Shape::kRowPitch + chunk * 16);
      if (!kSkip || row >= skip) __stcs(reinterpret_cast<uint4*>(to + row * stride + chunk * 16), v);
    }
  }

  const TqLaunch& launch_;
  const FastDecodeTable& table_;
  const int group_, warp_, lane_;
  uint32_t image_;
  Stage* stage_;
  uint8_t* rows_;
  typename Shape::Tasks* ring_;
  uint32_t a_[kBlocks][4];
  float x_[kN / 2];
};

template <int kDim, DType kOut>
__global__ void __launch_bounds__(DecodeShape<kDim>::kThreads, 1) FastDecodeKernel(const __grid_constant__ TqLaunch launch,
                                                                                   const __grid_constant__ FastDecodeTable table) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = DecodeShape<kDim>;
  extern __shared__ __align__(128) uint8_t shared[];
  FastDecoder<kDim, kOut> decoder(launch, table, shared);
  for (int i = threadIdx.x * 16; i < Shape::kImageBytes; i += Shape::kThreads * 16) {
    CopyAsync16(SharedAddress(shared) + i, static_cast<const uint8_t*>(launch.image) + i, 16);
  }
  decoder.Start();
  WaitCopies();
  FenceAsyncProxy();
  __syncthreads();
  decoder.Run();
#endif
}

template <int kDim>
cudaError_t LaunchFastDecodeOf(const TqLaunch& launch, const FastDecodeTable& table, cudaStream_t stream) {
  using Shape = DecodeShape<kDim>;
  static_assert(Shape::kSharedBytes <= 227 * 1024);
  auto kernel = launch.type == DType::kBf16  ? FastDecodeKernel<kDim, DType::kBf16>
                : launch.type == DType::kF16 ? FastDecodeKernel<kDim, DType::kF16>
                                             : FastDecodeKernel<kDim, DType::kF32>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  uint32_t tiles = launch.count * launch.heads, needed = (tiles + Shape::kWarpgroups - 1) / Shape::kWarpgroups;
  uint32_t blocks = needed < static_cast<uint32_t>(launch.multiprocessors) ? needed : launch.multiprocessors;
  kernel<<<blocks, Shape::kThreads, Shape::kSharedBytes, stream>>>(WithStep(launch, blocks * Shape::kWarpgroups), table);
  return cudaGetLastError();
}

}  // namespace quire::cuda
