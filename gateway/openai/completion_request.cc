#include "absl/strings/str_cat.h"
#include "gateway/openai/body.h"
#include "gateway/openai/requests.h"
#include "gateway/openai/shared_fields.h"

namespace quire::gateway {
namespace {

constexpr size_t kMaxPromptBytes = 8 << 20, kMaxPromptTokens = 1 << 20;
constexpr uint32_t kDefaultMaxTokens = 16;  // this endpoint's, in OpenAI's API

Problem ReadTextPrompt(const Value& value, const std::string& param, CompletionRequest* out) {
  std::string text;
  if (Problem problem = ReadString(value, param, kMaxPromptBytes, &text)) return problem;
  out->prompt = std::move(text);
  return std::nullopt;
}

// A string, an array of one string, an array of token ids, or an array of one such array.
Problem ReadPrompt(const Value& value, const std::string& param, CompletionRequest* out) {
  if (value.is_string()) return ReadTextPrompt(value, param, out);
  if (!value.is_array()) return WrongType(value, param, "a string or an array of token ids");
  if (value.empty()) {
    return InvalidValue(
        absl::StrCat(
            "Invalid '", param,
            "': empty array. Expected an array with minimum length 1, but got an empty array instead."),
        param, "empty_array");
  }
  if (value[0].is_string() || value[0].is_array()) {
    if (value.size() > 1) {
      return UnsupportedValue(param, absl::StrCat(value.size(), " prompts"), "one prompt a request");
    }
    if (value[0].is_string()) return ReadTextPrompt(value[0], param + "[0]", out);
    if (value[0].empty())
      return InvalidValue(absl::StrCat("Invalid '", param, "[0]': the prompt is empty."), param,
                          "empty_array");
    std::vector<uint32_t> tokens;
    if (Problem problem = ReadTokens(value[0], param + "[0]", kMaxPromptTokens, &tokens)) return problem;
    out->prompt = std::move(tokens);
    return std::nullopt;
  }
  std::vector<uint32_t> tokens;
  if (Problem problem = ReadTokens(value, param, kMaxPromptTokens, &tokens)) return problem;
  out->prompt = std::move(tokens);
  return std::nullopt;
}

Problem ReadEcho(const Value& value, const std::string& param, CompletionRequest*) {
  bool echo = false;
  if (Problem problem = ReadBool(value, param, &echo)) return problem;
  return echo ? UnsupportedValue(param, "true", "false") : Problem();
}

Problem ReadBestOf(const Value& value, const std::string& param, CompletionRequest*) {
  return ReadOneChoice(value, param);
}

Problem ReadLogprobs(const Value& value, const std::string& param, CompletionRequest* out) {
  int64_t number = 0;
  if (Problem problem = ReadInteger(value, param, 0, 20, &number)) return problem;
  out->logprobs = static_cast<uint32_t>(number);
  return std::nullopt;
}

Problem ReadSuffix(const Value& value, const std::string& param, CompletionRequest*) {
  std::string suffix;
  if (Problem problem = ReadString(value, param, kMaxPromptBytes, &suffix)) return problem;
  return suffix.empty() ? Problem() : Unsupported(param);
}

const std::vector<Field<CompletionRequest>>& CompletionFields() {
  static const std::vector<Field<CompletionRequest>> fields = {
      Required(Field<CompletionRequest>{"prompt", ReadPrompt}),
      {"logprobs", ReadLogprobs},
      {"echo", ReadEcho},
      {"best_of", ReadBestOf},
      {"suffix", ReadSuffix},
  };
  return fields;
}

}  // namespace

Problem ReadCompletionRequest(std::string_view body, CompletionRequest* out) {
  Value value;
  if (Problem problem = ParseBody(body, &value)) return problem;
  if (Problem problem = ReadObject<SharedRequest>(value, "", SharedFields(), out)) return problem;
  if (Problem problem = ReadObject(value, "", CompletionFields(), out)) return problem;
  if (Problem problem = CheckShared(value, *out)) return problem;
  if (!out->max_tokens) out->max_tokens = kDefaultMaxTokens;
  return std::nullopt;
}

}  // namespace quire::gateway
