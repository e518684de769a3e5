// The fast decoder (sm_90a): one warpgroup a head.
//
// The copy engine brings a head's planes, scales and mean into shared memory, two heads ahead. A lane finds in its own words the
// codes of just those values that a matrix fragment wants from it (for V after one 8 × 8 transposition a register), turns nibbles
// into centroids by byte tables, and one warpgroup product with Rᵀ undoes the rotation. K's mean enters before the product, so the
// whole affine step costs a multiplication and a fused one for two values; rows leave through shared memory as whole lines.
#pragma once

#include <cuda_runtime.h>

#include "cuda/element.cuh"
#include "cuda/sm90.cuh"
#include "cuda/tq_fast.h"

namespace quire::cuda {

template <int kDim>
struct DecodeShape {
  static constexpr int kWarpgroups = kDim == 64 ? 6 : kDim <= 128 ? 4 : 2;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kImageBytes = kDim * kDim * 2;
  // One head's codes at up to 4 bits, in the order of the fields of `Stage`.
  static constexpr int kCrumbBytes = 16 * kDim, kBitBytes = 8 * kDim;
  static constexpr int kStages = 2;
  struct alignas(16) Stage {
    uint8_t crumbs[kCrumbBytes];
    uint8_t ones[2][kBitBytes];
    uint8_t scales[128];
    uint8_t corrections[3][64];  // after levels 1, 2, 3
    uint8_t mean[kDim];
    uint8_t scalars[16];
  };
  // A warp's 16 rows on their way out, 256 bytes of each at a time.
  static constexpr int kRowPitch = 256 + 64, kRowBytes = 16 * kRowPitch;
  static constexpr int kBarrierBytes = 8 * kStages;
  static constexpr int kSharedBytes =
      kImageBytes + kWarpgroups * (kStages * static_cast<int>(sizeof(Stage)) + 4 * kRowBytes + kBarrierBytes) + 16;
};

template <int kDim, DType kOut>
class FastDecoder {
  using Shape = DecodeShape<kDim>;
  using Stage = typename Shape::Stage;
  static constexpr int kBlocks = kDim / 16, kTiles = kDim / 32, kFours = kDim / 64;
  static constexpr bool kTail = kDim % 32 != 0, kPair = kDim / 32 % 2, kSingle = kDim / 16 % 2;
  static constexpr int kN = kDim <= 128 ? kDim : kDim / 2;
  static constexpr int kSize = kOut == DType::kF32 ? 4 : 2;

 public:
  __device__ FastDecoder(const TqLaunch& launch, const FastDecodeTable& table, uint8_t* shared)
      : launch_(launch), table_(table), group_(threadIdx.x / 128), thread_(threadIdx.x % 128), warp_(thread_ / 32), lane_(threadIdx.x % 32) {
    image_ = SharedAddress(shared);
    uint8_t* at = shared + Shape::kImageBytes;
    stages_ = reinterpret_cast<Stage*>(at) + group_ * Shape::kStages;
    at += Shape::kWarpgroups * Shape::kStages * sizeof(Stage);
    rows_ = at + (group_ * 4 + warp_) * Shape::kRowBytes;
    at += Shape::kWarpgroups * 4 * Shape::kRowBytes;
    barriers_ = SharedAddress(at) + group_ * Shape::kBarrierBytes;
  }

  __device__ void InitBarriers() {
    if (thread_ == 0) {
      for (int i = 0; i < Shape::kStages; ++i) InitBarrier(barriers_ + 8 * i);
    }
  }

  // Starts the first heads' copies; needs the barriers only.
  __device__ void Start() {
    total_ = launch_.count * launch_.heads;
    step_ = gridDim.x * Shape::kWarpgroups;
    at_ = blockIdx.x * Shape::kWarpgroups + group_;
    for (int i = 0; i < Shape::kStages; ++i) Fetch(at_ + i * step_, i);
  }

  __device__ void Run() {
    int stage = 0;
    uint32_t phase = 0;
    for (uint32_t at = at_; at < total_; at += step_) {
      WaitBarrier(barriers_ + 8 * stage, phase);
      const TqTask& task = launch_.tasks[at / launch_.heads];
      uint32_t head = at % launch_.heads;
      int bits = task.bits, levels = task.levels, kept = KeptBitsOf(bits, levels - 1);
      bool value = task.kind == 1;
      uint32_t units[kBlocks];
      float factor[2];
      LoadUnits(stages_[stage], kept, units);
      const NibbleTable table = table_.centroids[bits - 2][kept - 2];
      if (value) {
        ValueFragments(table, units);
        ValueFactors(stages_[stage], bits, levels, factor);
      } else {
        KeyFragments(stages_[stage], table, bits, levels, units, factor);
      }
      SyncWarpgroup(group_ + 1);
      Fetch(at + Shape::kStages * step_, stage);
      RotateBack();
      StoreRows(task, head, factor);
      if (++stage == Shape::kStages) {
        stage = 0;
        phase ^= 1;
      }
    }
  }

