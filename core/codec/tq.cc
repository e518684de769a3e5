#include "core/codec/tq.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/base/float16.h"
#include "core/codec/head_pass.h"
#include "core/codec/tiles.h"

namespace quire {
namespace {

constexpr size_t kN = kTqTokens;

// 2^(−i/16), rounded to float.
constexpr float kSixteenths[16] = {0x1.000000p+0f, 0x1.ea4afap-1f, 0x1.d5818ep-1f, 0x1.c199bep-1f,
                                   0x1.ae89fap-1f, 0x1.9c4918p-1f, 0x1.8ace54p-1f, 0x1.7a1148p-1f,
                                   0x1.6a09e6p-1f, 0x1.5ab07ep-1f, 0x1.4bfdaep-1f, 0x1.3dea64p-1f,
                                   0x1.306fe0p-1f, 0x1.2387a6p-1f, 0x1.172b84p-1f, 0x1.0b5586p-1f};

// 2^(−code/16) by code; 255 is an exact zero.
constexpr std::array<float, 256> kPowers = [] {
  std::array<float, 256> powers{};
  for (int code = 0; code < kZeroScaleCode; ++code) {
    powers[code] = kSixteenths[code % 16] / static_cast<float>(1 << code / 16);
  }
  return powers;
}();

float ValueScale(float base, uint8_t code) { return code == kZeroScaleCode ? 0 : base * kPowers[code]; }

float Corrected(float scale, int8_t correction) {
  return scale * (1.0f + static_cast<float>(correction) * kCorrectionStep);
}

// The correction that brings `from` nearest to `wanted`; 0 where there is nothing to correct.
int8_t CorrectionOf(float wanted, float from) {
  if (!(from > 0)) return 0;
  float steps = (wanted / from - 1.0f) / kCorrectionStep;
  return static_cast<int8_t>(std::lrintf(std::clamp(steps, -kMaxCorrection, kMaxCorrection)));
}

// Mantissas at which −16·log2 passes a half: 2^((2i+1)/32). None lies within a float ratio's reach of a quotient of two
// floats (tests), so comparing is as good as rounding a logarithm.
constexpr double kHalves[16] = {
    0x1.059b0d3158574p+0, 0x1.11301d0125b51p+0, 0x1.1d4873168b9aap+0, 0x1.29e9df51fdee1p+0,
    0x1.371a7373aa9cbp+0, 0x1.44e086061892dp+0, 0x1.5342b569d4f82p+0, 0x1.6247eb03a5585p+0,
    0x1.71f75e8ec5f74p+0, 0x1.82589994cce13p+0, 0x1.93737b0cdc5e5p+0, 0x1.a5503b23e255dp+0,
    0x1.b7f76f2fb5e47p+0, 0x1.cb720dcef9069p+0, 0x1.dfc97337b9b5fp+0, 0x1.f50765b6e4540p+0};

// The nearest code of wanted/base: −16·log2 of it, rounded, within 0…254. Both are positive and normal.
uint8_t ValueScaleCode(float wanted, float base) {
  uint64_t bits = std::bit_cast<uint64_t>(static_cast<double>(wanted) / base);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u);
  int above = 0;
  for (int step = 8; step > 0; step /= 2) above += mantissa > kHalves[above + step - 1] ? step : 0;
  above += mantissa > kHalves[15] ? 1 : 0;
  return static_cast<uint8_t>(std::clamp(-16 * exponent - above, 0, kZeroScaleCode - 1));
}

}  // namespace

void ChooseValueScales(float largest, const float* wanted, TqValue* out, float* scales, float* corrected) {
  out->scale_base = ToBf16(largest);
  float base = FromBf16(out->scale_base), smallest = ValueScale(base, kZeroScaleCode - 1);
  for (size_t t = 0; t < kN; ++t) {
    // Nearer to nothing than to the smallest scale: nothing.
    out->scale_codes[t] = wanted[t] > smallest / 2 ? ValueScaleCode(wanted[t], base) : kZeroScaleCode;
    scales[t] = ValueScale(base, out->scale_codes[t]);
    out->corrections[t] = CorrectionOf(wanted[t], scales[t]);
    corrected[t] = Corrected(scales[t], out->corrections[t]);
  }
}

void TqKeyScales(const Codebook& book, int levels, const TqKey& code, float* scales) {
  for (size_t t = 0; t < kN; ++t) scales[t] = FromBf16(code.scales[t]);
  for (int level = 1; level < levels; ++level) {
    if (!HasLevel(book.bits(), level)) continue;
    float ratio = book.nominal_ratio(KeptBits(book.bits(), level - 1), KeptBits(book.bits(), level));
    for (size_t t = 0; t < kN; ++t) scales[t] = Corrected(scales[t] * ratio, code.corrections[level][t]);
  }
}

void TqValueScales(const Codebook& book, int levels, const TqValue& code, float* scales) {
  float base = FromBf16(code.scale_base);
  bool corrected = levels > 3 && HasLevel(book.bits(), 3);
  for (size_t t = 0; t < kN; ++t) {
    scales[t] = ValueScale(base, code.scale_codes[t]);
    if (corrected) scales[t] = Corrected(scales[t], code.corrections[t]);
  }
}

void TqKeyMean(uint32_t dim, const TqKey& code, float* mean) {
  float step = FromBf16(code.mean_step);
  for (uint32_t c = 0; c < dim; ++c) mean[c] = static_cast<float>(code.mean[c]) * step;
}

void TqDequantise(const Codebook& book, int kept, const uint8_t* codes, const float* scales, float* y) {
  const float* table = book.table(kept);
  for (uint32_t c = 0; c < book.dim(); ++c, y += kN, codes += kN) {
    for (size_t t = 0; t < kN; ++t) y[t] = scales[t] * table[codes[t]];
  }
}

}  // namespace quire
