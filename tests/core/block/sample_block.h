// Blocks to encode in tests: tensors made from a counter, the same on every machine.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/block/object.h"

namespace quire {

// The test vectors' generator (core/block/README.md): SplitMix64 of a counter, its top 24 bits as a
// number in [-2, 2).
inline float SampleValue(uint64_t counter) {
  uint64_t z = (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z = z ^ (z >> 31);
  return static_cast<float>(static_cast<int64_t>(z >> 40) - (1 << 23)) / (1 << 22);
}

// All streams of a part, [token][head][channel] each, as float.
struct SampleBlock {
  struct Layer {
    uint32_t heads, k_dim, v_dim;
    std::vector<float> k, v;
  };
  std::vector<Layer> layers;

  // K has a bias of 6 in channel 3, as real keys have.
  SampleBlock(const Layout& layout, const Part& part, uint64_t seed = 0) {
    uint64_t counter = seed << 32;
    for (uint32_t l = part.layer_begin; l < part.layer_end; ++l) {
      const LayerLayout& shape = layout.layers[l];
      Layer& layer =
          layers.emplace_back(Layer{part.HeadsOf(shape), shape.key_dim(), shape.value_dim(), {}, {}});
      layer.k.resize(size_t{64} * layer.heads * layer.k_dim);
      layer.v.resize(size_t{64} * layer.heads * layer.v_dim);
      for (size_t i = 0; i < layer.k.size(); ++i)
        layer.k[i] = SampleValue(counter++) + (i % layer.k_dim == 3 ? 6.0f : 0.0f);
      for (float& x : layer.v) x = SampleValue(counter++);
    }
  }

  template <typename View>
  std::vector<View> ViewsAs() {
    std::vector<View> views;
    for (Layer& l : layers) {
      View view;
      view.key = {l.k.data(), DType::kF32, static_cast<ptrdiff_t>(l.heads * l.k_dim),
                  static_cast<ptrdiff_t>(l.k_dim)};
      view.value = {l.v.data(), DType::kF32, static_cast<ptrdiff_t>(l.heads * l.v_dim),
                    static_cast<ptrdiff_t>(l.v_dim)};
      views.push_back(view);
    }
    return views;
  }
  std::vector<LayerView> Views() { return ViewsAs<LayerView>(); }
  std::vector<MutableLayerView> MutableViews() { return ViewsAs<MutableLayerView>(); }

  // The same shapes, all 77.
  SampleBlock Blank() const {
    SampleBlock blank = *this;
    for (Layer& l : blank.layers) {
      l.k.assign(l.k.size(), 77.0f);
      l.v.assign(l.v.size(), 77.0f);
    }
    return blank;
  }
};

inline BlockIdentity SampleIdentity(uint32_t index) {
  BlockIdentity identity;
  identity.parent.bytes.fill(0x11);
  identity.key.bytes.fill(0x22);
  identity.index = index;
  return identity;
}

inline Layout SampleLayout(uint32_t layers, uint32_t heads, uint32_t dim, DType dtype = DType::kBf16) {
  Digest model;
  model.bytes.fill(0xAB);
  Layout layout = Layout::Uniform(model, layers, heads, dim);
  layout.dtype = dtype;
  layout.rotation_seed = 42;
  return layout;
}

}  // namespace quire
