#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "gateway/openai/body.h"
#include "gateway/openai/requests.h"
#include "gateway/openai/shared_fields.h"

namespace quire::gateway {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};
constexpr size_t kMaxMessages = 100'000, kMaxTextBytes = 8 << 20;

Problem ReadRole(const Value& value, const std::string& param, Message* out) {
  if (Problem problem = ReadString(value, param, 64, &out->role)) return problem;
  if (std::find(kRoles.begin(), kRoles.end(), out->role) == kRoles.end()) {
    return InvalidValue(
        absl::StrCat(
            "Invalid value: '", out->role,
            "'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' and 'function'."),
        param, "invalid_value");
  }
  if (out->role == "developer") out->role = "system";  // OpenAI's newer name; no chat template knows it
  return std::nullopt;
}

// One content part: {"type":"text","text":…}, or an assistant's {"type":"refusal","refusal":…}.
Problem ReadPart(const Value& part, const std::string& param, std::string* out) {
  if (!part.is_object()) return WrongType(part, param, "an object");
  auto type = part.find("type");
  if (type == part.end()) return Missing(param + ".type");
  std::string kind;
  if (Problem problem = ReadString(*type, param + ".type", 64, &kind)) return problem;
  if (kind != "text" && kind != "refusal")
    return UnsupportedValue(param + ".type", absl::StrCat("'", kind, "'"), "'text'");
  auto text = part.find(kind);
  if (text == part.end()) return Missing(absl::StrCat(param, ".", kind));
  return ReadString(*text, absl::StrCat(param, ".", kind), kMaxTextBytes, out);
}

// Parts are joined by line breaks, as vLLM and llama-server do.
Problem ReadContent(const Value& value, const std::string& param, Message* out) {
  if (value.is_string()) return ReadString(value, param, kMaxTextBytes, &out->content);
  if (!value.is_array()) return WrongType(value, param, "a string or an array of content parts");
  for (size_t i = 0; i < value.size(); ++i) {
    std::string text;
    if (Problem problem = ReadPart(value[i], absl::StrCat(param, "[", i, "]"), &text)) return problem;
    if (i > 0) out->content.push_back('\n');
    out->content.append(text);
  }
  return std::nullopt;
}

// Present and not empty: something this server would have to act on.
Problem RefuseIfUsed(const Value& value, const std::string& param, Message*) {
  return value.empty() ? Problem() : Unsupported(param);
}

Problem ReadMessage(const Value& value, const std::string& param, Message* out) {
  static const std::vector<Field<Message>> fields = {
      Required(Field<Message>{"role", ReadRole}),
      {"content", ReadContent},
      StringField("name", &Message::name, 256),
      {"tool_calls", RefuseIfUsed},
      {"function_call", RefuseIfUsed},
  };
  if (!value.is_object()) return WrongType(value, param, "an object");
  if (Problem problem = ReadObject(value, param, fields, out)) return problem;
  auto content = value.find("content");
  if (out->role == "assistant") return std::nullopt;  // may say nothing
  if (content == value.end()) return Missing(param + ".content");
  if (content->is_null())
    return WrongType(*content, param + ".content", "a string or an array of content parts");
  return std::nullopt;
}

Problem ReadMessages(const Value& value, const std::string& param, ChatRequest* out) {
  if (Problem problem = ExpectArray(value, param, "objects", kMaxMessages)) return problem;
  if (value.empty()) {
    return InvalidValue(
        absl::StrCat(
            "Invalid '", param,
            "': empty array. Expected an array with minimum length 1, but got an empty array instead."),
        param, "empty_array");
  }
  out->messages.resize(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    if (Problem problem = ReadMessage(value[i], absl::StrCat(param, "[", i, "]"), &out->messages[i]))
      return problem;
  }
  return std::nullopt;
}

Problem ReadTemplateVariables(const Value& value, const std::string& param, ChatRequest* out) {
  if (!value.is_object()) return WrongType(value, param, "an object");
  if (!value.empty()) out->template_variables = value.dump();
  return std::nullopt;
}

Problem RefuseTools(const Value& value, const std::string& param, ChatRequest*) {
  if (!value.is_array()) return WrongType(value, param, "an array of objects");
  return value.empty() ? Problem() : Unsupported(param);
}

const std::vector<Field<ChatRequest>>& ChatFields() {
  static const std::vector<Field<ChatRequest>> fields = {
      Required(Field<ChatRequest>{"messages", ReadMessages}),
      IntegerField("max_completion_tokens", &ChatRequest::max_completion_tokens, 1, INT32_MAX),
      BoolField("logprobs", &ChatRequest::wants_logprobs),
      IntegerField("top_logprobs", &ChatRequest::top_logprobs, 0, 20),
      BoolField("add_generation_prompt", &ChatRequest::add_generation_prompt),
      {"chat_template_kwargs", ReadTemplateVariables},
      {"tools", RefuseTools},
      {"functions", RefuseTools},
  };
  return fields;
}

}  // namespace

Problem ReadChatRequest(std::string_view body, ChatRequest* out) {
  Value value;
  if (Problem problem = ParseBody(body, &value)) return problem;
  if (Problem problem = ReadObject<SharedRequest>(value, "", SharedFields(), out)) return problem;
  if (Problem problem = ReadObject(value, "", ChatFields(), out)) return problem;
  if (Problem problem = CheckShared(value, *out)) return problem;
  if (out->max_completion_tokens) {
    if (out->max_tokens) {
      return InvalidValue(
          "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens",
          "invalid_parameter_combination");
    }
    out->max_tokens = out->max_completion_tokens;
  }
  if (out->top_logprobs && !out->wants_logprobs) {
    return InvalidValue("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
                        "top_logprobs", "invalid_parameter_combination");
  }
  if (out->wants_logprobs) out->logprobs = out->top_logprobs.value_or(0);
  return std::nullopt;
}

}  // namespace quire::gateway
