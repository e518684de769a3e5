// Small layouts that cover the format: head sizes, latents, layers with fewer heads, dtypes.
#pragma once

#include <vector>

#include "core/block/layout.h"

namespace quire::fuzz {

inline LayerLayout KeyValue(uint32_t heads, uint32_t key_dim, uint32_t value_dim) {
  return {{{StreamKind::kKey, heads, key_dim, 0}, {StreamKind::kValue, heads, value_dim, 0}}};
}

inline const std::vector<Layout>& Layouts() {
  static const std::vector<Layout> layouts = [] {
    std::vector<Layout> all(4);
    all[0].layers = {KeyValue(1, 16, 16)};
    all[1].layers = {KeyValue(2, 16, 48), KeyValue(1, 32, 16)};
    all[1].dtype = DType::kF16;
    all[2].layers = {{{{StreamKind::kLatent, 1, 80, 0}}}};
    all[2].dtype = DType::kF32;
    all[2].rotation_seed = 7;
    all[3].layers = {KeyValue(1, 64, 64), {{{StreamKind::kLatent, 2, 16, 0}}}};
    return all;
  }();
  return layouts;
}

}  // namespace quire::fuzz
