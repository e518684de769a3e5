// Inside cuda/: the kernel of decode attention. A thread block goes through its segments; in each, its warps share the pages out, every
// warp with a ring of its own that the copy engine fills, so that no warp waits for another before the segment's end.
#pragma once

#include "cuda/attention_codes.cuh"
#include "cuda/attention_rows.cuh"

namespace quire::cuda {

template <int kDim>
struct AttentionShape {
  static constexpr int kWarps = AttentionWarps(kDim), kThreads = 32 * kWarps, kStages = kDim <= 64 ? 3 : 2, kStageBytes = StageShape<kDim>::kBytes,
                       kRingBytes = kWarps * kStages * kStageBytes;
};

template <int kDim>
struct AttentionShared {
  using Shape = AttentionShape<kDim>;
  AttentionForm forms[32];
  alignas(16) uint32_t high[kMaxAttentionGroup][kDim / 4], low[kMaxAttentionGroup][kDim / 4];
  alignas(16) __nv_bfloat16 raw[kMaxAttentionGroup][kDim];
  float scale[kMaxAttentionGroup], offset[kMaxAttentionGroup];
  float most[Shape::kWarps][kMaxAttentionGroup], weight[Shape::kWarps][kMaxAttentionGroup];
  uint64_t filled[Shape::kWarps][Shape::kStages];
  uint32_t item[Shape::kWarps][Shape::kStages];  // form, begin and end of the page in a stage
  uint32_t last;
};

// One warp's pages of codes on their way through its ring.
template <int kDim>
class PageRing {
 public:
  using Shape = AttentionShape<kDim>;

  __device__ PageRing(AttentionShared<kDim>* shared, uint8_t* ring, int warp, int lane)
      : shared_(*shared), lane_(lane), warp_(warp), stages_(ring + size_t(warp) * Shape::kStages * Shape::kStageBytes) {
    if (lane_ == 0) {
      for (int s = 0; s < Shape::kStages; ++s) InitBarrier(Barrier(s));
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
  }

  // One of `items`' every row of `step`, of KV head `head`; `first` < step is the warp's place among those that share them out.
  __device__ void Start(const AttentionItem* items, uint32_t first, uint32_t step, uint32_t count, uint32_t head) {
    items_ = items, first_ = first, step_ = step, head_ = head, count_ = 0;
    if (count == 0) return;  // step may be 0 then
    count_ = count / step;
    count_ += count_ * step + Column(count_) < count ? 1 : 0;
    LoadItems(0);
  }
  // Begins to fetch them.
  __device__ void Fetch() {
    for (uint32_t i = 0; i < Shape::kStages; ++i) Issue(i, (stage_ + i) % Shape::kStages);
  }
  __device__ uint32_t count() const { return count_; }

  // Calls use(page in shared memory, form, begin, end) for each in turn.
  template <typename Use>
  __device__ __forceinline__ void Run(Use use) {
    for (uint32_t i = 0; i < count_; ++i) {
      WaitForPhase(Barrier(stage_), parity_);
      uint32_t item = shared_.item[warp_][stage_];
      use(stages_ + stage_ * Shape::kStageBytes, shared_.forms[item & 0xFFFF], static_cast<int>(item >> 16 & 0xFF), static_cast<int>(item >> 24));
      __syncwarp();
      Issue(i + Shape::kStages, stage_);
      if (++stage_ == Shape::kStages) stage_ = 0, parity_ ^= 1;
    }
  }

 private:
  __device__ uint32_t Barrier(uint32_t stage) const { return SharedAddress(&shared_.filled[warp_][stage]); }

  // Which of row i's items is this warp's: another in each row, so that no pattern of pages meets that of warps.
  __device__ uint32_t Column(uint32_t i) const { return (first_ + 5 * i) % step_; }
  __device__ void LoadItems(uint32_t i) {
    if (i >= count_) return;
    uint32_t mine = min(i + lane_, count_ - 1);
    uint4 x = __ldg(reinterpret_cast<const uint4*>(items_ + size_t(mine) * step_ + Column(mine)));
    address_ = uint64_t{x.y} << 32 | x.x;
    item_ = x.z;
  }

  __device__ __forceinline__ void Issue(uint32_t i, uint32_t stage) {
    if (i >= count_) return;
    if (i % 32 == 0 && i > 0) LoadItems(i);
    uint64_t address = __shfl_sync(kAllLanes, address_, i % 32);
    uint32_t item = __shfl_sync(kAllLanes, item_, i % 32);
    const AttentionForm& form = shared_.forms[item & 0xFFFF];
    if (lane_ == 0) {
      shared_.item[warp_][stage] = item;
      ExpectBytes(Barrier(stage), form.length[0] + form.length[1] + form.length[2]);
      uint32_t to = SharedAddress(stages_ + stage * Shape::kStageBytes);
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        uint32_t length = form.length[level];
        if (length == 0) break;
        const uint8_t* from = reinterpret_cast<const uint8_t*>(address) + form.offset[level] + size_t{head_} * form.stride[level];
        BulkCopyOnce(to, from, length, Barrier(stage), once_);
        to += length;
      }
    }
    __syncwarp();
  }

