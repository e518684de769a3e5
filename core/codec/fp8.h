// The codec `fp8`: e4m3 codes of one stream of one head, with one scale a token. No rotation, no mean: the
// baseline.
//
//   scale = bf16 of max|x|/448, rounded towards zero          code = e4m3 of x/scale          x̂ = scale ·
//   value(code)
//
// e4m3 is OCP's finite form: bit 7 sign, bits 6…3 exponent (bias 7), bits 2…0 mantissa, subnormals in steps
// of 2^-9, largest 448; codes 0x7F and 0xFF (its NaN) are never written. Codes round to nearest, ties to
// even. Because the scale is rounded towards zero, x/scale is at most 448·(1 + 2^-7), which still rounds to
// 448, so nothing overflows, and no |x̂| is above the vector's largest |x| (but by a float's last bit): a
// tensor that fits a dtype decodes to one that fits.
//
// A vector whose max|x|/448 is below 2^-100 counts as zero: scale and codes 0 (+0).
//
// Every target gives the same bytes: max is exact in any order, division and rounding are IEEE's, and errors
// are summed in sixteen partial sums by channel mod 16, which are then added pairwise.
#pragma once

#include <bit>
#include <cstdint>

#include "core/codec/head_codec.h"

namespace quire {

inline constexpr float kFp8Largest = 448;

// The scale of a vector whose largest magnitude is `most`, as bf16; 0 if it counts as zero. REQUIRES: most is
// finite.
inline uint16_t Fp8ScaleOf(float most) {
  float scale = most / kFp8Largest;
  return scale < 0x1p-100f ? 0 : static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16);
}

// Energy and error of what was coded: Σ‖x‖² and Σ‖x − x̂‖² over the tokens.
struct Fp8Error {
  double energy = 0, error = 0;
};

// 64 rows to scales [64] (bf16) and codes [64][dim], tokens and channels in natural order. Rows of tokens
// before `first_token` are not read; their scales and codes are zero. Returns −1, or the first token that has
// a NaN or an infinity; the outputs are then unspecified. REQUIRES: IsCodecDim(dim). Thread-safe; allocates
// nothing.
int EncodeFp8Head(uint32_t dim, uint32_t first_token, const HeadRows& rows, uint16_t* scales, uint8_t* codes,
                  Fp8Error* measured);

// The other way. Rows of tokens before `first_token` are left as they were.
void DecodeFp8Head(uint32_t dim, uint32_t first_token, const uint16_t* scales, const uint8_t* codes,
                   const MutableHeadRows& rows);

}  // namespace quire
