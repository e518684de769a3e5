#include "core/codec/tq.h"

#include <algorithm>
#include <cmath>

#include "core/base/float16.h"

namespace quire {
namespace {

constexpr size_t kN = kTqTokens;
// A vector whose squared norm is below this is coded as zero: its products would leave float's normal range.
constexpr float kTinyEnergy = 0x1p-100f;
constexpr float kCorrectionStep = 0x1p-10f;
constexpr float kMaxCorrection = 127;

// 2^(−i/16), rounded to float.
constexpr float kSixteenths[16] = {0x1.000000p+0f, 0x1.ea4afap-1f, 0x1.d5818ep-1f, 0x1.c199bep-1f,
                                   0x1.ae89fap-1f, 0x1.9c4918p-1f, 0x1.8ace54p-1f, 0x1.7a1148p-1f,
                                   0x1.6a09e6p-1f, 0x1.5ab07ep-1f, 0x1.4bfdaep-1f, 0x1.3dea64p-1f,
                                   0x1.306fe0p-1f, 0x1.2387a6p-1f, 0x1.172b84p-1f, 0x1.0b5586p-1f};

float ValueScale(float base, uint8_t code) {
  if (code == kZeroScaleCode) return 0;
  return base * std::ldexp(kSixteenths[code % 16], -(code / 16));
}

float Corrected(float scale, int8_t correction) {
  return scale * (1.0f + static_cast<float>(correction) * kCorrectionStep);
}

// The correction that brings `from` nearest to `wanted`; 0 where there is nothing to correct.
int8_t CorrectionOf(float wanted, float from) {
  if (!(from > 0)) return 0;
  float steps = (wanted / from - 1.0f) / kCorrectionStep;
  return static_cast<int8_t>(std::lrintf(std::clamp(steps, -kMaxCorrection, kMaxCorrection)));
}

// sums[t] = Σ_c a[c][t] · b[c][t]
void Dot(uint32_t dim, const float* __restrict a, const float* __restrict b, float* __restrict sums) {
  for (size_t t = 0; t < kN; ++t) sums[t] = 0;
  for (uint32_t c = 0; c < dim; ++c, a += kN, b += kN) {
    for (size_t t = 0; t < kN; ++t) sums[t] += a[t] * b[t];
  }
}

void Energy(uint32_t dim, const float* __restrict y, float* __restrict sums) {
  for (size_t t = 0; t < kN; ++t) sums[t] = 0;
  for (uint32_t c = 0; c < dim; ++c, y += kN) {
    for (size_t t = 0; t < kN; ++t) sums[t] += y[t] * y[t];
  }
}

// Σ_t Σ_c (y − scale · chosen)²
double SquaredError(uint32_t dim, const float* __restrict y, const float* __restrict chosen,
                    const float* __restrict scales) {
  float sums[kN] = {};
  for (uint32_t c = 0; c < dim; ++c, y += kN, chosen += kN) {
    for (size_t t = 0; t < kN; ++t) {
      float miss = y[t] - scales[t] * chosen[t];
      sums[t] += miss * miss;
    }
  }
  double total = 0;
  for (float s : sums) total += s;
  return total;
}

// chosen[c][t] = the centroid of the code's first `kept` bits.
void Choose(const Codebook& book, int kept, const uint8_t* __restrict codes, float* __restrict chosen) {
  const float* table = book.table(kept);
  int shift = book.bits() - kept;
  for (size_t i = 0; i < size_t{book.dim()} * kN; ++i) chosen[i] = table[codes[i] >> shift];
}

// Up to 7 thresholds: count them all, which vectorises.
template <int kThresholds>
void IndexByCounting(const Codebook& book, const float* __restrict y, const float* __restrict inverse,
                     uint8_t* __restrict codes) {
  float thresholds[kThresholds + 1] = {};
  std::copy_n(book.float_thresholds().begin(), kThresholds, thresholds);
  int32_t sign = 1 << (book.bits() - 1);
  for (uint32_t c = 0; c < book.dim(); ++c, y += kN, codes += kN) {
    int32_t row[kN];
    for (size_t t = 0; t < kN; ++t) {
      float z = std::fabs(y[t]) * inverse[t];
      int32_t code = y[t] < 0 ? sign : 0;
      for (int k = 0; k < kThresholds; ++k) code += thresholds[k] < z ? 1 : 0;
      row[t] = code;
    }
    for (size_t t = 0; t < kN; ++t) codes[t] = static_cast<uint8_t>(row[t]);
  }
}

// More thresholds, 2^(b−1) − 1 of them: a search without branches.
void IndexBySearch(const Codebook& book, const float* y, const float* inverse, uint8_t* codes) {
  const float* thresholds = book.float_thresholds().data();
  uint32_t half = 1u << (book.bits() - 1);
  for (uint32_t c = 0; c < book.dim(); ++c, y += kN, codes += kN) {
    for (size_t t = 0; t < kN; ++t) {
      float z = std::fabs(y[t]) * inverse[t];
      uint32_t cell = 0;
      for (uint32_t step = half / 2; step > 0; step /= 2) {
        cell += step & (0u - static_cast<uint32_t>(thresholds[cell + step - 1] < z));
      }
      codes[t] = static_cast<uint8_t>(cell | (y[t] < 0 ? half : 0));
    }
  }
}

int FirstNotFinite(uint32_t first_token, const float* energy) {
  for (uint32_t t = first_token; t < kN; ++t) {
    if (!std::isfinite(energy[t])) return static_cast<int>(t);
  }
  return -1;
}

// Zeroes the columns of sinks and of vectors too small to code, so that their codes come out as zero bits;
// inverse[t] is 1/rms of the others, 0 for these.
void Normalise(uint32_t dim, uint32_t first_token, float* y, float* energy, float* inverse) {
  float root = std::sqrt(static_cast<float>(dim));
  bool all = true;
  float keep[kN];
  for (size_t t = 0; t < kN; ++t) {
    bool live = t >= first_token && energy[t] >= kTinyEnergy;
    inverse[t] = live ? root / std::sqrt(energy[t]) : 0;
    if (!live) energy[t] = 0;
    keep[t] = live;
    all = all && live;
  }
  if (all) return;
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < kN; ++t) y[c * kN + t] = keep[t] != 0 ? y[c * kN + t] : 0;
  }
}