  AttentionShared<kDim>& shared_;
  const int lane_, warp_;
  uint8_t* const stages_;
  const AttentionItem* items_ = nullptr;
  uint32_t first_ = 0, step_ = 1, count_ = 0, head_ = 0, stage_ = 0, parity_ = 0;
  const uint64_t once_ = ReadOncePolicy();
  uint64_t address_ = 0;  // of the pages i … i + 31, one a lane
  uint32_t item_ = 0;
};

template <int kDim, bool kWide>
class SegmentWorker {
 public:
  using Shape = AttentionShape<kDim>;
  static constexpr int kColumns = kWide ? 8 : 4;  // heads at most

  __device__ SegmentWorker(const AttentionLaunch& launch, AttentionShared<kDim>* shared, uint8_t* ring)
      : launch_(launch), shared_(*shared), ring_(ring), warp_(threadIdx.x >> 5), lane_(threadIdx.x & 31), pages_(shared, ring, warp_, lane_) {}

  // `fresh`: nothing of this launch was read yet that an earlier kernel may have written; `last`: no segment follows.
  __device__ void Run(const AttentionSegment& segment, bool fresh, bool last) {
    const uint32_t head = segment.pair % launch_.kv_heads, sequence = segment.pair / launch_.kv_heads;
    const int coded_warps = CodedWarps(segment), raw_warp = warp_ - coded_warps;  // ≥ 0: takes raw items
    pages_.Start(launch_.items + segment.first_coded, warp_, coded_warps, raw_warp < 0 ? segment.coded : 0, head);
    if (fresh && !launch_.pages_settled) WaitForEarlierKernels();
    pages_.Fetch();
    if (fresh) WaitForEarlierKernels();
    for (uint32_t h = warp_; h < kColumns; h += Shape::kWarps) PrepareQuery(sequence, head, h);
    __syncthreads();
    sums_.Clear();
    if (raw_warp < 0) {
      if (pages_.count() > 0) AttendToPages();
    } else {
      for (uint32_t i = raw_warp; i < segment.raw; i += Shape::kWarps - coded_warps) AttendToRawItem(launch_.items[segment.first_raw + i], head);
    }
    __syncthreads();
    if (last) LetLaterKernelsStart();
    StoreSums();
    FenceAsyncProxy();
    __syncthreads();
    if (segment.parts == 1) {
      StorePartial(segment, LocalPartial(0));
      __syncthreads();
    } else {
      StorePartial(segment, launch_.partials + (size_t{segment.first_slot} + segment.part) * launch_.group * kFloats);
      if (!IsLast(segment)) return;
    }
    for (uint32_t h = warp_; h < launch_.group; h += Shape::kWarps) {
      segment.parts == 1 ? Finish<true>(segment, sequence, head, h) : Finish<false>(segment, sequence, head, h);
    }
    __syncthreads();
  }

 private:
  // The first warps of a segment take its codes, the others its raw rows: the two are sums in different bases.
  static __device__ __forceinline__ int CodedWarps(const AttentionSegment& segment) {
    if (segment.raw == 0) return Shape::kWarps;
    if (segment.coded == 0) return 0;
    int raw = (Shape::kWarps * static_cast<int>(segment.raw_share) + 128) / 256;
    return Shape::kWarps - max(1, min(raw, Shape::kWarps - 1));
  }

