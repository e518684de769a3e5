#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/base/utf8.h"
#include "tests/core/text/real_model.h"

namespace quire {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes as Unicode's recommended practice decodes them, written over whole strings rather than a stream:
// longest valid prefixes.
std::string Lossy(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    size_t best = 0;
    for (size_t n = 1; n <= std::min<size_t>(4, bytes.size()); ++n) {
      if (!FindInvalidUtf8(bytes.substr(0, n))) {
        best = n;
        break;
      }
    }
    if (best > 0) {
      out += bytes.substr(0, best);
    } else {
      // The maximal subpart: the longest run that some valid character starts with, at least one byte.
      best = 1;
      for (size_t n = 2; n <= std::min<size_t>(3, bytes.size()); ++n) {
        bool begins = false;
        for (uint32_t tail = 0; tail < 64 * 64 && !begins; ++tail) {
          std::string whole(bytes.substr(0, n));
          whole.push_back(static_cast<char>(0x80 | tail % 64));
          begins = !FindInvalidUtf8(whole);
          whole.push_back(static_cast<char>(0x80 | tail / 64));
          begins = begins || !FindInvalidUtf8(whole);
        }
        if (!begins) break;
        best = n;
      }
      out += kReplacement;
    }
    bytes.remove_prefix(best);
  }
  return out;
}

TEST(StreamDecoder, TextComesInWholeCharactersAndIsTheWholeText) {
  const std::string text =
      "Grüße, 世界! 👩‍👩‍👧‍👦 𝒜𝔅 e\xCC\x81 Кириллица नमस्ते \U0001FAE0 ᚠᚢᚦ \t\n "
      "12345 "
      "العربية "
      "가각 "
      "𓀀";
  auto ids = *RealTokenizer()->Encode(text, false, false);
  StreamDecoder decoder(RealTokenizer());
  std::string all;
  bool held_back = false;
  for (uint32_t id : ids) {
    std::string piece = decoder.Push(id);
    EXPECT_FALSE(FindInvalidUtf8(piece)) << "half a character";
    held_back |= piece.empty();
    all += piece;
  }
  EXPECT_EQ(decoder.Flush(), "");
  EXPECT_EQ(all, text);
  EXPECT_EQ(all, *RealTokenizer()->Decode(ids, true));
  EXPECT_TRUE(held_back) << "no character was split: the test proves nothing";
}

TEST(StreamDecoder, SpecialTokensAreSkippedOrShown) {
  auto ids = *RealTokenizer()->Encode("a<|im_end|>b", true, false);
  for (bool skip : {true, false}) {
    StreamDecoder decoder(RealTokenizer(), skip);
    std::string all;
    for (uint32_t id : ids) all += decoder.Push(id);
    EXPECT_EQ(all + decoder.Flush(), skip ? "ab" : "a<|im_end|>b");
  }
}

// A vocabulary of all 256 bytes, so that any bytes can be streamed.
std::shared_ptr<const Tokenizer> ByteVocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    snprintf(name, sizeof(name), "<0x%02X>", byte);
    tokens.push_back(name);
  }
  GgufBuilder b;
  b.String("tokenizer.ggml.model", "gpt2")
      .Strings("tokenizer.ggml.tokens", tokens)
      .Strings("tokenizer.ggml.merges", {});
  b.I32s("tokenizer.ggml.token_type", std::vector<int32_t>(256, 6));
  return *MakeTokenizer(b);
}

std::string StreamBytes(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view bytes) {
  StreamDecoder decoder(tokenizer);
  std::string all;
  for (char c : bytes) {
    std::string piece = decoder.Push(static_cast<uint8_t>(c));
    EXPECT_FALSE(FindInvalidUtf8(piece));
    all += piece;
  }
  return all + decoder.Flush();
}

TEST(StreamDecoder, WhatCannotBecomeACharacterIsReplaced) {
  auto bytes = ByteVocabulary();
  const std::string r(kReplacement);
  EXPECT_EQ(StreamBytes(bytes, "a\xFFz"), "a" + r + "z");
  EXPECT_EQ(StreamBytes(bytes, "\x80\x80"), r + r);
  EXPECT_EQ(StreamBytes(bytes, "\xE2\x82"), r);         // cut by the end
  EXPECT_EQ(StreamBytes(bytes, "\xE2\x82z"), r + "z");  // cut by a letter
  EXPECT_EQ(StreamBytes(bytes, "\xE2\x82\xE2\x82\xAC"), r + "\xE2\x82\xAC");
  EXPECT_EQ(StreamBytes(bytes, "\xF0\x9F\x91"), r);
  EXPECT_EQ(StreamBytes(bytes, "\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(StreamBytes(bytes, "\xC0\xAF"), r + r);          // overlong
  EXPECT_EQ(StreamBytes(bytes, "\xF4\x90\x80\x80"), r + r + r + r);
}

TEST(StreamDecoder, AnyBytesGiveWhatDecodingThemAtOnceGives) {
  auto bytes = ByteVocabulary();
  constexpr std::string_view kLikely =
      "a\x80\xBF\xC2\xDF\xE0\xA0\xE2\x82\xAC\xED\x9F\xEF\xBB\xF0\x90\x9F\xF4\x8F\xF5\xFF";
  for (uint32_t seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    std::string text;
    for (uint32_t n = random() % 16; n > 0; --n) text.push_back(kLikely[random() % kLikely.size()]);
    EXPECT_EQ(StreamBytes(bytes, text), Lossy(text)) << seed;
  }
}

TEST(StreamDecoder, UnknownTokensAreEmpty) {
  StreamDecoder decoder(RealTokenizer());
  EXPECT_EQ(decoder.Push(~0u), "");
  EXPECT_EQ(decoder.Flush(), "");
}

}  // namespace
}  // namespace quire
