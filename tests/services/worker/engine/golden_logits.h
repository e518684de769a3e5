// Golden logits as golden_logits.py and golden_gemma3.py write them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "core/base/bytes.h"

namespace quire::worker {

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

struct GoldenLogits {
  struct Top {
    std::vector<uint32_t> ids;
    std::vector<float> logits;
  };
  std::vector<uint32_t> tokens, rounded_top;
  std::vector<Top> tops;

  explicit GoldenLogits(const std::string& path) {
    const std::string bytes = ReadFile(path);
    ByteReader reader(AsBytes(bytes));
    EXPECT_EQ(AsString(reader.GetBytes(4)), "QGL1");
    const uint32_t n = reader.Get<uint32_t>(), k = reader.Get<uint32_t>();
    for (uint32_t i = 0; i < n; ++i) tokens.push_back(reader.Get<uint32_t>());
    for (uint32_t i = 0; i < n; ++i) rounded_top.push_back(reader.Get<uint32_t>());
    tops.resize(n);
    for (Top& top : tops) {
      for (uint32_t i = 0; i < k; ++i) top.ids.push_back(reader.Get<uint32_t>());
      for (uint32_t i = 0; i < k; ++i) top.logits.push_back(reader.Get<float>());
    }
    EXPECT_TRUE(reader.ok() && reader.remaining() == 0);
  }
};

inline uint32_t BestToken(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace quire::worker