  // Query head `h` of the group: rotated, as 16-bit integers; and as it is. Zeros where the group has fewer.
  __device__ void PrepareQuery(uint32_t sequence, uint32_t head, uint32_t h) {
    using Vector = WarpVector<kDim>;
    Vector x;
    const auto* q = static_cast<const __nv_bfloat16*>(launch_.q) + sequence * launch_.q_stride + (size_t{head} * launch_.group + h) * kDim;
    float most = 1e-20f;
#pragma unroll
    for (int i = 0; i < Vector::kValues; ++i) {
      int c = Vector::Channel(i, lane_);
      __nv_bfloat16 value = h < launch_.group ? q[c] : __nv_bfloat16(0.0f);
      shared_.raw[h][c] = value;
      x.v[i] = __bfloat162float(value);
    }
    x.Rotate(launch_, lane_);
#pragma unroll
    for (int i = 0; i < Vector::kValues; ++i) most = fmaxf(most, fabsf(x.v[i]));
#pragma unroll
    for (int s = 1; s < 32; s *= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, s));
    constexpr float kLargest = 32500.0f;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < Vector::kValues; ++i) {
      int c = Vector::Channel(i, lane_), z = __float2int_rn(x.v[i] * (kLargest / most)), high = (z + 128) >> 8;
      reinterpret_cast<int8_t*>(shared_.high[h])[c] = static_cast<int8_t>(high);
      reinterpret_cast<int8_t*>(shared_.low[h])[c] = static_cast<int8_t>(z - 256 * high);
      sum += z;
    }
    sum = __reduce_add_sync(kAllLanes, sum);
    if (lane_ == 0) {
      float scale = most / kLargest * launch_.score_scale * kLog2E;
      shared_.scale[h] = scale;
      shared_.offset[h] = 0.5f * scale * static_cast<float>(sum);
    }
  }

  __device__ void AttendToPages() {
    const int g = lane_ >> 2, t = lane_ & 3;
    QueryFragments<kDim> q;
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        q.high[i][k] = shared_.high[g & (kColumns - 1)][8 * i + 2 * t + k];
        q.low[i][k] = shared_.low[g & (kColumns - 1)][8 * i + 2 * t + k];
      }
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      q.scale[e] = shared_.scale[(2 * t + e) & (kColumns - 1)];
      q.offset[e] = shared_.offset[(2 * t + e) & (kColumns - 1)];
    }
    pages_.Run([&](const uint8_t* stage, const AttentionForm& form, int begin, int end) {
      AttendToCodes<kDim, kWide>(stage, form, begin, end, q, lane_, &sums_);
    });
  }

  __device__ void AttendToRawItem(const AttentionItem& item, uint32_t head) {
    const AttentionForm& form = shared_.forms[item.form];
    const uint8_t* rows = item.page + size_t{head} * form.stride[0];
    AttendToRows<kDim, kWide>(rows + form.offset[0], rows + form.offset[1], form.stride[1], item.begin, item.end, shared_.raw[0],
                              launch_.score_scale * kLog2E, lane_, &sums_);
  }

  // Each warp's sums to where its ring and others' were: [warp][column][d] floats.
  __device__ void StoreSums() {
    const int g = lane_ >> 2, t = lane_ & 3;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
#pragma unroll
      for (int s = 4; s < 32; s *= 2) sums_.weight[e] += __shfl_xor_sync(kAllLanes, sums_.weight[e], s);
      if constexpr (!kWide) sums_.half[e] += __shfl_xor_sync(kAllLanes, sums_.half[e], 2);
    }
    float* rows = reinterpret_cast<float*>(ring_) + (warp_ * kColumns + 2 * t) * kDim;