// Indices, then `effort` alternations of least-squares scale and indices.
void FindCodes(const Codebook& book, int effort, const float* y, float* inverse, float* work,
               uint8_t* codes) {
  TqIndex(book, y, inverse, codes);
  for (int i = 0; i < effort; ++i) {
    float along[kN], square[kN];
    Choose(book, book.bits(), codes, work);
    Dot(book.dim(), y, work, along);
    Energy(book.dim(), work, square);
    for (size_t t = 0; t < kN; ++t) {
      if (along[t] > 0) inverse[t] = square[t] / along[t];
    }
    TqIndex(book, y, inverse, codes);
  }
}

// The rotated mean over the coded tokens, in int8 steps; subtracted from y.
void RemoveMean(uint32_t dim, uint32_t first_token, float* y, TqKey* out) {
  float sums[kMaxCodecDim], largest = 0;
  float count = static_cast<float>(kN - first_token);
  for (uint32_t c = 0; c < dim; ++c) {
    float sum = 0;
    for (size_t t = first_token; t < kN; ++t) sum += y[c * kN + t];
    sums[c] = sum / count;
    largest = std::fmax(largest, std::fabs(sums[c]));
  }
  out->mean_step = ToBf16(largest / 127);
  float step = FromBf16(out->mean_step);
  for (uint32_t c = 0; c < dim; ++c) {
    float steps = step > 0 ? std::clamp(sums[c] / step, -127.0f, 127.0f) : 0;
    out->mean[c] = static_cast<int8_t>(std::lrintf(steps));
    float mean = static_cast<float>(out->mean[c]) * step;
    for (size_t t = 0; t < kN; ++t) y[c * kN + t] -= mean;
  }
}

double Sum(uint32_t first_token, const float* values) {
  double total = 0;
  for (size_t t = first_token; t < kN; ++t) total += values[t];
  return total;
}

}  // namespace

void TqIndex(const Codebook& book, const float* y, const float* inverse_scales, uint8_t* codes) {
  switch (book.bits()) {
    case 1:
      return IndexByCounting<0>(book, y, inverse_scales, codes);
    case 2:
      return IndexByCounting<1>(book, y, inverse_scales, codes);
    case 3:
      return IndexByCounting<3>(book, y, inverse_scales, codes);
    case 4:
      return IndexByCounting<7>(book, y, inverse_scales, codes);
    default:
      return IndexBySearch(book, y, inverse_scales, codes);
  }
}