 private:
  __device__ int g() const { return lane_ >> 2; }
  __device__ int t() const { return lane_ & 3; }

  // One thread asks the copy engine for what the task's levels need.
  __device__ void Fetch(uint32_t at, int index) {
    if (thread_ != 0 || at >= total_) return;
    const TqTask& task = launch_.tasks[at / launch_.heads];
    size_t head = at % launch_.heads;
    Stage& stage = stages_[index];
    uint32_t barrier = barriers_ + 8 * index;
    int bits = task.bits, levels = task.levels, kept = KeptBitsOf(bits, levels - 1);
    bool value = task.kind == 1;
    bool deep = levels > 3 && HasLevelOf(bits, 3);
    uint32_t total = Shape::kCrumbBytes + (kept - 2) * Shape::kBitBytes + 16 + (value ? 64 : 128 + kDim);
    if (value) {
      total += deep ? 64 : 0;
    } else {
      total += 64 * (kept - 2) + (deep ? 64 : 0);
    }
    ExpectBytes(barrier, total);
    auto copy = [&](void* to, const uint8_t* from, int level, uint32_t bytes) {
      CopyBulk(SharedAddress(to), from + head * task.slice_stride[level], bytes, barrier);
    };
    copy(stage.crumbs, task.planes[0], 0, Shape::kCrumbBytes);
    if (kept > 2) copy(stage.ones[0], task.planes[1], 1, Shape::kBitBytes);
    if (kept > 3) copy(stage.ones[1], task.planes[2], 2, Shape::kBitBytes);
    copy(stage.scalars, task.scalars, 0, 16);
    copy(stage.scales, task.scales[0], 0, value ? 64 : 128);
    if (!value) {
      copy(stage.mean, task.mean, 0, kDim);
      if (kept > 2) copy(stage.corrections[0], task.scales[1], 1, 64);
      if (kept > 3) copy(stage.corrections[1], task.scales[2], 2, 64);
    }
    if (deep) copy(stage.corrections[2], task.scales[3], 3, 64);
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
    int lane = 32 * warp_ + lane_;
    uint32_t crumbs[2 * kFours], high[kFours] = {}, low[kFours] = {};
    LoadWords(reinterpret_cast<const uint32_t*>(stage.crumbs) + lane * 2 * kFours, crumbs);
    if (kept > 2) LoadWords(reinterpret_cast<const uint32_t*>(stage.ones[0]) + lane * kFours, high);
    if (kept > 3) LoadWords(reinterpret_cast<const uint32_t*>(stage.ones[1]) + lane * kFours, low);
#pragma unroll
    for (int u = 0; u < 4 * kFours; ++u) units[u] = Merge(crumbs[u / 2], high[u / 4], low[u / 4], u % 4);
    if constexpr (kPair) {
      uint32_t both = reinterpret_cast<const uint32_t*>(stage.crumbs + 1024 * kFours)[lane], h = 0, l = 0;
      if (kept > 2) h = Double4(reinterpret_cast<const uint16_t*>(stage.ones[0] + 512 * kFours)[lane]);
      if (kept > 3) l = Double4(reinterpret_cast<const uint16_t*>(stage.ones[1] + 512 * kFours)[lane]);
      units[4 * kFours] = Merge(both, h, l, 0);
      units[4 * kFours + 1] = Merge(both, h, l, 1);
    }
    if constexpr (kSingle) {
      constexpr int kAfter = kPair ? 2 : 0;
      uint32_t one = Double4(reinterpret_cast<const uint16_t*>(stage.crumbs + 1024 * kFours + 256 * kAfter)[lane]), h = 0, l = 0;
      if (kept > 2) h = Double4(Double2((stage.ones[0] + 512 * kFours + 128 * kAfter)[lane]));
      if (kept > 3) l = Double4(Double2((stage.ones[1] + 512 * kFours + 128 * kAfter)[lane]));
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
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int slot = 8 * g() + 2 * warp_ + r;
      factor[r] = ValueScaleOf(base, stage.scales[slot]);
      if (levels > 3 && HasLevelOf(bits, 3)) factor[r] = CorrectedScale(factor[r], static_cast<int8_t>(stage.corrections[2][slot]));
    }
  }

