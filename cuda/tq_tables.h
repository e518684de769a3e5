// Inside cuda/: constants of the codec for one head size, as the kernels want them. Everything here is
// derived from core's Rotation and Codebook; nothing is a format of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/dtype.h"
#include "core/codec/codebook.h"

namespace quire::cuda {

inline constexpr int kMinBits = 2, kBitCounts = kMaxCodeBits - kMinBits + 1;
inline constexpr int kMaxOdd = kMaxCodecDim / kCodecDimStep - 1;  // 35: d = 560

// One codebook, in device memory.
struct BookTable {
  float thresholds[1 << (kMaxCodeBits - 1)];                   // 2^(bits−1) − 1 of them
  float centroids[kMaxCodeBits + 1][1 << (kMaxCodeBits - 1)];  // magnitudes by kept bits
  float ratio[4];  // of an unbiased scale, from what level − 1 keeps to what level keeps
};

// One head size, in device memory.
struct DimTable {
  uint32_t dim, power, odd;
  uint32_t unused;
  uint64_t signs[2][kMaxCodecDim / 64];
  float hartley[kMaxOdd * kMaxOdd];  // [odd][odd]
  BookTable books[kBitCounts];
};

// A magnitude of up to 3 bits, its first bit at bit 2 of a nibble, to the centroid as an IEEE half: byte
// tables for `prmt`.
struct NibbleTable {
  uint32_t low[2], high[2];
};

// Constants of the fast kernels, passed by value.
struct FastEncodeTable {
  // How ⟨|z|, c⟩ and ⟨c, c⟩ come out of RowSums and BitCounts (cuda/encode_codes.cuh), after levels 0, 1, 2.
  // A count of codes with bits 2, 1, 2 and 1, 0, 2 and 0, 1 and 0, all three set, in that order; before them
  // the number of codes.
  struct Levels {
    float along[2][4];   // of sums all, from2, from4, from6
    float square[3][8];  // of counts
    float ratio[4];      // of an unbiased scale, from what level − 1 keeps to what level keeps
  };
  Levels levels[3];  // [bits − 2]
  // Coefficients, highest first, of an odd polynomial f(z) = z (c2 + c1 z² + c0 z⁴): 15 f + 7.5, saturated to
  // [0, 15] and rounded, is the index of a 4-bit code counted from the most negative cell; the last bits of a
  // shorter code are noise. Pairs of equal halves.
  uint32_t index[3][3];
  NibbleTable centroids[3];  // of all bits
  float root;                // sqrt(d)
};
struct FastDecodeTable {
  NibbleTable centroids[kBitCounts][3];  // [bits − 2][kept − 2]
  float ratio[kBitCounts][4];            // [bits − 2][level]
};

DimTable MakeDimTable(uint32_t dim, uint64_t seed);
FastEncodeTable MakeFastEncodeTable(uint32_t dim);
FastDecodeTable MakeFastDecodeTable(uint32_t dim);

// Head sizes that have fast kernels.
constexpr bool IsFastDim(uint32_t dim) {
  return dim == 64 || dim == 80 || dim == 96 || dim == 128 || dim == 192 || dim == 256;
}

// The channel that column `column` (0…7) of 8-wide tile n holds in the fragments of a rotated vector: that of
// lane t = column / 2 in the planes' order (core/codec/planes.h), so that codes need no exchange between
// lanes.
constexpr uint32_t FragmentChannel(uint32_t dim, uint32_t n, uint32_t column) {
  uint32_t k = n / 2, t = column / 2, j = 2 * (n % 2) + column % 2;
  bool tail = dim % 32 != 0 && k == dim / 16 - 1;
  return tail ? 16 * k + 4 * t + j : 32 * (k / 2) + 8 * t + 4 * (k % 2) + j;
}

// R (encode) or Rᵀ (decode) as the B operand of warpgroup matrix products, K-major without swizzle: core
// matrices of 8 rows n × 16 bytes, 128 bytes each; n steps 128 bytes, k steps 16 · dim. One image of dim²
// elements; for encode and dims that are no power of two a second one follows, of what rounding left.
//   encode: element (n, k) = R[channel of fragment column n][k], in `type`
//   decode: element (n, k) = R[channel of fragment column k][channel of fragment column n], IEEE half
std::vector<uint16_t> EncodeImage(uint32_t dim, uint64_t seed, DType type);
std::vector<uint16_t> DecodeImage(uint32_t dim, uint64_t seed);
constexpr int EncodePasses(uint32_t dim) { return (dim & (dim - 1)) == 0 ? 1 : 2; }

}  // namespace quire::cuda
