// Inside cuda/: codes of a warp's 16 tokens into the planes' order, and from there to the object (core/codec/planes.h). Lane (g, t)
// has tokens g and 8 + g.
#pragma once

#include <cuda_runtime.h>

#include "cuda/encode_codes.cuh"

namespace quire::cuda {

template <int kDim>
struct LanePlanes {
  static constexpr int kBlocks = kDim / 16, kTiles = kDim / 32, kFours = kDim / 64;
  static constexpr bool kTail = kDim % 32 != 0, kPair = kDim / 32 % 2, kSingle = kDim / 16 % 2;
  static constexpr int kGroups = (kBlocks + 3) / 4;  // fours, the last one perhaps a pair or a single unit, and for d = 80 a single

  uint32_t crumbs[kGroups][2], bit1[kGroups], bit0[kGroups];

  // K, `codes[r][i]` of row r and tile i in the units' order, the tail's in the low 16 bits. A plane's words have both rows' units.
  template <int kWords>
  __device__ void TakeKey(const uint32_t (&codes)[2][kWords], BitCounts<kDim> (&counts)[2]) {
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      uint32_t n[4] = {}, mask[2] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int u = 4 * q + i;
        if (u < 2 * kTiles) {
          n[i] = codes[u / kTiles][u % kTiles];
          mask[u / kTiles] |= 0x11111111u << i;
        } else if (kTail && u == 2 * kTiles) {
          n[i] = Permute(codes[0][kWords - 1], codes[1][kWords - 1], 0x5410);
          mask[0] |= 0x00001111u << i;
          mask[1] |= 0x11110000u << i;
        }
      }
      PlaneGroup group(n);
      Take(q, group);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (mask[r] != 0) counts[r].Add(group, mask[r]);
      }
    }
  }

  // V: groups of eight blocks, and a last one of four or fewer, which has both rows in a word instead of two fours.
  static constexpr int kWholes = (kBlocks + 3) / 8, kRests = kBlocks % 8 > 0 && kBlocks % 8 <= 4 ? kBlocks % 8 : 0;

  // `codes[r][4G + k]` of row r and blocks 8G + k and 8G + 4 + k; `rests[k]` of both rows and block 8 kWholes + k. Units hold four tokens
  // of two channels: an 8 × 8 transposition, 16 bits of a plane in one.
  template <int kWords, int kRestWords>
  __device__ void TakeValue(const uint32_t (&codes)[2][kWords], const uint32_t (&rests)[kRestWords], BitCounts<kDim> (&counts)[2]) {
#pragma unroll
    for (int g = 0; g < kWholes; ++g) {
      uint32_t rows[2][4];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t n[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) n[i] = Permute(codes[r][4 * g + i], 0, 0x3120);  // a column a half
        PlaneGroup group(n);
        counts[r].Add(group, ~0u);
        Words(group, rows[r]);
      }
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        uint32_t x0 = Transpose8x8(rows[0][p]), x1 = Transpose8x8(rows[1][p]);
        uint32_t even = Permute(x0, x1, 0x5140), odd = Permute(x0, x1, 0x7362);  // tokens
        PutPlane(2 * g, p, Blend(0x0F0F0F0Fu, even, odd << 4));
        if (2 * g + 1 < kGroups) PutPlane(2 * g + 1, p, Blend(0x0F0F0F0Fu, even >> 4, odd));
      }
    }
    if constexpr (kRests > 0) {
      uint32_t n[4] = {}, both[4];
#pragma unroll
      for (int i = 0; i < kRests; ++i) n[i] = Permute(rests[i], 0, 0x3120);
      PlaneGroup group(n);
      counts[0].Add(group, 0x0F0F0F0Fu);
      counts[1].Add(group, 0xF0F0F0F0u);
      Words(group, both);
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        uint32_t x = Transpose8x8(both[p]), even = Permute(x, 0, 0x1100), odd = Permute(x, 0, 0x3322);  // rows 0, 1, 0, 1
        PutPlane(2 * kWholes, p, Blend(0x0F0F0F0Fu, Blend(0x00FF00FFu, even, even >> 4), Blend(0x00FF00FFu, odd << 4, odd)));
      }
    }
  }

  // The two-bit plane.
  __device__ void StoreCrumbs(uint8_t* plane, int lane) const {
    uint32_t words[2 * kFours];
#pragma unroll
    for (int q = 0; q < kFours; ++q) words[2 * q] = crumbs[q][0], words[2 * q + 1] = crumbs[q][1];
    StoreWords(reinterpret_cast<uint32_t*>(plane) + lane * 2 * kFours, words);
    uint8_t* pairs = plane + 128 * 8 * kFours;
    if constexpr (kPair) __stcs(reinterpret_cast<uint32_t*>(pairs) + lane, crumbs[kGroups - 1][0]);
    if constexpr (kSingle) {
      uint32_t word = Halve4(crumbs[kGroups - 1][0] & 0x33333333u);
      __stcs(reinterpret_cast<uint16_t*>(pairs + (kPair ? 512 : 0)) + lane, static_cast<uint16_t>(word));
    }
  }

  // The one-bit plane of level 1 or 2.
  __device__ void StoreBits(int level, uint8_t* plane, int lane) const {
    const uint32_t(&bits)[kGroups] = level == 1 ? bit1 : bit0;
    uint32_t words[kFours];
#pragma unroll
    for (int q = 0; q < kFours; ++q) words[q] = bits[q];
    StoreWords(reinterpret_cast<uint32_t*>(plane) + lane * kFours, words);
    uint8_t* pairs = plane + 128 * 4 * kFours;
    if constexpr (kPair) {
      __stcs(reinterpret_cast<uint16_t*>(pairs) + lane, static_cast<uint16_t>(Halve4(bits[kGroups - 1] & 0x33333333u)));
    }
    if constexpr (kSingle) {
      uint32_t word = Halve2(Halve4(bits[kGroups - 1] & 0x11111111u));
      __stcs(pairs + (kPair ? 256 : 0) + lane, static_cast<unsigned char>(word));
    }
  }

 private:
  __device__ void Take(int q, const PlaneGroup& group) {
    crumbs[q][0] = group.crumbs[0], crumbs[q][1] = group.crumbs[1], bit1[q] = group.bit1, bit0[q] = group.bit0;
  }
  static __device__ void Words(const PlaneGroup& group, uint32_t (&words)[4]) {
    words[0] = group.crumbs[0], words[1] = group.crumbs[1], words[2] = group.bit1, words[3] = group.bit0;
  }
  __device__ void PutPlane(int q, int p, uint32_t word) { (p < 2 ? crumbs[q][p] : p == 2 ? bit1[q] : bit0[q]) = word; }

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
};

}  // namespace quire::cuda