#pragma unroll
    for (int n = 0; n < Sums<kDim, kWide>::kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x = sums_.o[n][i];
        if constexpr (!kWide) x += __shfl_xor_sync(kAllLanes, x, 2);
        if (kWide || t < 2) rows[(i & 1) * kDim + Sums<kDim, kWide>::ChannelOf(n, g) + 2 * (i >> 1)] = x + sums_.half[i & 1];
      }
    }
    if (g == 0 && (kWide || t < 2)) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        shared_.most[warp_][2 * t + e] = sums_.most[e];
        shared_.weight[warp_][2 * t + e] = sums_.weight[e];
      }
    }
  }

  // All warps' sums as one: codes' and raw rows' apart, [group][kFloats].
  __device__ void StorePartial(const AttentionSegment& segment, float* partials) {
    const float* rows = reinterpret_cast<const float*>(ring_);
    const int coded_warps = CodedWarps(segment);
    for (uint32_t i = threadIdx.x; i < launch_.group * kDim; i += Shape::kThreads) {
      uint32_t h = i / kDim, c = i % kDim;
      float most = kNoScore, weight = 0, sum[2] = {0, 0};
#pragma unroll
      for (int w = 0; w < Shape::kWarps; ++w) most = fmaxf(most, shared_.most[w][h]);
#pragma unroll
      for (int w = 0; w < Shape::kWarps; ++w) {
        float share = PowerOfTwo(shared_.most[w][h] - most), x = share * rows[(w * kColumns + h) * kDim + c];
        weight = fmaf(share, shared_.weight[w][h], weight);
        w < coded_warps ? sum[0] += x : sum[1] += x;
      }
      float* partial = partials + h * kFloats;
      if (c == 0) *reinterpret_cast<float4*>(partial) = make_float4(most, weight, segment.raw > 0 ? 1.0f : 0.0f, 0);
      partial[4 + c] = sum[0];
      if (segment.raw > 0) partial[4 + kDim + c] = sum[1];
    }
  }

  // Whether this was the last of the pair's segments; its partial results are then all there to read.
  __device__ bool IsLast(const AttentionSegment& segment) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t before = atomicAdd(launch_.arrived + segment.pair, 1);
      shared_.last = before + 1 == segment.parts;
      if (shared_.last) launch_.arrived[segment.pair] = 0;
    }
    __syncthreads();
    bool last = shared_.last;
    __threadfence();
    __syncthreads();
    return last;
  }

  // One query head's output from the pair's partial results: in shared memory where there is one alone.
  template <bool kLocal>
  __device__ void Finish(const AttentionSegment& segment, uint32_t sequence, uint32_t head, uint32_t h) {
    using Vector = WarpVector<kDim>;
    const uint32_t pitch = launch_.group * kFloats;
    const float* partials = kLocal ? LocalPartial(h) : launch_.partials + size_t{segment.first_slot} * pitch + h * kFloats;
    float most = kNoScore, weight = 0;
    Vector coded, raw;
#pragma unroll
    for (int i = 0; i < Vector::kValues; ++i) coded.v[i] = raw.v[i] = 0;
    for (uint32_t base = 0; base < segment.parts; base += 32) {
      // A lane a part: its largest score, its weight, whether it has raw rows.
      uint32_t count = min(segment.parts - base, 32u);
      float4 state = make_float4(kNoScore, 0, 0, 0);
      if (lane_ < count) state = Load<kLocal, float4>(partials + size_t{base + lane_} * pitch);
      float next = fmaxf(most, state.x);
#pragma unroll
      for (int s = 1; s < 32; s *= 2) next = fmaxf(next, __shfl_xor_sync(kAllLanes, next, s));
      float down = PowerOfTwo(most - next), share = PowerOfTwo(state.x - next), sum = share * state.y;
      most = next;
#pragma unroll
      for (int s = 1; s < 32; s *= 2) sum += __shfl_xor_sync(kAllLanes, sum, s);
      weight = fmaf(weight, down, sum);
      coded.Scale(down);
      raw.Scale(down);
      uint32_t has_raw = __ballot_sync(kAllLanes, state.z > 0);
#pragma unroll 16
      for (uint32_t k = 0; k < count; ++k) {
        const float* partial = partials + size_t{base + k} * pitch + 4;
        float factor = __shfl_sync(kAllLanes, share, k);
        AddScaled<kLocal>(partial, factor, &coded);
        if (has_raw >> k & 1) AddScaled<kLocal>(partial + kDim, factor, &raw);
      }
    }
    coded.RotateBack(launch_, lane_);
    auto* out = static_cast<__nv_bfloat16*>(launch_.out) + sequence * launch_.out_stride + (size_t{head} * launch_.group + h) * kDim;
    float inverse = 1.0f / weight;
#pragma unroll
    for (int i = 0; i < Vector::kValues; i += 2) {
      uint32_t two = PackBf16((coded.v[i] + raw.v[i]) * inverse, (coded.v[i + 1] + raw.v[i + 1]) * inverse);
      *reinterpret_cast<uint32_t*>(out + Vector::Channel(i, lane_)) = two;
    }
  }

  // From shared memory, or from global memory that other thread blocks wrote.
  template <bool kLocal, typename T>
  static __device__ __forceinline__ T Load(const float* at) {
    return kLocal ? *reinterpret_cast<const T*>(at) : __ldcg(reinterpret_cast<const T*>(at));
  }
  template <bool kLocal>
  __device__ __forceinline__ void AddScaled(const float* partial, float factor, WarpVector<kDim>* sum) const {
    using Vector = WarpVector<kDim>;
#pragma unroll
    for (int i = 0; i < Vector::kValues; i += Vector::kEach) {
      const float* at = partial + Vector::Channel(i, lane_);
      if constexpr (Vector::kEach >= 4) {
#pragma unroll
        for (int e = 0; e < Vector::kEach; e += 4) {
          float4 x = Load<kLocal, float4>(at + e);
          float* v = sum->v + i + e;
          v[0] = fmaf(factor, x.x, v[0]), v[1] = fmaf(factor, x.y, v[1]), v[2] = fmaf(factor, x.z, v[2]), v[3] = fmaf(factor, x.w, v[3]);
        }
      } else {
        float2 x = Load<kLocal, float2>(at);
        sum->v[i] = fmaf(factor, x.x, sum->v[i]);
        sum->v[i + 1] = fmaf(factor, x.y, sum->v[i + 1]);
      }
    }
  }

  // Behind all warps' sums.
  __device__ float* LocalPartial(uint32_t h) const { return reinterpret_cast<float*>(ring_) + (Shape::kWarps * kColumns * kDim + h * kFloats); }

  static constexpr uint32_t kFloats = PartialFloats(kDim);
  static constexpr float kLog2E = 1.4426950408889634f;

  const AttentionLaunch& launch_;
  AttentionShared<kDim>& shared_;
  uint8_t* const ring_;
  const int warp_, lane_;
  PageRing<kDim> pages_;
  Sums<kDim, kWide> sums_;
};

