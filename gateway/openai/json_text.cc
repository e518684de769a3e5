#include "gateway/openai/json_text.h"

#include <charconv>
#include <cmath>

#include "core/base/utf8.h"

namespace quire::gateway {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void AppendEscape(unsigned char c, std::string* out) {
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    case '\b':
      out->append("\\b");
      return;
    case '\f':
      out->append("\\f");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[c >> 4]);
      out->push_back(kHex[c & 15]);
  }
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  size_t copied = 0;
  for (size_t i = 0; i < text.size();) {
    auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    if (c < 0x80) {
      out->append(text, copied, i - copied);
      AppendEscape(c, out);
      copied = ++i;
      continue;
    }
    Utf8Step step = NextUtf8(text.substr(i));
    if (step.kind != Utf8Kind::kWhole) {
      out->append(text, copied, i - copied);
      out->append("\xEF\xBF\xBD");
      copied = i + step.bytes;
    }
    i += step.bytes;
  }
  out->append(text, copied, text.size() - copied);
  out->push_back('"');
}

void AppendJsonFloat(float value, std::string* out) {
  if (!std::isfinite(value)) value = -9999.0f;
  char text[32];
  auto [end, ec] = std::to_chars(text, text + sizeof text, value);
  out->append(text, end);
}

}  // namespace quire::gateway
