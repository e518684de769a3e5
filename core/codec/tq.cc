#include "core/codec/tq.h"

#include "core/base/float16.h"
#include "core/codec/head_pass.h"
#include "core/codec/tiles.h"

namespace quire {
namespace {

constexpr size_t kN = kTqTokens;

float Corrected(float scale, int8_t correction) {
  return scale * (1.0f + static_cast<float>(correction) * kCorrectionStep);
}

}  // namespace

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