template <int kDim, bool kWide>
__global__ void __launch_bounds__(AttentionShape<kDim>::kThreads, 1) AttentionKernel(const __grid_constant__ AttentionLaunch launch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) uint8_t ring[];
  __shared__ AttentionShared<kDim> shared;
  constexpr uint32_t kPieces = sizeof(AttentionForm) / 16;
  for (uint32_t i = threadIdx.x; i < launch.form_count * kPieces; i += AttentionShape<kDim>::kThreads) {
    reinterpret_cast<uint4*>(shared.forms)[i] = __ldg(reinterpret_cast<const uint4*>(launch.forms) + i);
  }
  AttentionSegment segment = launch.segments[blockIdx.x];
  uint32_t next = launch.block_first[blockIdx.x];
  const uint32_t end = launch.block_first[blockIdx.x + 1];
  SegmentWorker<kDim, kWide> worker(launch, &shared, ring);
  __syncthreads();
  if (segment.parts == 0) return;
  for (bool fresh = true;; fresh = false) {
    worker.Run(segment, fresh, next == end);
    if (next == end) return;
    segment = launch.segments[next++];
  }
#endif
}

template <int kDim>
cudaError_t LaunchAttentionOf(const AttentionLaunch& launch, cudaStream_t stream) {
  using Shape = AttentionShape<kDim>;
  static_assert(Shape::kRingBytes + sizeof(AttentionShared<kDim>) <= 227 * 1024);
  static_assert((Shape::kWarps * kDim + PartialFloats(kDim)) * kMaxAttentionGroup * sizeof(float) <= Shape::kRingBytes);
  auto kernel = launch.group > 4 ? AttentionKernel<kDim, true> : AttentionKernel<kDim, false>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kRingBytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute overlap;
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(launch.blocks);
  config.blockDim = dim3(Shape::kThreads);
  config.dynamicSmemBytes = Shape::kRingBytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, launch);
}

}  // namespace quire::cuda