int EncodeTqKey(const Codebook& book, int effort, uint32_t first_token, float* y, float* work, TqKey* out) {
  uint32_t dim = book.dim();
  float energy[kN], inverse[kN];
  Energy(dim, y, energy);
  if (int bad = FirstNotFinite(first_token, energy); bad >= 0) return bad;
  out->measured.energy = Sum(first_token, energy);
  RemoveMean(dim, first_token, y, out);
  Energy(dim, y, energy);
  if (int bad = FirstNotFinite(first_token, energy); bad >= 0) return bad;
  double tiny = 0;  // what the vectors coded as zero lose
  for (size_t t = first_token; t < kN; ++t) tiny += energy[t] < kTinyEnergy ? energy[t] : 0;
  Normalise(dim, first_token, y, energy, inverse);
  FindCodes(book, effort, y, inverse, work, out->codes.data());

  float scales[kN];
  for (int level = 0; level < kTqLevels; ++level) {
    int kept = KeptBits(book.bits(), level);
    if (!HasLevel(book.bits(), level)) {
      out->measured.error[level] = out->measured.error[level - 1];
      continue;
    }
    float along[kN];
    Choose(book, kept, out->codes.data(), work);
    Dot(dim, y, work, along);
    for (size_t t = 0; t < kN; ++t) {
      float wanted = along[t] > 0 ? energy[t] / along[t] : 0;
      if (level == 0) {
        out->scales[t] = ToBf16(wanted);
        scales[t] = FromBf16(out->scales[t]);
      } else {
        float from = scales[t] * book.nominal_ratio(KeptBits(book.bits(), level - 1), kept);
        out->corrections[level][t] = CorrectionOf(wanted, from);
        scales[t] = Corrected(from, out->corrections[level][t]);
      }
    }
    out->measured.error[level] = SquaredError(dim, y, work, scales) + tiny;
  }
  return -1;
}

int EncodeTqValue(const Codebook& book, int effort, uint32_t first_token, float* y, float* work,
                  TqValue* out) {
  uint32_t dim = book.dim();
  float energy[kN], inverse[kN], along[kN], square[kN], wanted[kN], scales[kN];
  Energy(dim, y, energy);
  if (int bad = FirstNotFinite(first_token, energy); bad >= 0) return bad;
  out->measured.energy = Sum(first_token, energy);
  double tiny = 0;
  for (size_t t = first_token; t < kN; ++t) tiny += energy[t] < kTinyEnergy ? energy[t] : 0;
  Normalise(dim, first_token, y, energy, inverse);
  FindCodes(book, effort, y, inverse, work, out->codes.data());

  Choose(book, book.bits(), out->codes.data(), work);
  Dot(dim, y, work, along);
  Energy(dim, work, square);
  float largest = 0;
  for (size_t t = 0; t < kN; ++t) {
    wanted[t] = along[t] > 0 ? along[t] / square[t] : 0;
    largest = std::fmax(largest, wanted[t]);
  }
  out->scale_base = ToBf16(largest);
  float base = FromBf16(out->scale_base), smallest = ValueScale(base, kZeroScaleCode - 1);
  for (size_t t = 0; t < kN; ++t) {
    // Nearer to nothing than to the smallest scale: nothing.
    if (!(wanted[t] > smallest / 2)) {
      out->scale_codes[t] = kZeroScaleCode;
    } else {
      double steps = -16 * std::log2(static_cast<double>(wanted[t]) / base);
      out->scale_codes[t] = static_cast<uint8_t>(std::lrint(std::clamp(steps, 0.0, kZeroScaleCode - 1.0)));
    }
    scales[t] = ValueScale(base, out->scale_codes[t]);
    out->corrections[t] = CorrectionOf(wanted[t], scales[t]);
  }
  for (int level = 0; level < kTqLevels; ++level) {
    if (!HasLevel(book.bits(), level)) {
      out->measured.error[level] = out->measured.error[level - 1];
      continue;
    }
    if (level == 3) {
      for (size_t t = 0; t < kN; ++t) scales[t] = Corrected(scales[t], out->corrections[t]);
    }
    Choose(book, KeptBits(book.bits(), level), out->codes.data(), work);
    out->measured.error[level] = SquaredError(dim, y, work, scales) + tiny;
  }
  return -1;
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
