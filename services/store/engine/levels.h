// How many levels of an object answer a reader's wish.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/block/object.h"

namespace quire::store {

// Levels that hold at most `max_bits` bits of every layer's K and V, of `present` ones; at least 1, all for
// max_bits = 0. Level 0 holds two bits, levels 1 and 2 one more each, level 3 all that a layer has.
inline int LevelsForBits(const BlockHeader& header, int present, uint32_t max_bits) {
  if (max_bits == 0) return present;
  uint32_t most = 0;
  for (const LayerCodec& c : header.codecs) most = std::max<uint32_t>({most, c.k_bits, c.v_bits});
  if (max_bits >= most) return present;
  return std::clamp<int>(static_cast<int>(std::min<uint32_t>(max_bits, 4)) - 1, 1, present);
}

// The fewest levels whose measured relative error is at most `error` in every layer's K and V; all where none
// is good enough.
inline int LevelsForError(const BlockHeader& header, int present, float error) {
  if (!(error > 0)) return present;
  for (int level = 0; level < present; ++level) {
    const auto& layers = header.relative_error[level];
    bool good = std::all_of(layers.begin(), layers.end(),
                            [&](const auto& e) { return e[0] <= error && e[1] <= error; });
    if (good) return level + 1;
  }
  return present;
}

}  // namespace quire::store
