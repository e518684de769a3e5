// Golden ids of the original SentencePiece: make_sentencepiece_golden.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/text/tokenizer.h"
#include "tests/core/text/real_model.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const json& Golden() {
  static const json golden =
      json::parse(std::ifstream(std::string(QUIRE_TEXT_TESTS) + "/golden/sentencepiece.json"));
  return golden;
}

GgufBuilder Vocabulary(const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                       const std::vector<float>& scores) {
  GgufBuilder b;
  b.String("tokenizer.ggml.model", "llama").String("tokenizer.ggml.pre", "default");
  b.Strings("tokenizer.ggml.tokens", tokens).I32s("tokenizer.ggml.token_type", types);
  b.F32s("tokenizer.ggml.scores", scores);
  return b;
}

class SentencePieceGolden : public testing::TestWithParam<const char*> {
 protected:
  const json& Fields() const {
    for (const json& v : Golden()["vocabularies"]) {
      if (v["name"] == GetParam()) return v;
    }
    ADD_FAILURE() << GetParam();
    return Golden();
  }
};

TEST_P(SentencePieceGolden, CorpusHasTheSameIds) {
  const json& fields = Fields();
  GgufBuilder builder = Vocabulary(fields["tokens"], fields["types"], fields["scores"]);
  builder.U32("tokenizer.ggml.unknown_token_id", 0).U32("tokenizer.ggml.bos_token_id", 1);
  if (!fields["space_prefix"]) builder.Bool("tokenizer.ggml.add_space_prefix", false);
  auto tokenizer = MakeTokenizer(builder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const json& golden : Golden()["cases"]) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    const std::string text = golden["text"];
    auto ids = (*tokenizer)->Encode(text, false, false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, golden[GetParam()].get<std::vector<uint32_t>>());
    if (std::string(GetParam()) != "unknown") {
      EXPECT_GE(ids->size(), text.size() / (*tokenizer)->longest_token());
      if (golden["name"] != "raw U+2581") {
        EXPECT_EQ(*(*tokenizer)->Decode(*ids, false), text);
      }
    }
    ids->insert(ids->begin(), 1);
    EXPECT_EQ(*(*tokenizer)->Encode(text, false, true), *ids) << "BOS by default";
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, SentencePieceGolden, testing::Values("plain", "prefix", "unknown"));

// a, b, ab and a space, joined in the order of their scores; a control and a user-defined token.
GgufBuilder Small() {
  return Vocabulary({"<unk>", "<s>", "<user>", "a", "b", "ab", "ba", "\u2581", "\u2581a", "<0x63>"},
                    {2, 3, 4, 1, 1, 1, 1, 1, 1, 6}, {0, 0, 0, -1, -1, -3, -2, -9, -4, 0});
}

