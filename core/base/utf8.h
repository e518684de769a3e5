// UTF-8 one character at a time, as Unicode's table 3-7 defines it: no overlong forms, no surrogates, nothing
// above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quire {

enum class Utf8Kind {
  kWhole,    // a character of `bytes` bytes
  kPartial,  // all `bytes` bytes begin a character; more are needed
  kInvalid,  // no character begins so; `bytes` is what one U+FFFD stands for (the maximal subpart, as in
             // WHATWG's decoder)
};

struct Utf8Step {
  Utf8Kind kind;
  size_t bytes;
};

// What stands at the start of `text`. REQUIRES: text is not empty.
inline Utf8Step NextUtf8(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Kind::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Kind::kInvalid, 1};
  size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Kind::kPartial, i};
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {  // the second byte rules out overlong forms, surrogates and what lies beyond U+10FFFF
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kWhole, length};
}

// Byte offset of the first character that is not whole, if any.
inline std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    Utf8Step step = NextUtf8(text.substr(at));
    if (step.kind != Utf8Kind::kWhole) return at;
    at += step.bytes;
  }
  return std::nullopt;
}

}  // namespace quire
