// What a request may hold: every field's type and limits, each error with the field's name.
#include "gateway/openai/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/openai/body.h"
#include "gateway/openai/to_proto.h"

namespace quire::gateway {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json Chat(const std::string& field, const json& value) {
  json body = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  body[field] = value;
  return body;
}
json Completion(const std::string& field, const json& value) {
  json body = {{"model", "m"}, {"prompt", "p"}};
  body[field] = value;
  return body;
}

void ExpectProblem(const Problem& problem, const std::string& param, const std::string& code,
                   const json& body) {
  ASSERT_TRUE(problem.has_value()) << body;
  EXPECT_EQ(problem->status, 400) << body;
  EXPECT_EQ(problem->type, "invalid_request_error");
  EXPECT_EQ(problem->param, param) << problem->message;
  EXPECT_EQ(problem->code, code) << problem->message;
  EXPECT_THAT(problem->message, HasSubstr("'" + param + "'")) << body;
}

TEST(Requests, WrongTypesNameTheField) {
  const json text = "x", number = 1.5, flag = true, list = json::array({json::object()}), object = {{"a", 1}};
  const std::vector<std::pair<std::string, std::vector<json>>> both = {
      {"model", {number, flag, list, object}},
      {"temperature", {text, flag, list, object}},
      {"top_p", {text, flag, list, object}},
      {"min_p", {text, flag, list, object}},
      {"presence_penalty", {text, flag, list, object}},
      {"frequency_penalty", {text, flag, list, object}},
      {"repetition_penalty", {text, flag, list, object}},
      {"top_k", {text, number, flag, list, object}},
      {"seed", {text, number, flag, list, object}},
      {"logit_bias", {text, number, flag, list}},
      {"max_tokens", {text, number, flag, list, object}},
      {"stop", {number, flag, object}},
      {"stop_token_ids", {text, number, flag, object}},
      {"ignore_eos", {text, number, list, object}},
      {"stream", {text, number, list, object}},
      {"stream_options", {text, number, flag, list}},
      {"n", {text, number, flag, list, object}},
      {"user", {number, flag, list, object}},
      {"cache_salt", {number, flag, list, object}},
      {"response_format", {text, number, flag, list}},
      {"quire", {text, number, flag, list}},
  };
  for (const auto& [field, values] : both) {
    for (const json& value : values) {
      ChatRequest chat;
      ExpectProblem(ReadChatRequest(Chat(field, value).dump(), &chat), field, "invalid_type",
                    Chat(field, value));
      CompletionRequest completion;
      ExpectProblem(ReadCompletionRequest(Completion(field, value).dump(), &completion), field,
                    "invalid_type", Completion(field, value));
    }
  }
  const std::vector<std::pair<std::string, std::vector<json>>> chat_only = {
      {"messages", {text, number, flag, object, nullptr}},
      {"max_completion_tokens", {text, number, flag, list, object}},
      {"logprobs", {text, number, list, object}},
      {"top_logprobs", {text, number, flag, list, object}},
      {"add_generation_prompt", {text, number, list}},
      {"chat_template_kwargs", {text, number, flag, list}},
      {"tools", {text, number, flag, object}},
  };
  for (const auto& [field, values] : chat_only) {
    for (const json& value : values) {
      ChatRequest chat;
      ExpectProblem(ReadChatRequest(Chat(field, value).dump(), &chat), field, "invalid_type",
                    Chat(field, value));
    }
  }
  const std::vector<std::pair<std::string, std::vector<json>>> completion_only = {
      {"prompt", {number, flag, object, nullptr}}, {"logprobs", {text, number, flag, list, object}},
      {"echo", {text, number, list, object}},      {"best_of", {text, number, flag, list, object}},
      {"suffix", {number, flag, list, object}},
  };
  for (const auto& [field, values] : completion_only) {
    for (const json& value : values) {
      CompletionRequest completion;
      ExpectProblem(ReadCompletionRequest(Completion(field, value).dump(), &completion), field,
                    "invalid_type", Completion(field, value));
    }
  }
}

struct Refused {
  std::string field;
  json value;
  std::string param, code;
};

TEST(Requests, ValuesOutOfRange) {
  const Refused cases[] = {
      {"temperature", -0.1, "temperature", "decimal_below_min_value"},
      {"temperature", 2.1, "temperature", "decimal_above_max_value"},
      {"temperature", 3, "temperature", "decimal_above_max_value"},
      {"top_p", 1.1, "top_p", "decimal_above_max_value"},
      {"min_p", -1, "min_p", "decimal_below_min_value"},
      {"presence_penalty", 2.5, "presence_penalty", "decimal_above_max_value"},
      {"frequency_penalty", -2.5, "frequency_penalty", "decimal_below_min_value"},
      {"repetition_penalty", 0, "repetition_penalty", "decimal_below_min_value"},
      {"repetition_penalty", 1e300, "repetition_penalty", "decimal_above_max_value"},
      {"top_k", -2, "top_k", "integer_below_min_value"},
      {"max_tokens", 0, "max_tokens", "integer_below_min_value"},
      {"max_tokens", UINT64_MAX, "max_tokens", "integer_above_max_value"},
      {"max_tokens", INT64_MIN, "max_tokens", "integer_below_min_value"},
      {"n", 0, "n", "integer_below_min_value"},
      {"n", 2, "n", "unsupported_value"},
      {"stop", json::array({"a", ""}), "stop[1]", "empty_string"},
      {"stop", "", "stop", "empty_string"},
      {"stop", json::array({"a", 1}), "stop[1]", "invalid_type"},
      {"stop", json(17, "x"), "stop", "array_above_max_length"},
      {"stop", std::string(1025, 'x'), "stop", "string_above_max_length"},
      {"stop_token_ids", {1, -1}, "stop_token_ids[1]", "integer_below_min_value"},
      {"logit_bias", {{"x", 1}}, "logit_bias", "invalid_value"},
      {"logit_bias", {{"-1", 1}}, "logit_bias", "invalid_value"},
      {"logit_bias", {{"4294967296", 1}}, "logit_bias", "invalid_value"},
      {"logit_bias", {{"", 1}}, "logit_bias", "invalid_value"},
      {"logit_bias", {{"5", 101}}, "logit_bias.5", "decimal_above_max_value"},
      {"logit_bias", {{"5", "x"}}, "logit_bias.5", "invalid_type"},
      {"cache_salt", "", "cache_salt", "empty_string"},
      {"model", std::string(2000, 'm'), "model", "string_above_max_length"},
      {"response_format", json::object(), "response_format.type", "missing_required_parameter"},
      {"response_format", {{"type", "json_object"}}, "response_format.type", "unsupported_value"},
      {"quire", {{"cache", 3}}, "quire.cache", "invalid_type"},
  };
  for (const Refused& c : cases) {
    ChatRequest chat;
    ExpectProblem(ReadChatRequest(Chat(c.field, c.value).dump(), &chat), c.param, c.code,
                  Chat(c.field, c.value));
    CompletionRequest completion;
    ExpectProblem(ReadCompletionRequest(Completion(c.field, c.value).dump(), &completion), c.param, c.code,
                  Completion(c.field, c.value));
  }
  ChatRequest chat;
  Problem problem = ReadChatRequest(Chat("quire", {{"cache", "never"}}).dump(), &chat);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->param, "quire.cache");
}

