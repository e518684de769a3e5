// Real text for tests: the repository's licence (QUIRE_LICENSE).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"

namespace quire::worker {

inline std::vector<uint32_t> LicenseTokens(const Tokenizer& tokenizer, size_t n) {
  std::ifstream file(QUIRE_LICENSE);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  auto tokens = tokenizer.Encode(text, false, false);
  EXPECT_TRUE(tokens.ok() && tokens->size() >= n) << tokens.status();
  tokens->resize(n);
  return *tokens;
}

}  // namespace quire::worker
