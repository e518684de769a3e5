#include "gateway/openai/body.h"

#include "absl/strings/str_cat.h"

namespace quire::gateway {
namespace {

ApiError Unparsable(std::string why) {
  return {.message = absl::StrCat("We could not parse the JSON body of your request: ", why)};
}

// Looks at brackets and commas only, so that a body made to be costly is refused before it costs.
Problem CheckSize(std::string_view body) {
  size_t depth = 0, values = 1;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth)
        return Unparsable(absl::StrCat("it is nested deeper than ", kMaxDepth, " levels."));
      ++values;
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == ',') {
      ++values;
    }
    if (values > kMaxValues) return Unparsable(absl::StrCat("it holds more than ", kMaxValues, " values."));
  }
  return std::nullopt;
}

}  // namespace

Problem ParseBody(std::string_view body, nlohmann::json* out) {
  if (body.empty()) return Unparsable("it is empty.");
  if (Problem problem = CheckSize(body)) return problem;
  *out = nlohmann::json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (out->is_discarded()) return Unparsable("it is not valid JSON in UTF-8.");
  if (!out->is_object()) return Unparsable("it is not an object.");
  return std::nullopt;
}

}  // namespace quire::gateway
