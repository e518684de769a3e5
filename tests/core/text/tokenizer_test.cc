// Golden ids of an independent implementation: make_tokenizer_golden.py.
#include "core/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/core/text/real_model.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json Golden(const std::string& name) {
  std::ifstream file(std::string(QUIRE_TEXT_TESTS) + "/golden/" + name);
  return json::parse(file);
}

std::string Utf8(uint32_t c) {
  std::string out;
  if (c < 0x80) return {static_cast<char>(c)};
  int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr uint8_t kLeads[] = {0, 0xC0, 0xE0, 0xF0};
  out.push_back(static_cast<char>(kLeads[more] | c >> 6 * more));
  while (more-- > 0) out.push_back(static_cast<char>(0x80 | (c >> 6 * more & 0x3F)));
  return out;
}

// What the vocabulary has no token for is lost on the way; all else must come back.
std::string WithoutLostBytes(std::string text) {
  std::erase_if(text, [](char c) {
    return std::string_view("\x04\x06\x13\x14\x16\x1D\xF1\xF2").find(c) != std::string_view::npos;
  });
  return text;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const Tokenizer> tokenizer_ =
      std::string(GetParam()) == "smollm"
          ? RealTokenizer()
          : *MakeTokenizer(RealVocabulary(GetParam()).Bool("tokenizer.ggml.add_bos_token", false));
};

TEST_P(TokenizerGolden, CorpusHasTheSameIds) {
  for (const json& golden : Golden("corpus.json")) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    std::string text = golden["text"];
    std::vector<uint32_t> wanted = golden.contains(GetParam()) ? golden[GetParam()] : golden["smollm"];
    auto ids = tokenizer_->Encode(text, false, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, wanted);
    if (std::string(GetParam()) != "qwen2") {  // which composes characters first
      EXPECT_EQ(*tokenizer_->Decode(*ids, false), WithoutLostBytes(text));
    }
  }
}

