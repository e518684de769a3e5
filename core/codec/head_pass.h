// Inside core/codec: what the encoding kernels are given, and the parts of them that are one token at a time.
#pragma once

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
};

// V's scales from the wanted ones, of which `largest` is the greatest: base, codes and corrections to *out; the scales after
// level 0 and, with their corrections, after level 3.
void ChooseValueScales(float largest, const float* wanted, TqValue* out, float* scales, float* corrected);

}  // namespace quire
