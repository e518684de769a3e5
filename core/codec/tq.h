// The quantiser of `tq` for one head of one block: 64 vectors of K or of V (DESIGN.md, "The codec tq"). Bytes
// and where they lie are not its business (core/codec/planes.h, core/block).
//
// All arrays over channels and tokens are channel-major, element (channel c, token t) at c·64 + t, and
// rotated. Sums over channels and tokens are made in ascending order, in float, one product and one addition
// at a time, so that every target gives the same bits; |z| falls in the cell whose number is the count of
// thresholds that are less than it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/codec/codebook.h"
#include "core/codec/planes.h"

namespace quire {

inline constexpr uint32_t kTqTokens = kPlaneTokens;
inline constexpr int kTqLevels = 4;
inline constexpr uint8_t kZeroScaleCode = 255;

// Bits that a stream of `bits` bits has after level `level` (0…3), and whether that level brings it any.
constexpr int KeptBits(int bits, int level) { return level >= 3 || bits < 2 + level ? bits : 2 + level; }
constexpr bool HasLevel(int bits, int level) {
  return level == 0 || KeptBits(bits, level) > KeptBits(bits, level - 1);
}

// What an encoder measured, summed over the coded tokens.
struct CodingError {
  double energy = 0;                       // Σ‖x‖², before a mean is removed
  double error[kTqLevels] = {0, 0, 0, 0};  // Σ‖x − x̂‖² after each level
};

// One head's K. Entries of tokens in natural order. What a level does not have is left as it was.
struct TqKey {
  explicit TqKey(uint32_t max_dim = kMaxCodecDim) : mean(max_dim), codes(size_t{max_dim} * kTqTokens) {}
  uint16_t mean_step = 0;                                              // bf16
  std::vector<int8_t> mean;                                            // [d], in steps
  std::array<uint16_t, kTqTokens> scales{};                            // bf16, level 0
  std::array<std::array<int8_t, kTqTokens>, kTqLevels> corrections{};  // levels 1…3
  std::vector<uint8_t> codes;                                          // [d][64]
  CodingError measured;
};

struct TqValue {
  explicit TqValue(uint32_t max_dim = kMaxCodecDim) : codes(size_t{max_dim} * kTqTokens) {}
  uint16_t scale_base = 0;  // bf16
  std::array<uint8_t, kTqTokens> scale_codes{};
  std::array<int8_t, kTqTokens> corrections{};  // level 3
  std::vector<uint8_t> codes;                   // [d][64]
  CodingError measured;
};

// Encodes rotated K (or a latent) and V; y is used up. Tokens before `first_token` are sinks: they are left
// out of everything and their codes, scales and corrections are zero (255 for V). `work` holds dim · 64
// floats.
// Returns the first token whose squared norm is not a finite float (NaN, infinity or a norm above 1.8e19), or
// −1 if all is well.
// REQUIRES: 2 <= book.bits(), effort 0…3.
int EncodeTqKey(const Codebook& book, int effort, uint32_t first_token, float* y, float* work, TqKey* out);
int EncodeTqValue(const Codebook& book, int effort, uint32_t first_token, float* y, float* work,
                  TqValue* out);

// The scales a decoder works with after `levels` levels.
void TqKeyScales(const Codebook& book, int levels, const TqKey& code, float* scales);
void TqValueScales(const Codebook& book, int levels, const TqValue& code, float* scales);
void TqKeyMean(uint32_t dim, const TqKey& code, float* mean);
// y[c][t] = scales[t] · centroid of codes[c][t], codes of `kept` bits.
void TqDequantise(const Codebook& book, int kept, const uint8_t* codes, const float* scales, float* y);

// Codes of y[c][t] · inverse_scales[t]. With inverse_scales[t] = sqrt(d)/‖y_t‖ this is the plain quantiser of
// a direction, whose mean squared error is the codebook's; any bits from 1.
void TqIndex(const Codebook& book, const float* y, const float* inverse_scales, uint8_t* codes);

}  // namespace quire
