#include "core/codec/quantiser_tables.h"

#include <array>
#include <memory>
#include <mutex>

namespace quire {

QuantiserTables::QuantiserTables(const Codebook& book)
    : search{}, third{}, kept{}, with_signs{}, full{}, dim(book.dim()), bits(book.bits()) {
  int steps = bits - 1;
  for (int i = 0; i < steps; ++i) {
    for (uint32_t cell = 0; cell < 1u << i; ++cell) {
      uint32_t first = cell << (steps - i), step = 1u << (steps - 1 - i);
      search[i][cell] = book.float_thresholds()[first + step - 1];
    }
  }
  for (uint32_t magnitude = 0; magnitude < 16; ++magnitude) third[magnitude] = search[2][(magnitude & 7) / 2];
  for (int level = 0; level < kTqLevels - 1; ++level) {
    int bits_kept = KeptBits(std::min(bits, 4), level);
    for (uint32_t magnitude = 0; magnitude < 8; ++magnitude) {
      // Three bits of magnitude hold bits_kept − 1 of them at the top.
      float centroid = book.table(bits_kept)[magnitude >> (4 - bits_kept)];
      kept[level][magnitude] = kept[level][magnitude + 8] = with_signs[level][magnitude] = centroid;
      with_signs[level][magnitude + 8] = -centroid;
    }
  }
  if (bits > 4) {
    std::copy_n(book.table(bits), size_t{1} << steps, full);
  } else {
    std::copy_n(kept[kTqLevels - 2], 16, full);
  }
  for (int level = 0; level < kTqLevels; ++level) {
    ratio[level] = level > 0 && HasLevel(bits, level)
                       ? book.nominal_ratio(KeptBits(bits, level - 1), KeptBits(bits, level))
                       : 1.0f;
  }
}

const QuantiserTables& QuantiserTables::Of(const Codebook& book) {
  struct Slot {
    std::once_flag once;
    std::unique_ptr<const QuantiserTables> tables;
  };
  static auto* slots = new std::array<std::array<Slot, kMaxCodeBits + 1>, kMaxCodecDim / kCodecDimStep + 1>();
  Slot& slot = (*slots)[book.dim() / kCodecDimStep][book.bits()];
  std::call_once(slot.once, [&] { slot.tables.reset(new QuantiserTables(book)); });
  return *slot.tables;
}

}  // namespace quire
