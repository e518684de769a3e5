// Inside cuda/: normalised values to codes, and what scales need to know of the codes.
//
// Four pairs of halves make one word of eight codes. An odd polynomial, rounded, is the index counted from the most negative cell
// (FitIndex); two of them make a byte by one fused multiplication, four a word of nibbles, and one exclusive or turns those into
// signs and magnitudes. ⟨|z|, c⟩ of all bits comes from a byte table of the centroids, of fewer bits from where the magnitude is at
// least 2, 4 and 6: all are the diagonals of small matrix products. ⟨c, c⟩ is linear in how many codes have which bits set.
#pragma once

#include "cuda/sm90.cuh"
#include "cuda/tq_tables.h"

namespace quire::cuda {

__device__ __forceinline__ __half2 Halves(const uint32_t& x) { return reinterpret_cast<const __half2&>(x); }
__device__ __forceinline__ uint32_t Bits(const __half2& x) { return reinterpret_cast<const uint32_t&>(x); }
__device__ __forceinline__ uint32_t Blend(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }

// ⟨|z|, ·⟩ of one row: right in the lane with t = g / 2.
struct RowSums {
  float centroid;               // of all bits
  float all, from2, from4, from6;  // of 1 and of [magnitude ≥ 2], …
};

// What adds up to them. Columns come as pairs of halves, two pairs at a time.
class RowProducts {
 public:
  struct Pair {
    uint32_t magnitude = 0, centroid = 0, from2 = 0, from4 = 0, from6 = 0;
  };
  __device__ void Add(const Pair& a, const Pair& b) {
    constexpr uint32_t kOnes = 0x3C003C00u;
    MmaHalf(top_, a.centroid, a.from4, b.centroid, b.from4, a.magnitude, b.magnitude);
    MmaHalf(parts_, a.from2, a.from6, b.from2, b.from6, a.magnitude, b.magnitude);
    MmaHalf(all_, kOnes, kOnes, kOnes, kOnes, a.magnitude, b.magnitude);
  }
  __device__ RowSums Sums(bool odd) const {  // `odd`: of g
    return {odd ? top_[1] : top_[0], odd ? all_[1] : all_[0], odd ? parts_[1] : parts_[0], odd ? top_[3] : top_[2],
            odd ? parts_[3] : parts_[2]};
  }

 private:
  float top_[4] = {}, parts_[4] = {}, all_[4] = {};
};

class Coder {
 public:
  // `index`: the polynomial's coefficients, highest first.
  __device__ Coder(const uint32_t (&index)[3], const NibbleTable& centroids) : centroids_(centroids) {
#pragma unroll
    for (int i = 0; i < 3; ++i) index_[i] = index[i];
  }