TEST(Requests, Messages) {
  const std::pair<json, std::pair<std::string, std::string>> cases[] = {
      {json::array(), {"messages", "empty_array"}},
      {json::array({"x"}), {"messages[0]", "invalid_type"}},
      {json::array({json::object()}), {"messages[0].role", "missing_required_parameter"}},
      {json::array({{{"role", 1}}}), {"messages[0].role", "invalid_type"}},
      {json::array({{{"role", "user"}}}), {"messages[0].content", "missing_required_parameter"}},
      {json::array({{{"role", "user"}, {"content", nullptr}}}), {"messages[0].content", "invalid_type"}},
      {json::array({{{"role", "user"}, {"content", 5}}}), {"messages[0].content", "invalid_type"}},
      {json::array({{{"role", "user"}, {"content", {"x"}}}}), {"messages[0].content[0]", "invalid_type"}},
      {json::array({{{"role", "user"}, {"content", {{{"text", "x"}}}}}}),
       {"messages[0].content[0].type", "missing_required_parameter"}},
      {json::array({{{"role", "user"}, {"content", {{{"type", "text"}}}}}}),
       {"messages[0].content[0].text", "missing_required_parameter"}},
      {json::array({{{"role", "user"}, {"content", {{{"type", "text"}, {"text", 1}}}}}}),
       {"messages[0].content[0].text", "invalid_type"}},
      {json::array({{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}),
       {"messages[0].content[0].type", "unsupported_value"}},
      {json::array({{{"role", "user"}, {"content", "x"}, {"name", 1}}}),
       {"messages[0].name", "invalid_type"}},
      {json::array({{{"role", "assistant"}, {"tool_calls", {1}}}}),
       {"messages[0].tool_calls", "unsupported_parameter"}},
  };
  for (const auto& [messages, expected] : cases) {
    ChatRequest chat;
    ExpectProblem(ReadChatRequest(Chat("messages", messages).dump(), &chat), expected.first, expected.second,
                  messages);
  }
  ChatRequest chat;
  Problem problem = ReadChatRequest(Chat("messages", {{{"role", "robot"}, {"content", "x"}}}).dump(), &chat);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->param, "messages[0].role");
  EXPECT_EQ(problem->code, "invalid_value");
}

