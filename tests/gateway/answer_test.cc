// The JSON we write by hand, read back by a parser.
#include "gateway/openai/answer.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "gateway/openai/json_text.h"

namespace quire::gateway {
namespace {

using nlohmann::json;

json Parsed(std::string_view text) {
  json value = json::parse(text.begin(), text.end(), nullptr, false);
  EXPECT_FALSE(value.is_discarded()) << text;
  return value;
}

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

TEST(JsonText, EveryCharacterComesBack) {
  for (uint32_t c = 0; c < 0x300; ++c) {
    std::string text =
        c < 0x80 ? std::string(1, static_cast<char>(c))
                 : std::string{static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
    EXPECT_EQ(Parsed(Quoted("<" + text + ">")), "<" + text + ">");
  }
  EXPECT_EQ(Parsed(Quoted("a\"\\\n\t\r\b\f/é€𝄞")), "a\"\\\n\t\r\b\f/é€𝄞");
}

TEST(JsonText, BytesThatAreNotUtf8AreReplaced) {
  for (const char* bad :
       {"\xFF", "\xC3", "\xE2\x82", "\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80", "\x80"}) {
    const std::string text = Parsed(Quoted(std::string("a") + bad + "b")).get<std::string>();
    EXPECT_EQ(text.front(), 'a');
    EXPECT_EQ(text.back(), 'b');
    EXPECT_NE(text.find("\uFFFD"), std::string::npos);
  }
}

TEST(JsonText, Floats) {
  for (float value : {0.0f, -0.5f, 1e-30f, -123.456f, 3e38f}) {
    std::string out;
    AppendJsonFloat(value, &out);
    EXPECT_EQ(Parsed(out).get<float>(), value);
  }
  for (float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::string out;
    AppendJsonFloat(value, &out);
    EXPECT_EQ(out, "-9999");
  }
}

TEST(Answer, NamesAreEscaped) {
  AnswerHead head{
      .endpoint = Endpoint::kChat, .id = "i", .created = 1, .model = "a\"b\\c", .system_fingerprint = "fp"};
  ChunkWriter chunks(head);
  std::string out;
  chunks.Start(&out);
  EXPECT_EQ(Parsed(std::string_view(out).substr(6))["model"], "a\"b\\c");
  EXPECT_EQ(Parsed(ModelJson({"x\n", 5}))["id"], "x\n");
}

TEST(Answer, TokensThatPrintAlikeAreNamedOnce) {
  AnswerHead head{.endpoint = Endpoint::kCompletion, .logprobs = true};
  WholeAnswer answer(head);
  v1::GenerateResponse message;
  message.set_text("a");
  auto* token = message.add_logprobs();
  token->set_text("\xFF");
  token->add_top()->set_text("\xFE");
  token->add_top()->set_text("\xFF");
  message.set_finish(v1::STOP);
  answer.Add(message);
  json top = Parsed(answer.Json())["choices"][0]["logprobs"]["top_logprobs"][0];
  EXPECT_EQ(top.size(), 1u);
}

TEST(Answer, OffsetsCountCharactersAcrossChunks) {
  ChunkWriter chunks({.endpoint = Endpoint::kCompletion, .logprobs = true});
  int64_t expected = 0;
  for (const char* text : {"é", "abc", "𝄞"}) {
    v1::GenerateResponse message;
    message.set_text(text);
    message.add_logprobs()->set_text(text);
    std::string out;
    chunks.Content(message, &out);
    EXPECT_EQ(Parsed(std::string_view(out).substr(6))["choices"][0]["logprobs"]["text_offset"][0], expected);
    expected += std::string(text) == "abc" ? 3 : 1;
  }
}

TEST(Answer, ErrorsHaveFourMembers) {
  EXPECT_EQ(
      Parsed(ErrorBody({.message = "m \"q\""})),
      json::parse(
          R"({"error": {"message": "m \"q\"", "type": "invalid_request_error", "param": null, "code": null}})"));
  EXPECT_EQ(
      Parsed(ErrorBody(InvalidValue("m", "p", "c"))),
      json::parse(
          R"({"error": {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}})"));
}

TEST(Answer, IdsDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 10'000; ++i) ids.insert(NewAnswerId(Endpoint::kChat));
  EXPECT_EQ(ids.size(), 10'000u);
}

}  // namespace
}  // namespace quire::gateway
