// A sample block encoded and decoded again, and how far off that is.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/core/block/sample_block.h"

namespace quire {

struct Coded {
  std::shared_ptr<const BlockCodec> codec;
  std::vector<uint8_t> object;
  BlockReader reader() const {
    auto reader = BlockReader::Open(codec, SampleIdentity(0), object);
    EXPECT_TRUE(reader.ok()) << reader.status();
    EXPECT_TRUE(reader->Verify().ok()) << reader->Verify();
    return *reader;
  }
};

inline Coded Encode(const Layout& layout, const std::string& spec, SampleBlock& block, uint32_t index = 1,
                    std::optional<Part> part = std::nullopt) {
  Coded coded;
  coded.codec = *BlockCodec::Create(layout, part.value_or(Part::Whole(layout)));
  absl::Status status =
      coded.codec->Encode(*CodecSpec::Parse(spec), SampleIdentity(index), block.Views(), &coded.object);
  EXPECT_TRUE(status.ok()) << status;
  return coded;
}

inline SampleBlock Decode(const BlockReader& reader, const SampleBlock& like, int levels) {
  SampleBlock out = like.Blank();
  std::vector<MutableLayerView> views = out.MutableViews();
  for (uint32_t l = 0; l < views.size(); ++l) {
    absl::Status status = reader.DecodeLayer(l, levels, views[l]);
    EXPECT_TRUE(status.ok()) << status;
  }
  return out;
}

// ‖a−b‖²/‖a‖² over tokens from `first` on.
inline double RelativeError(const std::vector<float>& a, const std::vector<float>& b, size_t first = 0) {
  double miss = 0, energy = 0;
  for (size_t i = first * a.size() / 64; i < a.size(); ++i) {
    miss += std::pow(double{a[i]} - b[i], 2);
    energy += double{a[i]} * a[i];
  }
  return energy > 0 ? miss / energy : miss;
}

inline void FillGaussian(SampleBlock& block, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (auto& layer : block.layers) {
    for (float& x : layer.k) x = normal(random);
    for (float& x : layer.v) x = normal(random);
  }
}

}  // namespace quire
