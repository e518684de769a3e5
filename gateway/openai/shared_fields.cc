#include "gateway/openai/shared_fields.h"

#include <charconv>

#include "absl/strings/str_cat.h"

namespace quire::gateway {
namespace {

constexpr size_t kMaxStops = 16, kMaxStopBytes = 1024, kMaxBiases = 1024, kMaxStopTokens = 1024,
                 kMaxSaltBytes = 1024, kMaxNameBytes = 1024;

// −1 and 0 are both off: vLLM's way and llama-server's.
Problem ReadTopK(const Value& value, const std::string& param, SharedRequest* out) {
  int64_t number = 0;
  if (Problem problem = ReadInteger(value, param, -1, INT32_MAX, &number)) return problem;
  out->top_k = number < 0 ? 0 : static_cast<uint32_t>(number);
  return std::nullopt;
}

Problem ReadSeed(const Value& value, const std::string& param, SharedRequest* out) {
  if (value.is_number_unsigned()) {
    out->seed = value.get<uint64_t>();
    return std::nullopt;
  }
  int64_t number = 0;
  if (Problem problem = ReadInteger(value, param, INT64_MIN, INT64_MAX, &number)) return problem;
  out->seed = static_cast<uint64_t>(number);
  return std::nullopt;
}

Problem ReadLogitBias(const Value& value, const std::string& param, SharedRequest* out) {
  if (!value.is_object()) return WrongType(value, param, "an object");
  if (value.size() > kMaxBiases) {
    return InvalidValue(absl::StrCat("Invalid '", param, "': too many entries. Expected at most ", kMaxBiases,
                                     ", but got ", value.size(), " instead."),
                        param, "object_above_max_properties");
  }
  for (const auto& [key, bias] : value.items()) {
    uint32_t token = 0;
    auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (ec != std::errc() || end != key.data() + key.size()) {
      return InvalidValue(
          absl::StrCat("Invalid '", param, "': the key '", key.substr(0, 64), "' is not a token id."), param,
          "invalid_value");
    }
    double number = 0;
    if (Problem problem = ReadNumber(bias, absl::StrCat(param, ".", key), -100, 100, &number)) return problem;
    out->logit_bias.emplace_back(token, static_cast<float>(number));
  }
  return std::nullopt;
}

Problem ReadStop(const Value& value, const std::string& param, SharedRequest* out) {
  auto read_one = [&](const Value& one, const std::string& name) -> Problem {
    std::string text;
    if (Problem problem = ReadString(one, name, kMaxStopBytes, &text)) return problem;
    if (text.empty())
      return InvalidValue(absl::StrCat("Invalid '", name, "': a stop sequence may not be empty."), name,
                          "empty_string");
    out->stop.push_back(std::move(text));
    return std::nullopt;
  };
  if (value.is_string()) return read_one(value, param);
  if (!value.is_array()) return WrongType(value, param, "a string or an array of strings");
  if (Problem problem = ExpectArray(value, param, "strings", kMaxStops)) return problem;
  for (size_t i = 0; i < value.size(); ++i) {
    if (Problem problem = read_one(value[i], absl::StrCat(param, "[", i, "]"))) return problem;
  }
  return std::nullopt;
}

Problem ReadStopTokens(const Value& value, const std::string& param, SharedRequest* out) {
  return ReadTokens(value, param, kMaxStopTokens, &out->stop_token_ids);
}

Problem ReadCacheSalt(const Value& value, const std::string& param, SharedRequest* out) {
  if (Problem problem = ReadString(value, param, kMaxSaltBytes, &out->cache_salt)) return problem;
  if (out->cache_salt.empty())
    return InvalidValue(absl::StrCat("Invalid '", param, "': it may not be empty."), param, "empty_string");
  return std::nullopt;
}

Problem ReadN(const Value& value, const std::string& param, SharedRequest*) {
  return ReadOneChoice(value, param);
}

Problem ReadStreamOptions(const Value& value, const std::string& param, SharedRequest* out) {
  if (!value.is_object()) return WrongType(value, param, "an object");
  static const std::vector<Field<SharedRequest>> fields = {
      BoolField("include_usage", &SharedRequest::include_usage)};
  return ReadObject(value, param, fields, out);
}

Problem ReadResponseFormat(const Value& value, const std::string& param, SharedRequest*) {
  if (!value.is_object()) return WrongType(value, param, "an object");
  auto type = value.find("type");
  if (type == value.end()) return Missing(param + ".type");
  std::string text;
  if (Problem problem = ReadString(*type, param + ".type", 64, &text)) return problem;
  if (text != "text") return UnsupportedValue(param + ".type", absl::StrCat("'", text, "'"), "'text'");
  return std::nullopt;
}

Problem ReadQuire(const Value& value, const std::string& param, SharedRequest* out) {
  if (!value.is_object()) return WrongType(value, param, "an object");
  auto cache = value.find("cache");
  if (cache == value.end() || cache->is_null()) return std::nullopt;
  std::string text;
  if (Problem problem = ReadString(*cache, param + ".cache", 64, &text)) return problem;
  if (text == "use") {
    out->cache = CachePolicy::kUse;
  } else if (text == "read_only") {
    out->cache = CachePolicy::kReadOnly;
  } else if (text == "bypass") {
    out->cache = CachePolicy::kBypass;
  } else {
    return InvalidValue(
        absl::StrCat("Invalid value: '", text, "'. Supported values are: 'use', 'read_only' and 'bypass'."),
        param + ".cache", "invalid_value");
  }
  return std::nullopt;
}

}  // namespace

Problem ReadOneChoice(const Value& value, const std::string& param) {
  int64_t number = 0;
  if (Problem problem = ReadInteger(value, param, 1, 128, &number)) return problem;
  if (number != 1) return UnsupportedValue(param, absl::StrCat(number), "1");
  return std::nullopt;
}

const std::vector<Field<SharedRequest>>& SharedFields() {
  using R = SharedRequest;
  static const std::vector<Field<R>> fields = {
      Required(StringField("model", &R::model, kMaxNameBytes)),
      NumberField("temperature", &R::temperature, 0, 2),
      NumberField("top_p", &R::top_p, 0, 1),
      NumberField("min_p", &R::min_p, 0, 1),
      NumberField("presence_penalty", &R::presence_penalty, -2, 2),
      NumberField("frequency_penalty", &R::frequency_penalty, -2, 2),
      NumberField("repetition_penalty", &R::repetition_penalty, 0.01, 100),
      {"top_k", ReadTopK},
      {"seed", ReadSeed},
      {"logit_bias", ReadLogitBias},
      IntegerField("max_tokens", &R::max_tokens, 1, INT32_MAX),
      {"stop", ReadStop},
      {"stop_token_ids", ReadStopTokens},
      BoolField("ignore_eos", &R::ignore_eos),
      BoolField("stream", &R::stream),
      {"stream_options", ReadStreamOptions},
      {"n", ReadN},
      StringField("user", &R::user, kMaxNameBytes),
      {"cache_salt", ReadCacheSalt},
      {"response_format", ReadResponseFormat},
      {"quire", ReadQuire},
  };
  return fields;
}

Problem CheckShared(const Value& body, const SharedRequest& request) {
  auto options = body.find("stream_options");
  if (options != body.end() && !options->is_null() && !request.stream) {
    return InvalidValue("The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                        "stream_options", "invalid_parameter_combination");
  }
  return std::nullopt;
}

}  // namespace quire::gateway
