// A small layout and sequences filled with made-up keys and values, for tests that need no model.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "core/base/float16.h"
#include "core/block/keys.h"
#include "core/block/object.h"
#include "services/worker/engine/kv_sequence.h"

namespace quire::worker {

inline constexpr uint32_t kLayers = 2, kKvHeads = 2, kDim = 64, kVocabulary = 1000;

// `window`: the sliding window of layer 1.
inline std::shared_ptr<const BlockCodec> SmallCodec(uint32_t window = 0) {
  Layout layout = Layout::Uniform(Digest{}, kLayers, kKvHeads, kDim);
  for (StreamLayout& stream : layout.layers[1].streams) stream.sliding_window = window;
  auto codec = BlockCodec::Create(layout, Part::Whole(layout));
  EXPECT_TRUE(codec.ok()) << codec.status();
  return *codec;
}

inline CodecSpec Spec(const char* text) {
  auto spec = CodecSpec::Parse(text);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

inline std::vector<uint32_t> SomeTokens(size_t n) {
  std::vector<uint32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), 0u);
  for (uint32_t& token : tokens) token = (token * 37 + 11) % kVocabulary;
  return tokens;
}

// Keeps a copy of every K and V it writes (values that bf16 holds exactly): an oracle's memory.
struct Writer {
  std::mt19937 random{7};
  std::vector<float> k, v;  // [position][layer][head][channel]

  static size_t At(uint32_t position, uint32_t layer, uint32_t head) {
    return ((static_cast<size_t>(position) * kLayers + layer) * kKvHeads + head) * kDim;
  }
  // Fills the positions that kv has reserved. Keys get a common offset, as a model's do.
  void Fill(KvSequence& kv) {
    std::normal_distribution<float> normal;
    k.resize(At(kv.reserved_end(), 0, 0));
    v.resize(k.size());
    for (uint32_t p = kv.length(); p < kv.reserved_end(); ++p) {
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        for (uint32_t head = 0; head < kKvHeads; ++head) {
          const size_t at = At(p, layer, head);
          for (uint32_t c = 0; c < kDim; ++c) {
            k[at + c] = FromBf16(ToBf16(normal(random) + 0.1f * static_cast<float>(c % 7)));
            v[at + c] = FromBf16(ToBf16(normal(random)));
          }
          kv.StoreKv(layer, head, p, k.data() + at, v.data() + at);
        }
      }
    }
  }
  // Appends n tokens in one chunk.
  void Append(KvSequence& kv, std::span<const uint32_t> tokens) {
    ASSERT_TRUE(kv.Reserve(tokens).ok());
    Fill(kv);
    ASSERT_TRUE(kv.Commit().ok());
  }
};

inline KvSequence NewSequence(std::shared_ptr<const BlockCodec> codec, const CodecSpec& spec,
                              KvSequence::Mode mode = KvSequence::Mode::kServing) {
  const Digest root = RootKey(codec->fingerprint(), "salt");
  return KvSequence(std::move(codec), spec, nullptr, root, {.context = 4096, .vocabulary = kVocabulary},
                    mode);
}

}  // namespace quire::worker