  // Codes of the pairs z[0…3], those missing that kPresent lacks, as nibbles (sign, magnitude): z0e0 z1e0 z0e1 z1e1 z2e0 z3e0 z2e1
  // z3e1. What is missing has code 0.
  template <int kPresent>
  __device__ uint32_t Code(const uint32_t (&z)[4], RowProducts::Pair (&pairs)[4]) const {
    __half2 index[4], from8[4];  // 1152 + index (0…15), index − 8
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!(kPresent >> i & 1)) {
        index[i] = __float2half2_rn(1160.0f);
        from8[i] = __float2half2_rn(0.0f);
        continue;
      }
      __half2 x = Halves(z[i]), square = __hmul2(x, x);
      __half2 f = __hfma2(__hfma2(Halves(index_[0]), square, Halves(index_[1])), square, Halves(index_[2]));
      f = __hfma2_sat(x, f, __float2half2_rn(0.5f));
      index[i] = __hfma2(f, __float2half2_rn(15.0f), __float2half2_rn(1152.0f));  // the unit in the last place is 1: rounds
      from8[i] = __hadd2(index[i], __float2half2_rn(-1160.0f));
      __half2 steep = __hfma2(from8[i], from8[i], from8[i]);  // m (m + 1)
      pairs[i].from2 = Bits(__hfma2_sat(steep, __float2half2_rn(0.25f), __float2half2_rn(-0.5f)));
      pairs[i].from4 = Bits(__hfma2_sat(steep, __float2half2_rn(0.125f), __float2half2_rn(-1.5f)));
      pairs[i].from6 = Bits(__hfma2_sat(steep, __float2half2_rn(0.125f), __float2half2_rn(-3.75f)));
      pairs[i].magnitude = z[i] & 0x7FFF7FFFu;
    }
    __half2 sixteen = __float2half2_rn(16.0f);
    uint32_t first = Bits(__hfma2(from8[1], sixteen, index[0])), second = Bits(__hfma2(from8[3], sixteen, index[2]));
    uint32_t codes = Permute(first, second, 0x6420);
    codes ^= (~codes >> 3 & 0x11111111u) * 7 + 0x88888888u;
    uint32_t selector = codes & 0x77777777u;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      uint32_t low = Permute(centroids_.low[0], centroids_.low[1], selector >> 8 * i);
      uint32_t high = Permute(centroids_.high[0], centroids_.high[1], selector >> 8 * i);
      if (kPresent >> i & 1) pairs[i].centroid = Permute(low, high, 0x6240);
      if (kPresent >> i & 2) pairs[i + 1].centroid = Permute(low, high, 0x7351);
    }
    return codes;
  }
  // All of one row.
  template <int kPresent>
  __device__ uint32_t CodeRow(const uint32_t (&z)[4], RowProducts& row) const {
    RowProducts::Pair pairs[4];
    uint32_t codes = Code<kPresent>(z, pairs);
    row.Add(pairs[0], pairs[1]);
    if constexpr ((kPresent & 0xC) != 0) row.Add(pairs[2], pairs[3]);
    return codes;
  }
  // z0 and z2 of one row, z1 and z3 of another.
  __device__ uint32_t CodeRows(const uint32_t (&z)[4], RowProducts (&rows)[2]) const {
    RowProducts::Pair pairs[4];
    uint32_t codes = Code<0xF>(z, pairs);
    rows[0].Add(pairs[0], pairs[2]);
    rows[1].Add(pairs[1], pairs[3]);
    return codes;
  }

 private:
  const NibbleTable& centroids_;
  uint32_t index_[3];
};

// Exchanges nibbles 1 and 2, 5 and 6: from Coder's order to that of K's units.
__device__ __forceinline__ uint32_t SwapMiddleNibbles(uint32_t x) {
  uint32_t t = (x ^ x >> 4) & 0x00F000F0u;
  return x ^ t ^ t << 4;
}

// Planes of four words of nibbles: bit b of nibble j of word i becomes bit 4j + i of plane b, and the first two bits of words 2p
// and 2p + 1 crumb word p.
struct PlaneGroup {
  uint32_t crumbs[2], bit2, bit1, bit0;

  __device__ explicit PlaneGroup(const uint32_t (&n)[4]) {
    constexpr uint32_t kPairs = 0x33333333u, kEven = 0x55555555u;
    crumbs[0] = Blend(kPairs, n[0] >> 2, n[1]);
    crumbs[1] = Blend(kPairs, n[2] >> 2, n[3]);
    uint32_t low02 = Blend(kPairs, n[0], n[2] << 2), low13 = Blend(kPairs, n[1], n[3] << 2);
    uint32_t high02 = Blend(kPairs, n[0] >> 2, n[2]), high13 = Blend(kPairs, n[1] >> 2, n[3]);
    bit0 = Blend(kEven, low02, low13 << 1);
    bit1 = Blend(kEven, low02 >> 1, low13);
    bit2 = Blend(kEven, high02, high13 << 1);
  }
};

// How many codes of a row have bits set, of each combination of magnitude bits (FastEncodeTable), as fields of one integer that add up
// without carries.
template <int kDim>
struct BitCounts {
  static constexpr int kField = kDim < 256 ? 8 : 9;
  uint64_t fields = 0;

  __device__ void Add(const PlaneGroup& group, uint32_t mask) {
    uint32_t b2 = group.bit2 & mask, b1 = group.bit1 & mask, b0 = group.bit0 & mask;
    uint32_t sets[7] = {b2, b1, b2 & b1, b0, b2 & b0, b1 & b0, b2 & b1 & b0};
    uint64_t counts = 0;
#pragma unroll
    for (int i = 0; i < 7; ++i) counts |= uint64_t{static_cast<uint32_t>(__popc(sets[i]))} << (i * kField);
    fields += counts;
  }
  __device__ float At(int i) const { return static_cast<float>(static_cast<uint32_t>(fields >> (i * kField)) & ((1u << kField) - 1)); }
};

}  // namespace quire::cuda
