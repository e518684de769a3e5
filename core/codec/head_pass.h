// Inside core/codec: what the encoding kernels are given, and the parts of them that are one token at a time.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "core/base/dtype.h"
#include "core/codec/planes.h"
#include "core/codec/quantiser_tables.h"
#include "core/codec/rotation.h"
#include "core/codec/tiles.h"
#include "core/codec/tq.h"

namespace quire {

// A vector whose squared norm is below this is coded as zero: its products would leave float's normal range.
inline constexpr float kTinyEnergy = 0x1p-100f;
inline constexpr float kCorrectionStep = 0x1p-10f, kMaxCorrection = 127;
inline constexpr float kLargestFloat = std::numeric_limits<float>::max();

struct EncodePass {
  const QuantiserTables* tables;
  int effort;
  uint32_t first_token;
  Tiles y;
  CodeWords* words;
  // 64 pointers to rows of rows_dtype; null: y is rotated input.
  const uint8_t* const* rows;
  DType rows_dtype;
  RotationTables rotation;
  const uint8_t* const* next_rows;  // 64 rows that will be wanted after these, or null
  const float* feedback;            // a QueryShape's, or null
  float* targets;                   // [d][16], where there is feedback
};

// DecodeHead's arguments, and 64 pointers to rows.
struct DecodePass {
  const RotationTables* rotation;  // null: none
  const QuantiserTables* tables;
  int kept;
  FragmentOrder order;
  const uint8_t* const* planes;
  const float *scales, *mean;
  const uint32_t* flips;
  DType dtype;
  uint8_t* const* rows;
  bool finite;                      // no NaN can come out
  const uint8_t* const* next_rows;  // 16 rows that are written after these, or null
  bool past_caches;                 // rows begin on 64 bytes and are not read soon
};

// 2^(−code/16) by code, from the sixteen roots rounded to float.
inline constexpr std::array<float, 256> kScalePowers = [] {
  constexpr float kSixteenths[16] = {0x1.000000p+0f, 0x1.ea4afap-1f, 0x1.d5818ep-1f, 0x1.c199bep-1f,
                                     0x1.ae89fap-1f, 0x1.9c4918p-1f, 0x1.8ace54p-1f, 0x1.7a1148p-1f,
                                     0x1.6a09e6p-1f, 0x1.5ab07ep-1f, 0x1.4bfdaep-1f, 0x1.3dea64p-1f,
                                     0x1.306fe0p-1f, 0x1.2387a6p-1f, 0x1.172b84p-1f, 0x1.0b5586p-1f};
  std::array<float, 256> powers{};
  for (int code = 0; code < kZeroScaleCode; ++code) {
    powers[code] = kSixteenths[code % 16] / static_cast<float>(1 << code / 16);
  }
  return powers;
}();

// 2^((2i+1)/32): where −16·log2 of a mantissa passes a half.
inline constexpr double kScaleHalves[16] = {
    0x1.059b0d3158574p+0, 0x1.11301d0125b51p+0, 0x1.1d4873168b9aap+0, 0x1.29e9df51fdee1p+0,
    0x1.371a7373aa9cbp+0, 0x1.44e086061892dp+0, 0x1.5342b569d4f82p+0, 0x1.6247eb03a5585p+0,
    0x1.71f75e8ec5f74p+0, 0x1.82589994cce13p+0, 0x1.93737b0cdc5e5p+0, 0x1.a5503b23e255dp+0,
    0x1.b7f76f2fb5e47p+0, 0x1.cb720dcef9069p+0, 0x1.dfc97337b9b5fp+0, 0x1.f50765b6e4540p+0};

inline float ValueScale(float base, uint8_t code) {
  return code == kZeroScaleCode ? 0 : base * kScalePowers[code];
}

}  // namespace quire
