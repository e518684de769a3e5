// The fast encoder (sm_90a): one warpgroup a head, everything in one pass over the raw values.
//
// Each warp brings its 16 rows of a head into shared memory by asynchronous copies (encode_tiles.cuh), the next head's while this one
// is worked on. One warpgroup matrix product rotates them: R's entries are k/p, exact in bf16 for every power of two (EncodeImage), so
// the rotated values are float sums of exact products. Lane (g, t) of warp w then holds tokens 16w + g and 16w + 8 + g and, by the order
// of R's columns, just the channels whose codes it stores. K's mean is a sum over lanes and warps; norms are sums over a row; codes and
// what scales need of them come as encode_codes.cuh tells, planes as encode_planes.cuh does. Each head has one barrier of its warps:
// what one of them writes for the others has two copies, used in turns.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/encode_scales.cuh"
#include "cuda/encode_shape.cuh"

namespace quire::cuda {

template <int kDim, typename T>
class FastEncoder {
  using Shape = EncodeShape<kDim>;
  static constexpr int kBlocks = kDim / 16;  // of 16 channels
  static constexpr int kTiles = kDim / 32;   // whole tiles of 32
  static constexpr bool kTail = kDim % 32 != 0;
  // Columns of one product; there are one or two, and the first is worked on while the second runs.
  static constexpr int kParts = kDim <= 128 ? 1 : 2, kN = kDim / kParts;
  static constexpr int kPartColumns = Shape::kColumns / kParts;  // a lane's
  static constexpr int kNone = 64;                               // no token

 public:
  __device__ FastEncoder(const TqLaunch& launch, const FastEncodeTable& table, uint8_t* image, typename Shape::Shared& shared)
      : launch_(launch), table_(table), group_(UniformWarp() / 4), warp_(UniformWarp() % 4), lane_(threadIdx.x % 32),
        image_(SharedAddress(image)), side_(shared.sides[group_]),
        reader_(launch, shared.tiles[group_][warp_], warp_, blockIdx.x * Shape::kWarpgroups + group_) {}

  __device__ void Run() {
    if (thread() == 0) side_.report_at[1] = nullptr;
    if (lane_ < 4) side_.bad[lane_][warp_] = kNone;
    reader_.Start();
    for (; reader_.valid(); reader_.Next()) {
      StartRotation();
      const TqTask& task = reader_.task();
      FindPlaces(task, reader_.head());
      if (task.kind == 1) {
        Encode<true>(task);
      } else {
        Encode<false>(task);
      }
      if (thread() == 0) {
        side_.report_at[turn_ & 1] = launch_.reports + task.report + reader_.head();
        side_.bits[turn_ & 1] = task.bits;
      }
      ++turn_;
    }
    SyncWarpgroup(group_ + 1);
    WriteLastReport();
  }

 private:
  __device__ int g() const { return lane_ >> 2; }
  __device__ int t() const { return lane_ & 3; }
  __device__ int thread() const { return 32 * warp_ + lane_; }