TEST(Requests, Prompts) {
  const std::pair<json, std::pair<std::string, std::string>> cases[] = {
      {json::array(), {"prompt", "empty_array"}},
      {json::array({"a", "b"}), {"prompt", "unsupported_value"}},
      {json::array({{1}, {2}}), {"prompt", "unsupported_value"}},
      {json::array({1, "a"}), {"prompt[1]", "invalid_type"}},
      {json::array({1, -1}), {"prompt[1]", "integer_below_min_value"}},
      {json::array({1, 4294967296}), {"prompt[1]", "integer_above_max_value"}},
      {json::array({json::array({1.5})}), {"prompt[0][0]", "invalid_type"}},
  };
  for (const auto& [prompt, expected] : cases) {
    CompletionRequest completion;
    ExpectProblem(ReadCompletionRequest(Completion("prompt", prompt).dump(), &completion), expected.first,
                  expected.second, prompt);
  }
}

TEST(Requests, UnsupportedPartsOfCompletions) {
  for (const auto& [field, value] :
       std::vector<std::pair<std::string, json>>{{"echo", true}, {"best_of", 2}, {"suffix", "x"}}) {
    CompletionRequest completion;
    Problem problem = ReadCompletionRequest(Completion(field, value).dump(), &completion);
    ASSERT_TRUE(problem) << field;
    EXPECT_EQ(problem->param, field);
  }
  CompletionRequest completion;
  EXPECT_FALSE(ReadCompletionRequest(Completion("echo", false).dump(), &completion));
  EXPECT_FALSE(ReadCompletionRequest(Completion("best_of", 1).dump(), &completion));
  EXPECT_FALSE(ReadCompletionRequest(Completion("suffix", nullptr).dump(), &completion));
}

TEST(Requests, FieldsThatNeedOthers) {
  ChatRequest chat;
  Problem problem = ReadChatRequest(Chat("stream_options", {{"include_usage", true}}).dump(), &chat);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->param, "stream_options");
  json both = Chat("max_tokens", 1);
  both["max_completion_tokens"] = 2;
  chat = {};
  problem = ReadChatRequest(both.dump(), &chat);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->param, "max_tokens");
  chat = {};
  problem = ReadChatRequest(Chat("top_logprobs", 2).dump(), &chat);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->param, "top_logprobs");
}

TEST(Requests, NullIsAbsentAndUnknownFieldsAreIgnored) {
  json body = Chat("temperature", nullptr);
  for (const char* field : {"top_p", "top_k", "seed", "stop", "logit_bias", "n", "user", "stream",
                            "stream_options", "max_tokens", "max_completion_tokens", "logprobs",
                            "top_logprobs", "tools", "response_format", "cache_salt", "quire"}) {
    body[field] = nullptr;
  }
  body["something_new"] = {{"with", {1, 2, 3}}};
  body["tools"] = json::array();
  ChatRequest chat;
  Problem problem = ReadChatRequest(body.dump(), &chat);
  EXPECT_FALSE(problem) << problem->message;
  EXPECT_FALSE(chat.temperature || chat.top_k || chat.seed || chat.max_tokens || chat.logprobs);
}

TEST(Requests, NumbersAtTheirLimits) {
  ChatRequest chat;
  EXPECT_FALSE(ReadChatRequest(Chat("seed", UINT64_MAX).dump(), &chat));
  EXPECT_EQ(chat.seed, UINT64_MAX);
  EXPECT_FALSE(ReadChatRequest(Chat("seed", -1).dump(), &chat));
  EXPECT_EQ(chat.seed, UINT64_MAX);
  EXPECT_FALSE(ReadChatRequest(Chat("top_k", -1).dump(), &chat));
  EXPECT_EQ(chat.top_k, 0u);
  EXPECT_FALSE(ReadChatRequest(Chat("temperature", 0).dump(), &chat));
  EXPECT_EQ(chat.temperature, 0.0f);
  EXPECT_FALSE(ReadChatRequest(Chat("top_p", 0).dump(), &chat));
  v1::GenerateRequest out;
  EXPECT_FALSE(ToGenerate(chat, {.has_chat_template = true}, &out));
  EXPECT_GT(out.sampling().top_p(), 0.0f);
}

TEST(Requests, AModelWithoutTemplateCannotChat) {
  ChatRequest chat;
  ASSERT_FALSE(ReadChatRequest(Chat("n", 1).dump(), &chat));
  v1::GenerateRequest out;
  Problem problem = ToGenerate(chat, {}, &out);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->status, 400);
  EXPECT_EQ(problem->param, "model");
}

TEST(Body, CostIsBoundedBeforeParsing) {
  json out;
  const std::string deep = "{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}";
  EXPECT_TRUE(ParseBody(deep, &out));
  EXPECT_TRUE(ParseBody("{\"a\":[" + std::string(kMaxValues * 2, ',') + "]}", &out));
  std::string ones = "{\"a\":[1";
  for (size_t i = 0; i < kMaxValues; ++i) ones += ",1";
  EXPECT_TRUE(ParseBody(ones + "]}", &out));
  EXPECT_FALSE(
      ParseBody("{\"a\":\"" + std::string(kMaxValues * 2, ',') + std::string(200, '[') + "\\\"[\"}", &out));
  EXPECT_TRUE(ParseBody("{\"a\":\"unterminated\\", &out));
}

}  // namespace
}  // namespace quire::gateway