  // y / u = (scale / u) · centroid + (step / u) · mean, u the larger of scale and step, so that all stays within a half's range;
  // u itself multiplies the result.
  __device__ void KeyFragments(const Stage& stage, const NibbleTable& table, int bits, int levels, const uint32_t (&units)[kBlocks],
                               float (&factor)[2]) {
    float step = FromBf16Bits(reinterpret_cast<const uint16_t*>(stage.scalars)[0]);
    __half2 of_centroid[2], of_mean[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int slot = 8 * g() + 2 * warp_ + r;
      float scale = FromBf16Bits(reinterpret_cast<const uint16_t*>(stage.scales)[slot]);
#pragma unroll
      for (int level = 1; level < 4; ++level) {
        if (level < levels && HasLevelOf(bits, level)) {
          scale = CorrectedScale(scale * table_.ratio[bits - 2][level], static_cast<int8_t>(stage.corrections[level - 1][slot]));
        }
      }
      factor[r] = fmaxf(scale, step);
      float inverse = factor[r] > 0 ? 1 / factor[r] : 0.0f;
      of_centroid[r] = __float2half2_rn(scale * inverse);
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

  __device__ void RotateBack() {
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
#pragma unroll
      for (int n = 0; n < kDim; n += kN) {
        uint64_t b = MatrixDescriptor(image_ + k * 2 * 16 * kDim + n * 16, 16 * kDim, 128);
        Wgmma<kN, __half>::Registers(x_ + n / 2, a_[k], b, k > 0);
      }
    }
    WgmmaCommit();
    WgmmaWait();
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

  __device__ void StoreRows(const TqTask& task, uint32_t head, const float (&factor)[2]) const {
    constexpr int kStep = 256 / kSize;  // channels at a time
    auto* base = static_cast<uint8_t*>(task.tensor) + (head * task.head_stride + 16 * warp_ * task.token_stride) * kSize;
    int64_t stride = task.token_stride * kSize;
    int skip = task.first_token - 16 * warp_;
#pragma unroll
    for (int c0 = 0; c0 < kDim; c0 += kStep) {
      __syncwarp();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint8_t* row = rows_ + (8 * r + g()) * Shape::kRowPitch;
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          if (32 * i >= c0 && 32 * i < c0 + kStep) Stage1<8>(4 * i, r, factor[r], row + (32 * i - c0 + 8 * t()) * kSize);
        }
        if (kTail && 32 * kTiles >= c0 && 32 * kTiles < c0 + kStep) {
          Stage1<4>(4 * kTiles, r, factor[r], row + (32 * kTiles - c0 + 4 * t()) * kSize);
        }
      }
      __syncwarp();
      constexpr int kWhole = kDim * kSize;
      int bytes = kWhole - c0 * kSize < 256 ? kWhole - c0 * kSize : 256, chunks = bytes / 16;
#pragma unroll
      for (int k = 0; k < chunks / 2; ++k) {  // 16 rows · chunks over 32 lanes
        int index = lane_ + 32 * k, row = index / chunks, chunk = index % chunks;
        uint4 v = *reinterpret_cast<const uint4*>(rows_ + row * Shape::kRowPitch + chunk * 16);
        if (row >= skip) __stcs(reinterpret_cast<uint4*>(base + row * stride + c0 * kSize + chunk * 16), v);
      }
    }
  }

  const TqLaunch& launch_;
  const FastDecodeTable& table_;
  const int group_, thread_, warp_, lane_;
  uint32_t image_, barriers_, total_ = 0, step_ = 0, at_ = 0;
  Stage* stages_;
  uint8_t* rows_;
  uint32_t a_[kBlocks][4];
  float x_[kDim / 2];
};

template <int kDim, DType kOut>
__global__ void __launch_bounds__(DecodeShape<kDim>::kThreads, 1) FastDecodeKernel(const __grid_constant__ TqLaunch launch,
                                                                                   const __grid_constant__ FastDecodeTable table) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = DecodeShape<kDim>;
  extern __shared__ __align__(128) uint8_t shared[];
  FastDecoder<kDim, kOut> decoder(launch, table, shared);
  decoder.InitBarriers();
  uint32_t image_barrier = SharedAddress(shared) + Shape::kSharedBytes - 16;
  if (threadIdx.x == 0) {
    InitBarrier(image_barrier);
    FenceBarrierInit();
  }
  FenceAsyncProxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    ExpectBytes(image_barrier, Shape::kImageBytes);
    constexpr int kPiece = Shape::kImageBytes / 4;
    for (int i = 0; i < 4; ++i) CopyBulk(SharedAddress(shared) + i * kPiece, static_cast<const uint8_t*>(launch.image) + i * kPiece, kPiece, image_barrier);
  }
  decoder.Start();
  WaitBarrier(image_barrier, 0);
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
  kernel<<<blocks, Shape::kThreads, Shape::kSharedBytes, stream>>>(launch, table);
  return cudaGetLastError();
}

}  // namespace quire::cuda