  // Starts the product, and once it has all it needs of the tile, the copies of the next one. Where registers are few, the product comes
  // in two steps.
  __device__ void StartRotation() {
    constexpr int kSteps = kDim == 64 || kDim == 128 ? 2 : 1, kOfStep = kBlocks / kSteps;
    uint32_t x[kOfStep][4];
    uint64_t image = MatrixDescriptor(image_, 16 * kDim, 128);
    reader_.Await();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int k = 0; k < kOfStep; ++k) reader_.Read(step * kOfStep + k, x[k]);
      WgmmaFence();
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int pass = 0; pass < Shape::kPasses; ++pass) {
#pragma unroll
          for (int i = 0; i < kOfStep; ++i) {
            int k = step * kOfStep + i;
            Wgmma<kN, T>::Registers(y_[part], x[i], Advance(image, pass * kDim * kDim * 2 + k * 2 * 16 * kDim + part * kN * 16), pass + k > 0);
          }
        }
        WgmmaCommit();
      }
      if (step + 1 < kSteps) WgmmaWait();
    }
    reader_.FetchNext();
  }

  // Where this head's parts stand in the object, for this warp.
  enum Place { kScalars, kMean, kScales, kPlanes = kScales + 3 };
  __device__ void FindPlaces(const TqTask& task, uint32_t head) {
    __syncwarp();  // the last head's are read
    if (lane_ < 8) {
      int level = lane_ < kScales ? 0 : (lane_ - kScales) % 3;
      uint8_t* const* parts = &task.scalars;  // scalars, mean, scales of four levels, planes of four levels
      side_.places[warp_][lane_] = parts[lane_ < kPlanes ? lane_ : lane_ + 1] + size_t{head} * task.slice_stride[level];
    }
    __syncwarp();
  }
  static_assert(offsetof(TqTask, mean) == offsetof(TqTask, scalars) + 8 && offsetof(TqTask, scales) == offsetof(TqTask, scalars) + 16 &&
                offsetof(TqTask, planes) == offsetof(TqTask, scalars) + 48);
  template <typename V>
  __device__ V* PlaceOf(int part) const {
    return reinterpret_cast<V*>(__cvta_generic_to_global(side_.places[warp_][part]));
  }
  template <typename V>
  static __device__ void Store(V* to, V value) {
    __stcg(to, value);
  }

  // What a product gave: y(n, i) is value i = 2r + e of 8-wide tile n.
  __device__ float& y(int n, int i) { return y_[n / (kN / 8)][n % (kN / 8) * 4 + i]; }
  __device__ float y(int n, int i) const { return y_[n / (kN / 8)][n % (kN / 8) * 4 + i]; }

  // Waits for product `part`.
  template <int kPart>
  __device__ void AwaitPart() {
    if constexpr (kPart + 1 < kParts) {
      WgmmaWaitAllButOne();
    } else {
      WgmmaWait();
    }
    Settle(y_[kPart]);
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

  // Notes the first coded token of this warp whose energy is not finite, if there is one.
  __device__ void NoteBad(int first, const float (&energy)[2]) {
    constexpr float kLargest = 3.402823466e38f;
    if (!__any_sync(~0u, !(energy[0] <= kLargest) || !(energy[1] <= kLargest))) return;
    int bad = kNone;
#pragma unroll
    for (int r = 1; r >= 0; --r) {
      int token = 16 * warp_ + 8 * r + g();
      if (token >= first && !(energy[r] <= kLargest)) bad = token;
    }
    bad = __reduce_min_sync(~0u, bad);
    if (lane_ == 0) side_.bad[turn_ & 3][warp_] = bad;
  }

  // Column sums of one part over this warp's 16 tokens, as many columns at a time as registers allow. Three exchanges halve the columns
  // that a lane holds, over the eight g; what is left goes to shared memory.
  __device__ void SumPart(int part) {
    constexpr int kAtOnce = kPartColumns % 16 == 0 ? 16 : kPartColumns;
#pragma unroll
    for (int first = 0; first < kPartColumns; first += kAtOnce) {
      float v[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        int c = first + i;
        v[i] = c < kN / 4 ? y_[part][4 * (c / 2) + c % 2] + y_[part][4 * (c / 2) + 2 + c % 2] : 0.0f;
      }
      int start = part * kPartColumns + first;
#pragma unroll
      for (int level = 0; level < 3; ++level) {
        int half = kAtOnce >> (level + 1), bit = 16 >> level;
        bool upper = lane_ & bit;
#pragma unroll
        for (int i = 0; i < kAtOnce / 2; ++i) {
          if (i >= half) continue;
          float send = upper ? v[i] : v[i + half], keep = upper ? v[i + half] : v[i];
          v[i] = keep + __shfl_xor_sync(~0u, send, bit);
        }
        start += upper ? half : 0;
      }
      float* sums = &side_.sums[turn_ & 1][warp_][t() * Shape::kColumns + start];
#pragma unroll
      for (int i = 0; i < kAtOnce / 8; ++i) sums[i] = v[i];
    }
  }

  // K: the rotated mean of each channel, in int8 steps; stored and subtracted from y. False if the mean is not finite; what is wrong is
  // noted then.
  __device__ bool RemoveMean(int first, bool latent) {
    AwaitPart<0>();
    SumPart(0);
    if constexpr (kParts == 2) {
      AwaitPart<1>();
      SumPart(1);
    }
    SyncWarpgroup(group_ + 1);
    WriteLastReport();

    // Four channels a lane and step; every warp does all of it, which saves a barrier.
    constexpr int kSteps = (kDim / 4 + 31) / 32;
    float mean[kSteps][4];
    uint32_t largest = 0;
    int coded = 64 - first;
    float scale = __fdividef(1.0f, static_cast<float>(coded));
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      int q = min(lane_ + 32 * i, kDim / 4 - 1);
      bool whole = !kTail || q < 8 * kTiles;
      int at = whole ? (q >> 1 & 3) * Shape::kColumns + 8 * (q >> 3) + 4 * (q & 1) : (q & 3) * Shape::kColumns + 8 * kTiles;
      float4 sum = *reinterpret_cast<const float4*>(&side_.sums[turn_ & 1][0][at]);
#pragma unroll
      for (int w = 1; w < 4; ++w) {
        float4 more = *reinterpret_cast<const float4*>(&side_.sums[turn_ & 1][w][at]);
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
      NoteBad(first, energy);
    }
    uint16_t step_bits = ToBf16Bits(__uint_as_float(largest) * (1.0f / 127));
    float step = FromBf16Bits(step_bits), inverse = step > 0 ? __frcp_rn(step) : 0.0f, part = 0;
    uint32_t* stored_mean = PlaceOf<uint32_t>(kMean);
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
      *reinterpret_cast<float4*>(&side_.means[warp_][4 * q]) = make_float4(rounded[0], rounded[1], rounded[2], rounded[3]);
      if (warp_ == 0) Store(stored_mean + q, packed);
    }
    if (warp_ == 0) {
#pragma unroll
      for (int delta = 16; delta > 0; delta /= 2) part += __shfl_xor_sync(~0u, part, delta);
      if (lane_ == 0) {
        side_.taken[turn_ & 1] = part * coded;
        auto* scalars = PlaceOf<uint32_t>(kScalars);
        if (latent) {
          Store(scalars, uint32_t{step_bits});
        } else {  // V of the same head writes the upper half
          Store(reinterpret_cast<unsigned short*>(scalars), static_cast<unsigned short>(step_bits));
        }
        Store(scalars + 1, 0u);
        Store(reinterpret_cast<uint2*>(scalars + 2), make_uint2(0, 0));
      }
    }
    __syncwarp();
    SubtractMeans();
    return largest < 0x7F800000u;
  }

  __device__ void SubtractMeans() {
    const float* means = side_.means[warp_];
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
          z_[r][k][h] = Bits(__floats2half2_rn(y(2 * k + h, 2 * r) * inverse[r], y(2 * k + h, 2 * r + 1) * inverse[r]));
        }
      }
    }
  }

  // K's words of codes of one row, by tiles, in the units' order, the tail's in the low 16 bits.
  static constexpr int kKeyWords = kTiles + kTail;
  __device__ void CodeKeyRow(int r, const Coder& coder, RowProducts& row, uint32_t (&codes)[kKeyWords]) const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const auto &a = z_[r][2 * i], &b = z_[r][2 * i + 1];
      codes[i] = SwapMiddleNibbles(coder.CodeRow<0xF>({a[0], a[1], b[0], b[1]}, row));
    }
    if constexpr (kTail) {
      const auto& a = z_[r][kBlocks - 1];
      codes[kTiles] = SwapMiddleNibbles(coder.CodeRow<0x3>({a[0], a[1], 0, 0}, row));
    }
  }

  // V's, as LanePlanes takes them.
  static constexpr int kWholes = LanePlanes<kDim>::kWholes, kRests = LanePlanes<kDim>::kRests;
  static constexpr int kValueWords = 4 * (kWholes > 0 ? kWholes : 1), kRestWords = kRests > 0 ? kRests : 1;
  __device__ void CodeValueRow(int r, const Coder& coder, RowProducts& row, uint32_t (&codes)[kValueWords]) const {
#pragma unroll
    for (int i = 0; i < 4 * kWholes; ++i) {
      int k = i / 4 * 8 + i % 4;
      const auto& a = z_[r][k];
      if (k + 4 < kBlocks) {
        const auto& b = z_[r][k + 4];
        codes[i] = coder.CodeRow<0xF>({a[0], b[0], a[1], b[1]}, row);
      } else {
        codes[i] = coder.CodeRow<0x5>({a[0], 0, a[1], 0}, row);
      }
    }
  }
  __device__ void CodeValueRests(const Coder& coder, RowProducts (&rows)[2], uint32_t (&codes)[kRestWords]) const {
#pragma unroll
    for (int i = 0; i < kRests; ++i) {
      const auto &a = z_[0][8 * kWholes + i], &b = z_[1][8 * kWholes + i];
      codes[i] = coder.CodeRows({a[0], b[0], a[1], b[1]}, rows);
    }
  }

  // Lanes with t = g / 2 finish their row 0, their neighbours t ^ 1 row 1, with what the diagonal gave; the other two are idle.
  __device__ bool Finishes() const { return t() >> 1 == g() >> 2; }
  __device__ int Row() const { return (t() ^ g() >> 1) & 1; }

  // By value: a choice of array elements would be an address.
  template <typename V>
  static __device__ V Pick(bool second, V a, V b) {
    return second ? b : a;
  }
  // Row 1's part of what both rows have, to the lane that finishes it.
  __device__ float RowsShare(float row0, float row1) const {
    float other = __shfl_xor_sync(~0u, row1, 1);
    return Row() == 1 ? other : row0;
  }
  __device__ void Finish(const typename FastEncodeTable::Levels& levels, const RowSums (&sums)[2], const BitCounts<kDim> (&counts)[2],
                         EncodedToken<kDim>& token) const {
    RowSums s{RowsShare(sums[0].centroid, sums[1].centroid), RowsShare(sums[0].all, sums[1].all), RowsShare(sums[0].from2, sums[1].from2),
              RowsShare(sums[0].from4, sums[1].from4), RowsShare(sums[0].from6, sums[1].from6)};
    bool second = Row() == 1;
    BitCounts<kDim> count;
    count.fields = Pick(second, counts[0].fields, counts[1].fields);
    count.fields += __shfl_xor_sync(~0u, Pick(second, counts[1].fields, counts[0].fields), 1);
    count.fields += __shfl_xor_sync(~0u, count.fields, 2);
    token.Take(levels, s, count);
  }

  template <bool kValue>
  __device__ void Encode(const TqTask& task) {
    int first = task.first_token, bits = task.bits;
    float energy[2];
    if constexpr (kValue) {
      AwaitPart<0>();
      energy[0] = PartEnergy(0, 0);
      energy[1] = PartEnergy(0, 1);
      if constexpr (kParts == 2) {
        AwaitPart<1>();
        energy[0] += PartEnergy(1, 0);
        energy[1] += PartEnergy(1, 1);
      }
      energy[0] = SumOverLanes(energy[0]);
      energy[1] = SumOverLanes(energy[1]);
      NoteBad(first, energy);
      if (thread() == 0) side_.taken[turn_ & 1] = 0;
    } else {
      bool finite = RemoveMean(first, task.kind == 2);
      energy[0] = RowEnergy(0);
      energy[1] = RowEnergy(1);
      if (finite) NoteBad(first, energy);
    }
    float inverse[2], raw[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      bool coded = 16 * warp_ + 8 * r + g() >= first, live = coded && energy[r] >= kTinySquare;
      inverse[r] = live ? table_.root * rsqrtf(energy[r]) : 0.0f;
      raw[r] = coded ? energy[r] : 0.0f;
      if (!live) energy[r] = 0;
    }
    Normalise(inverse);
    LanePlanes<kDim> planes;
    BitCounts<kDim> counts[2];
    RowProducts rows[2];
    Coder coder(table_.index[bits - 2], table_.centroids[bits - 2]);
    if constexpr (kValue) {
      uint32_t codes[2][kValueWords], rests[kRestWords];
#pragma unroll
      for (int r = 0; r < 2; ++r) CodeValueRow(r, coder, rows[r], codes[r]);
      CodeValueRests(coder, rows, rests);
      planes.TakeValue(codes, rests, counts);
    } else {
      uint32_t codes[2][kKeyWords];
#pragma unroll
      for (int r = 0; r < 2; ++r) CodeKeyRow(r, coder, rows[r], codes[r]);
      planes.TakeKey(codes, counts);
    }
    RowSums sums[2] = {rows[0].Sums(g() & 1), rows[1].Sums(g() & 1)};
    int lane = 32 * warp_ + lane_;
    planes.StoreCrumbs(PlaceOf<uint8_t>(kPlanes), lane);
    if (bits > 2) planes.StoreBits(1, PlaceOf<uint8_t>(kPlanes + 1), lane);
    if (bits > 3) planes.StoreBits(2, PlaceOf<uint8_t>(kPlanes + 2), lane);
    bool second = Row() == 1;
    EncodedToken<kDim> token;
    token.energy = Pick(second, energy[0], energy[1]);
    token.inverse = Pick(second, inverse[0], inverse[1]);
    Finish(table_.levels[bits - 2], sums, counts, token);
    float error[3];
    if constexpr (kValue) {
      ValueScales(bits, token, error);
    } else {
      KeyScales(bits, token, error);
    }
    float all = Pick(second, raw[0], raw[1]), lost = all - token.energy;
    if (Finishes()) {
      side_.report[turn_ & 1][16 * warp_ + 2 * g() + Row()] = make_float4(all, error[0] + lost, error[1] + lost, error[2] + lost);
    }
  }

  // The report of the head before: this head's barrier is behind all warps that wrote parts of it, and the next one's before those who
  // write there again. Levels that the bits lack repeat the last one.
  __device__ void WriteLastReport() {
    int turn = turn_ - 1 & 1;
    TqReport* to = side_.report_at[turn];
    if (to == nullptr || warp_ != 0) return;
    float4 sum = side_.report[turn][lane_], other = side_.report[turn][lane_ + 32];
    sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
#pragma unroll
    for (int delta = 16; delta > 0; delta /= 2) {
      sum.x += __shfl_xor_sync(~0u, sum.x, delta);
      sum.y += __shfl_xor_sync(~0u, sum.y, delta);
      sum.z += __shfl_xor_sync(~0u, sum.z, delta);
      sum.w += __shfl_xor_sync(~0u, sum.w, delta);
    }
    if (lane_ != 0) return;
    int4& found = *reinterpret_cast<int4*>(side_.bad[turn_ - 1 & 3]);
    int bad = min(min(found.x, found.y), min(found.z, found.w));
    if (bad != kNone) found = make_int4(kNone, kNone, kNone, kNone);
    float second = side_.bits[turn] > 2 ? sum.z : sum.y, third = side_.bits[turn] > 3 ? sum.w : second;
    auto* out = reinterpret_cast<float4*>(to);
    __stcg(out, make_float4(fmaxf(sum.x + side_.taken[turn], 0.0f), fmaxf(sum.y, 0.0f), fmaxf(second, 0.0f), fmaxf(third, 0.0f)));
    __stcg(out + 1, make_float4(fmaxf(third, 0.0f), __int_as_float(bad == kNone ? -1 : bad), 0.0f, 0.0f));
  }

  // Unbiased scales, E / ⟨y, c⟩; with z = y · inverse, ⟨y, c⟩ is along / inverse and 1 / inverse is E · inverse / d.
  __device__ void KeyScales(int bits, const EncodedToken<kDim>& token, float (&error)[3]) const {
    float numerator = token.energy * token.inverse, unit = numerator * (1.0f / kDim), scale = 0;
    int slot = 8 * g() + 2 * warp_ + Row();
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      float wanted = token.along[level] > 0 ? __fdividef(numerator, token.along[level]) : 0.0f;
      if (level == 0) {
        uint16_t stored = ToBf16Bits(wanted);
        scale = FromBf16Bits(stored);
        if (Finishes()) Store(PlaceOf<unsigned short>(kScales) + slot, static_cast<unsigned short>(stored));
      } else {
        float from = scale * table_.levels[bits - 2].ratio[level];
        int correction = QuickCorrection(wanted, from);
        scale = CorrectedScale(from, static_cast<int8_t>(correction));
        if (Finishes() && bits > level + 1) Store(PlaceOf<unsigned char>(kScales + level) + slot, static_cast<unsigned char>(correction));
      }
      error[level] = Error(token.energy, scale, token.along[level] * unit, token.square[level]);
    }
  }

  // Least-squares scales of the whole code, as sixteenths of an octave below the head's largest.
  __device__ void ValueScales(int bits, const EncodedToken<kDim>& token, float (&error)[3]) {
    float unit = token.energy * token.inverse * (1.0f / kDim);
    float along = Pick(bits > 3, Pick(bits > 2, token.along[0], token.along[1]), token.along[2]);
    float square = Pick(bits > 3, Pick(bits > 2, token.square[0], token.square[1]), token.square[2]);
    float wanted = Finishes() && along > 0 ? __fdividef(along * unit, square) : 0.0f;
    float largest = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(wanted)));
    if (lane_ == 0) side_.largest[turn_ & 1][warp_] = largest;
    SyncWarpgroup(group_ + 1);
    WriteLastReport();
    float4 of_warps = *reinterpret_cast<const float4*>(side_.largest[turn_ & 1]);
    uint16_t base_bits = ToBf16Bits(fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w)));
    float base = FromBf16Bits(base_bits), smallest = QuickValueScale(base, kZeroCode - 1);
    if (thread() == 0) Store(PlaceOf<unsigned short>(kScalars) + 1, static_cast<unsigned short>(base_bits));
    float steps = -16 * __log2f(__fdividef(wanted, base));
    int code = wanted > smallest / 2 ? __float2int_rn(fminf(fmaxf(steps, 0.0f), kZeroCode - 1.0f)) : kZeroCode;
    float scale = QuickValueScale(base, code);
#pragma unroll
    for (int level = 0; level < 3; ++level) error[level] = Error(token.energy, scale, token.along[level] * unit, token.square[level]);
    if (Finishes()) Store(PlaceOf<unsigned char>(kScales) + 8 * g() + 2 * warp_ + Row(), static_cast<unsigned char>(code));
  }

  const TqLaunch& launch_;
  const FastEncodeTable& table_;
  const int group_, warp_, lane_;
  const uint32_t image_;
  typename Shape::Side& side_;
  TileReader<kDim> reader_;
  uint32_t turn_ = 0;  // the head's number in this warpgroup
  float y_[kParts][kN / 2];
  uint32_t z_[2][kBlocks][2];
};

}  // namespace quire::cuda
