#include "gateway/openai/fields.h"

#include "absl/strings/str_cat.h"

namespace quire::gateway {
namespace {

using nlohmann::json;

std::string_view Kind(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return "a boolean";
    case json::value_t::string:
      return "a string";
    case json::value_t::array:
      return "an array";
    case json::value_t::object:
      return "an object";
    case json::value_t::number_float:
      return "a decimal number";
    default:
      return "an integer";
  }
}

ApiError OutOfRange(const std::string& param, bool integer, bool above, std::string_view limit,
                    std::string_view value) {
  const std::string kind = integer ? "integer" : "decimal";
  return InvalidValue(
      absl::StrCat("Invalid '", param, "': ", kind, above ? " above maximum" : " below minimum",
                   " value. Expected a value ", above ? "<= " : ">= ", std::string(limit), ", but got ",
                   std::string(value), " instead."),
      param, absl::StrCat(kind, above ? "_above_max_value" : "_below_min_value"));
}

}  // namespace

ApiError WrongType(const json& value, const std::string& param, std::string_view expected) {
  return InvalidValue(absl::StrCat("Invalid type for '", param, "': expected ", std::string(expected),
                                   ", but got ", std::string(Kind(value)), " instead."),
                      param, "invalid_type");
}

ApiError Missing(const std::string& param) {
  return InvalidValue(absl::StrCat("Missing required parameter: '", param, "'."), param,
                      "missing_required_parameter");
}

ApiError Unsupported(const std::string& param) {
  return InvalidValue(absl::StrCat("Unsupported parameter: '", param, "' is not supported by this server."),
                      param, "unsupported_parameter");
}

ApiError UnsupportedValue(const std::string& param, std::string_view value, std::string_view supported) {
  return InvalidValue(absl::StrCat("Unsupported value: '", param, "' does not support ", std::string(value),
                                   " on this server. Supported: ", std::string(supported), "."),
                      param, "unsupported_value");
}

Problem ReadString(const json& value, const std::string& param, size_t max_bytes, std::string* out) {
  if (!value.is_string()) return WrongType(value, param, "a string");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    return InvalidValue(
        absl::StrCat("Invalid '", param, "': string too long. Expected a string with maximum length ",
                     max_bytes, " bytes, but got a string with length ", text.size(), " instead."),
        param, "string_above_max_length");
  }
  *out = text;
  return std::nullopt;
}

Problem ReadBool(const json& value, const std::string& param, bool* out) {
  if (!value.is_boolean()) return WrongType(value, param, "a boolean");
  *out = value.get<bool>();
  return std::nullopt;
}

Problem ReadInteger(const json& value, const std::string& param, int64_t min, int64_t max, int64_t* out) {
  if (!value.is_number_integer()) return WrongType(value, param, "an integer");
  const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = huge ? INT64_MAX : value.get<int64_t>();
  if (huge || number > max) return OutOfRange(param, true, true, absl::StrCat(max), value.dump());
  if (number < min) return OutOfRange(param, true, false, absl::StrCat(min), value.dump());
  *out = number;
  return std::nullopt;
}

Problem ReadNumber(const json& value, const std::string& param, double min, double max, double* out) {
  if (!value.is_number()) return WrongType(value, param, "a decimal");
  const double number = value.get<double>();
  if (!(number <= max)) return OutOfRange(param, false, true, absl::StrCat(max), value.dump());
  if (number < min) return OutOfRange(param, false, false, absl::StrCat(min), value.dump());
  *out = number;
  return std::nullopt;
}

Problem ExpectArray(const json& value, const std::string& param, std::string_view of, size_t max_length) {
  if (!value.is_array()) return WrongType(value, param, absl::StrCat("an array of ", std::string(of)));
  if (value.size() > max_length) {
    return InvalidValue(
        absl::StrCat("Invalid '", param, "': array too long. Expected an array with maximum length ",
                     max_length, ", but got an array with length ", value.size(), " instead."),
        param, "array_above_max_length");
  }
  return std::nullopt;
}

Problem ReadTokens(const json& value, const std::string& param, size_t max_length,
                   std::vector<uint32_t>* out) {
  if (Problem problem = ExpectArray(value, param, "token ids", max_length)) return problem;
  out->clear();
  out->reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    int64_t id = 0;
    if (Problem problem = ReadInteger(value[i], absl::StrCat(param, "[", i, "]"), 0, UINT32_MAX, &id))
      return problem;
    out->push_back(static_cast<uint32_t>(id));
  }
  return std::nullopt;
}

}  // namespace quire::gateway
