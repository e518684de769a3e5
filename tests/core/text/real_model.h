// The real model's tokenizer, and variants of it, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/text/tokenizer.h"
#include "tests/core/model/gguf_builder.h"

namespace quire {

inline const GgufFile& RealModel() {
  static const std::shared_ptr<const GgufFile> file = [] {
    const char* path = std::getenv("QUIRE_MODEL");  // set by ctest
    auto opened = GgufFile::Open(path == nullptr ? "(QUIRE_MODEL is not set)" : path);
    if (!opened.ok()) {
      ADD_FAILURE() << opened.status();
      std::exit(1);
    }
    return *opened;
  }();
  return *file;
}

// A GGUF with the real model's vocabulary, to which a test adds the rest; `pre` is the pre-tokenizer it
// names.
inline GgufBuilder RealVocabulary(std::string_view pre) {
  GgufBuilder b;
  auto strings = [&](std::string_view key) {
    auto values = RealModel().GetStrings(key);
    b.Strings(key, std::vector<std::string>(values->begin(), values->end()));
  };
  b.String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", pre);
  strings("tokenizer.ggml.tokens");
  strings("tokenizer.ggml.merges");
  auto types = RealModel().GetInts("tokenizer.ggml.token_type");
  b.I32s("tokenizer.ggml.token_type", std::vector<int32_t>(types->begin(), types->end()));
  return b;
}

inline absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeTokenizer(const GgufBuilder& builder) {
  std::vector<uint8_t> bytes = builder.Build();
  auto file = GgufFile::Parse(bytes);
  if (!file.ok()) return file.status();
  return Tokenizer::FromGguf(**file);
}

inline std::shared_ptr<const Tokenizer> RealTokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = *Tokenizer::FromGguf(RealModel());
  return tokenizer;
}

}  // namespace quire
