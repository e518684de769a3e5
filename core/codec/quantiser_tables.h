// A codebook as the kernels want it: decision thresholds by step of a binary search, centroids by the
// magnitude of a code's high nibble (core/codec/tiles.h). Every table has room for a whole vector of 16
// floats.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/codec/codebook.h"
#include "core/codec/tq.h"

namespace quire {

struct QuantiserTables {
  // search[i][cell]: what decides bit i of the magnitude, counted from its first, once the bits before it are
  // `cell`.
  alignas(64) float search[kMaxCodeBits - 1][64];
  // search[2] by three bits of magnitude, of which the last is to be found, twice.
  alignas(64) float third[16];
  // kept[l]: centroids of codes cut to KeptBits(min(b, 4), l) bits, by three bits of magnitude, twice.
  // with_signs: by the four bits of a high nibble.
  alignas(64) float kept[kTqLevels - 1][16];
  alignas(64) float with_signs[kTqLevels - 1][16];
  // Centroids of all b bits by the whole magnitude, b − 1 bits of it. For b ≤ 4 those of kept, as there.
  alignas(64) float full[1 << (kMaxCodeBits - 1)];
  float ratio[kTqLevels];  // nominal_ratio of each level to the one before it; 1 where there is no level
  uint32_t dim;
  int bits;

  // Built at the first call for (dim, bits) and kept; thread-safe.
  static const QuantiserTables& Of(const Codebook& book);

 private:
  explicit QuantiserTables(const Codebook& book);
};

}  // namespace quire