TEST(SentencePiece, HigherScoresMergeFirstOfEqualsTheLeftmost) {
  auto t = *MakeTokenizer(
      Small().U32("tokenizer.ggml.bos_token_id", 1).Bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(*t->Encode("aba", false, false), ElementsAre(3, 6));
  EXPECT_THAT(*t->Encode("babab", false, false), ElementsAre(6, 6, 4));
  EXPECT_THAT(*t->Encode(" ab", false, false), ElementsAre(7, 5));
  EXPECT_THAT(*t->Encode("ac", false, false), ElementsAre(3, 9));
}

TEST(SentencePiece, ControlTokensAreFoundWhenAskedAndAPrefixFollowsThem) {
  auto t = *MakeTokenizer(Small().U32("tokenizer.ggml.bos_token_id", 1));
  EXPECT_THAT(*t->Encode("a<s>a<user>a", true, true), ElementsAre(1, 8, 1, 8, 2, 3));
  EXPECT_THAT(*t->Encode("<s>", true, false), ElementsAre(1));
  EXPECT_THAT(*t->Encode("<user>", false, false), ElementsAre(7, 2));
  EXPECT_EQ(*t->Decode(std::vector<uint32_t>{1, 8, 1, 8, 2, 3}, true), "aa<user>a");
  EXPECT_TRUE(t->Encode("", true, false)->empty());
  auto plain = *MakeTokenizer(
      Small().U32("tokenizer.ggml.bos_token_id", 1).Bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(*plain->Encode("a<s>a<user>a", true, false), ElementsAre(3, 1, 3, 2, 3));
  EXPECT_EQ(*plain->Decode(std::vector<uint32_t>{8, 1, 8}, true), " a a");
}

TEST(SentencePiece, UnknownCharactersAreOneTokenOrLeftOut) {
  GgufBuilder b =
      Small().U32("tokenizer.ggml.bos_token_id", 1).Bool("tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(*(*MakeTokenizer(b))->Encode("axyzbc\u00e9", false, false), ElementsAre(3, 4, 9));
  b.U32("tokenizer.ggml.unknown_token_id", 0);
  EXPECT_THAT(*(*MakeTokenizer(b))->Encode("axyzbc\u00e9", false, false), ElementsAre(3, 0, 4, 9, 0));
}

TEST(SentencePiece, WhatIsNotSupportedOrWrongIsNamed) {
  auto expect = [](const GgufBuilder& b, absl::StatusCode code, const std::string& words) {
    absl::Status status = MakeTokenizer(b).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  expect(GgufBuilder().String("tokenizer.ggml.model", "llama").Strings("tokenizer.ggml.tokens", {"a"}),
         kInvalid, "'tokenizer.ggml.scores' is missing");
  expect(Vocabulary({"a", "b"}, {1, 1}, {0}), kInvalid, "'tokenizer.ggml.scores' has 1 entries for 2 tokens");
  expect(Vocabulary({"a", "b"}, {1, 1}, {0, NAN}), kInvalid, "token 1 has score NaN");
  expect(Vocabulary({"a", "<0x4>"}, {1, 6}, {0, 0}), kInvalid, "token 1 '<0x4>' is no byte");
  expect(Small().U32("tokenizer.ggml.unknown_token_id", 10), kInvalid,
         "'tokenizer.ggml.unknown_token_id' is 10");
  expect(Small(), kInvalid, "wants a BOS token");
  expect(Small().Bool("tokenizer.ggml.remove_extra_whitespaces", true), kUnimplemented,
         "remove_extra_whitespaces");
  expect(Small().Strings("tokenizer.ggml.precompiled_charsmap", {}), kUnimplemented, "precompiled_charsmap");
}

TEST(SentencePiece, LargeTextsTakeLinearTime) {
  const json& fields = Golden()["vocabularies"][0];
  auto t = MakeTokenizer(Vocabulary(fields["tokens"], fields["types"], fields["scores"])
                             .U32("tokenizer.ggml.bos_token_id", 1)
                             .Bool("tokenizer.ggml.add_space_prefix", false));
  ASSERT_TRUE(t.ok()) << t.status();
  // Quadratic work on 1 MiB would take hours, so the bound can be generous to slow machines.
  constexpr size_t kSize = 1 << 20;
  std::string nonsense(kSize, ' ');
  for (size_t i = 0; i < kSize; ++i) nonsense[i] = static_cast<char>('a' + (i * 2654435761u >> 20) % 26);
  for (const std::string& text :
       {std::string(kSize, ' '), std::string(kSize, 'a'), std::string(kSize, '\n'), nonsense}) {
    auto begin = std::chrono::steady_clock::now();
    auto ids = (*t)->Encode(text, true, false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*(*t)->Decode(*ids, false), text);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << text.substr(0, 8);
  }
}

TEST(SentencePiece, RealGemmaVocabularyHasTheSameIds) {
  const char* path = std::getenv("QUIRE_GEMMA_MODEL");
  if (path == nullptr || !std::filesystem::exists(path)) {
    GTEST_SKIP() << "no model at QUIRE_GEMMA_MODEL; `make gemma` fetches it";
  }
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  auto t = Tokenizer::FromGguf(**file);
  ASSERT_TRUE(t.ok()) << t.status();
  std::map<std::string, std::string> texts;
  for (const json& c : Golden()["cases"]) texts[c["name"]] = c["text"];
  json golden = json::parse(std::ifstream(std::string(QUIRE_TEXT_TESTS) + "/golden/gemma.json"));
  ASSERT_GT(golden.size(), 20u);
  for (const json& c : golden) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const std::string text = texts.at(c["name"]);
    std::vector<uint32_t> wanted = c["ids"], ids = *(*t)->Encode(text, false, false);
    EXPECT_EQ(ids, wanted);
    if (c["name"] != "raw U+2581") {
      EXPECT_EQ(*(*t)->Decode(ids, false), text);
    }
  }
  EXPECT_THAT(*(*t)->Encode("<start_of_turn>user\nHi<end_of_turn>\n", true, true),
              ElementsAre(2, 105, 2364, 107, 10979, 106, 107));
  EXPECT_THAT((*t)->end_tokens(), ElementsAre(1, 106));
}

}  // namespace
}  // namespace quire
