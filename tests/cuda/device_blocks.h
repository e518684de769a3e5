// Random KV blocks on the host and their copies on the device, for tests and the benchmark.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/base/float16.h"
#include "core/block/object.h"
#include "cuda/block_batch.h"
#include "cuda/memory.h"

namespace quire::cuda {

// The tensors of one block: every stream of every layer in one allocation, token-major or head-major, with
// padded strides.
struct BlockTensors {
  std::vector<uint8_t> host;
  struct Stream {
    size_t offset = 0;  // bytes
    ptrdiff_t token_stride = 0, head_stride = 0;
  };
  std::vector<std::vector<Stream>> streams;  // [layer][stream]
  DType dtype = DType::kBf16;
};

struct TensorForm {
  DType dtype = DType::kBf16;
  bool head_major = false;
  uint32_t pad = 0;  // elements after each row
};

inline BlockTensors MakeTensors(const Layout& layout, const TensorForm& form) {
  BlockTensors tensors;
  tensors.dtype = form.dtype;
  size_t bytes = 0;
  for (const LayerLayout& layer : layout.layers) {
    auto& streams = tensors.streams.emplace_back();
    for (const StreamLayout& stream : layer.streams) {
      ptrdiff_t row = stream.dim + form.pad;
      streams.push_back(
          {bytes, form.head_major ? row : row * stream.heads, form.head_major ? row * kBlockTokens : row});
      bytes += (size_t{kBlockTokens} * stream.heads * row * SizeOf(form.dtype) + 255) / 256 * 256;
    }
  }
  tensors.host.assign(bytes, 0);
  return tensors;
}

template <typename View>
std::vector<View> ViewsOf(const BlockTensors& tensors, uint8_t* base) {
  std::vector<View> views;
  for (const auto& streams : tensors.streams) {
    View view;
    for (size_t i = 0; i < streams.size(); ++i) {
      auto& stream = i == 0 ? view.key : view.value;
      stream.data = base + streams[i].offset;
      stream.dtype = tensors.dtype;
      stream.token_stride = streams[i].token_stride;
      stream.head_stride = streams[i].head_stride;
    }
    views.push_back(view);
  }
  return views;
}

inline float Get(const BlockTensors& tensors, uint32_t layer, uint32_t stream, uint32_t token, uint32_t head,
                 uint32_t c) {
  const auto& s = tensors.streams[layer][stream];
  return LoadElement(tensors.dtype, tensors.host.data() + s.offset,
                     token * s.token_stride + head * s.head_stride + c);
}
inline void Put(BlockTensors* tensors, uint32_t layer, uint32_t stream, uint32_t token, uint32_t head,
                uint32_t c, float value) {
  const auto& s = tensors->streams[layer][stream];
  StoreElement(tensors->dtype, tensors->host.data() + s.offset,
               token * s.token_stride + head * s.head_stride + c, value);
}

// Normal values; vectors of different lengths; K with a mean that one channel in 16 carries.
inline void FillRandom(const Layout& layout, uint32_t seed, float scale, BlockTensors* tensors) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  for (uint32_t l = 0; l < layout.layers.size(); ++l) {
    for (uint32_t s = 0; s < layout.layers[l].streams.size(); ++s) {
      const StreamLayout& stream = layout.layers[l].streams[s];
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        for (uint32_t h = 0; h < stream.heads; ++h) {
          float length = scale * std::exp(0.3f * normal(engine));
          for (uint32_t c = 0; c < stream.dim; ++c) {
            float mean = s == 0 ? (c % 16 == 3 ? 6.0f : 0.5f * static_cast<float>(c * 37 % 5) - 1.0f) : 0.0f;
            Put(tensors, l, s, t, h, c, length * normal(engine) + scale * mean);
          }
        }
      }
    }
  }
}

}  // namespace quire::cuda