TEST_P(TokenizerGolden, EveryAssignedCharacterHasTheSameIds) {
  json golden = Golden("sweep.json");
  if (!golden.contains(GetParam())) GTEST_SKIP() << "as smollm";
  std::map<uint32_t, std::string> blocks;  // text by code point / 256
  for (const auto& range : golden["ranges"]) {
    for (uint32_t c = range[0]; c <= range[1].get<uint32_t>(); ++c) {
      std::string u = Utf8(c);
      blocks[c >> 8] += " a" + u + "b" + u + u + " 7" + u + "\n";
    }
  }
  std::istringstream digests(golden[GetParam()].get<std::string>());
  for (const auto& [block, text] : blocks) {
    std::string wanted;
    digests >> wanted;
    auto ids = tokenizer_->Encode(text, false, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    Digest digest =
        Sha256().Update(Bytes(reinterpret_cast<const uint8_t*>(ids->data()), ids->size() * 4)).Finish();
    EXPECT_EQ(digest.Hex().substr(0, 8), wanted) << "U+" << std::hex << (block << 8);
    if (std::string(GetParam()) != "qwen2") {
      EXPECT_EQ(*tokenizer_->Decode(*ids, true), WithoutLostBytes(text));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PreTokenizers, TokenizerGolden,
                         testing::Values("smollm", "gpt-2", "llama-bpe", "qwen2"), [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Tokenizer, SpecialTextIsParsedOnlyWhenAskedFor) {
  const Tokenizer& t = *RealTokenizer();
  size_t with_specials = 0;
  for (const json& golden : Golden("corpus.json")) {
    std::vector<uint32_t> wanted = golden.contains("special") ? golden["special"] : golden["smollm"];
    with_specials += golden.contains("special");
    EXPECT_EQ(*t.Encode(golden["text"].get<std::string>(), true, true), wanted) << golden["name"];
    std::vector<uint32_t> plain = *t.Encode(golden["text"].get<std::string>(), false, true);
    for (uint32_t id : plain) EXPECT_FALSE(t.IsSpecial(id)) << golden["name"];
  }
  EXPECT_GE(with_specials, 5u);
  EXPECT_THAT(*t.Encode("<|im_end|>", true, true), ElementsAre(2));
  EXPECT_EQ(*t.Decode(*t.Encode("a<|im_end|>b", true, true), true), "ab");
  EXPECT_EQ(*t.Decode(*t.Encode("a<|im_end|>b", true, true), false), "a<|im_end|>b");
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer& t = *RealTokenizer();
  EXPECT_EQ(t.vocabulary(), 49152u);
  EXPECT_EQ(t.bos(), 1u);
  EXPECT_EQ(t.eos(), 2u);
  EXPECT_EQ(t.TokenId("<|im_start|>"), 1u);
  EXPECT_EQ(t.TokenId("hello"), std::nullopt);
  EXPECT_THAT(t.end_tokens(), ElementsAre(0, 2));
  EXPECT_TRUE(t.IsSpecial(16));
  EXPECT_FALSE(t.IsSpecial(17));
  EXPECT_FALSE(t.IsSpecial(1u << 31));
  EXPECT_EQ(t.TokenBytes(2), "<|im_end|>");
  EXPECT_GE(t.longest_token(), 16u);
  for (uint32_t id = 0; id < t.vocabulary(); ++id) ASSERT_LE(t.TokenBytes(id).size(), t.longest_token());
}

TEST(Tokenizer, RefusesWhatIsNotUtf8AndSaysWhere) {
  struct {
    std::string text;
    int offset;
  } const cases[] = {{"\xFF", 0},
                     {"abc\x80", 3},
                     {"ab\xC3", 2},            // cut
                     {"x\xC0\xAF", 1},         // overlong
                     {"\xE0\x80\x80", 0},      // overlong
                     {"1234\xED\xA0\x80", 4},  // a surrogate
                     {"\xF4\x90\x80\x80", 0},  // beyond U+10FFFF
                     {"\xE2\x82\xAC\xE2\x82", 3},
                     {std::string(100000, 'a') + "\xFE", 100000}};
  for (const auto& c : cases) {
    for (bool special : {false, true}) {
      absl::Status status = RealTokenizer()->Encode(c.text, special, true).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr("offset " + std::to_string(c.offset) + " "));
    }
  }
}

TEST(Tokenizer, DecodeRefusesForeignIds) {
  absl::Status status = RealTokenizer()->Decode(std::vector<uint32_t>{5, 49152}, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "token 49152 is outside the vocabulary of 49152 tokens");
}

// A vocabulary for the rules that the real model does not show: a, b, ab, a user-defined and a control token.
GgufBuilder SmallVocabulary(std::string_view pre = "gpt-2") {
  GgufBuilder b;
  b.String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", pre);
  b.Strings("tokenizer.ggml.tokens", {"a", "b", "ab", "abba", "<user>", "<user>>", "<ctl>", "Ġ", "<0x41>"});
  b.I32s("tokenizer.ggml.token_type", {1, 1, 1, 1, 4, 3, 3, 1, 6});
  b.Strings("tokenizer.ggml.merges", {"a b"});
  return b;
}

TEST(Tokenizer, UserDefinedTokensAreAlwaysFoundControlTokensWhenAsked) {
  auto t = *MakeTokenizer(SmallVocabulary());
  EXPECT_THAT(*t->Encode("ab<user>a", false, false), ElementsAre(2, 4, 0));
  EXPECT_THAT(*t->Encode("ab<user>>a<ctl>", true, false), ElementsAre(2, 5, 0, 6));
  EXPECT_THAT(*t->Encode("a<user>>b<ctl>", false, false), ElementsAre(0, 4, 1));
  EXPECT_EQ(*t->Decode(std::vector<uint32_t>{4, 5, 6, 8, 7}, true), "<user>A ");
  EXPECT_FALSE(t->IsSpecial(4));
}

TEST(Tokenizer, WholeWordsBeatMergesWhereTheModelSaysSo) {
  EXPECT_THAT(*(*MakeTokenizer(SmallVocabulary()))->Encode("abba", false, false), ElementsAre(2, 1, 0));
  auto llama = MakeTokenizer(SmallVocabulary("llama-bpe").Bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_THAT(*(*llama)->Encode("abba", false, false), ElementsAre(3));
}

TEST(Tokenizer, BosIsPutInFrontWhereTheModelWantsIt) {
  auto with = *MakeTokenizer(
      SmallVocabulary().U32("tokenizer.ggml.bos_token_id", 6).Bool("tokenizer.ggml.add_bos_token", true));
  EXPECT_THAT(*with->Encode("a", false, true), ElementsAre(6, 0));
  EXPECT_THAT(*with->Encode("a", false, false), ElementsAre(0));
  auto llama = *MakeTokenizer(SmallVocabulary("llama-bpe").U32("tokenizer.ggml.bos_token_id", 6));
  EXPECT_THAT(*llama->Encode("", false, true), ElementsAre(6));
  EXPECT_THAT(*RealTokenizer()->Encode("", true, true), ElementsAre());
}

TEST(Tokenizer, WhatIsNotSupportedOrWrongIsNamed) {
  struct {
    GgufBuilder builder;
    absl::StatusCode code;
    std::string words;
  } const cases[] = {
      {GgufBuilder(), absl::StatusCode::kInvalidArgument, "'tokenizer.ggml.model' is missing"},
      {GgufBuilder().String("tokenizer.ggml.model", "t5"), absl::StatusCode::kUnimplemented,
       "tokenizer model 't5'"},
      {SmallVocabulary("deepseek-r1-qwen"), absl::StatusCode::kUnimplemented,
       "pre-tokenizer 'deepseek-r1-qwen'"},
      {SmallVocabulary().U32("tokenizer.ggml.bos_token_id", 9), absl::StatusCode::kInvalidArgument,
       "'tokenizer.ggml.bos_token_id' is 9"},
      {SmallVocabulary().Bool("tokenizer.ggml.add_bos_token", true), absl::StatusCode::kInvalidArgument,
       "wants a BOS token"},
  };
  for (const auto& c : cases) {
    absl::Status status = MakeTokenizer(c.builder).status();
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.words));
  }
}

TEST(Tokenizer, WrongVocabulariesAreNamed) {
  auto expect = [](std::vector<std::string> tokens, std::vector<int32_t> types,
                   std::vector<std::string> merges, const std::string& words) {
    GgufBuilder b;
    b.String("tokenizer.ggml.model", "gpt2").Strings("tokenizer.ggml.tokens", tokens);
    b.I32s("tokenizer.ggml.token_type", types).Strings("tokenizer.ggml.merges", merges);
    absl::Status status = MakeTokenizer(b).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << words;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  expect({}, {}, {}, "0 tokens");
  expect({"a"}, {1, 1}, {}, "2 entries for 1 tokens");
  expect({"a"}, {7}, {}, "token 0 has type 7");
  expect({"a"}, {-1}, {}, "token 0 has type -1");
  expect({"a", "b"}, {1, 1}, {"ab"}, "merge 0 'ab' is not two tokens");
  expect({"a", "b"}, {1, 1}, {"a b"}, "needs 'ab'");
  expect({"a", "b", "ab"}, {1, 1, 1}, {"a c"}, "needs 'c'");
  expect({"a", "b", "ab"}, {1, 1, 1}, {"a "}, "needs ''");
  expect({"a", "b", "ab"}, {1, 1, 3}, {"a b"}, "needs 'ab'");
}

TEST(Tokenizer, LargeTextsTakeLinearTime) {
  // One unbroken word of each kind. Quadratic work on 1 MiB would take hours, so the bound can be generous to
  // slow machines.
  constexpr size_t kSize = 1 << 20;
  std::string nonsense(kSize, ' '), hanzi;
  for (size_t i = 0; i < kSize; ++i) nonsense[i] = static_cast<char>('a' + (i * 2654435761u >> 20) % 26);
  while (hanzi.size() < kSize) hanzi += "漢字";
  for (const std::string& text : {std::string(kSize, ' '), std::string(kSize, '\n'), std::string(kSize, 'a'),
                                  std::string(kSize, '7'), std::string(kSize, '!'), nonsense, hanzi}) {
    auto begin = std::chrono::steady_clock::now();
    auto ids = RealTokenizer()->Encode(text, true, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*RealTokenizer()->Decode(*ids, false), text);
    EXPECT_GE(ids->size(), text.size() / RealTokenizer()->longest_token());
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << text.substr(0, 8);
  }
}

TEST(Tokenizer, ManyThreadsMayUseOne) {
  json corpus = Golden("corpus.json");
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (const json& golden : corpus) {
        if (*RealTokenizer()->Encode(golden["text"].get<std::string>(), false, true) !=
            golden["smollm"].get<std::vector<uint32_t>>())
          ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace quire
