// From the C ABI's results to Status; private to core/text.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/text/rust/quire_text.h"

namespace quire {

inline QuireTextSlice AsSlice(std::string_view s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

inline std::string_view AsStringView(QuireTextSlice s) {
  return {reinterpret_cast<const char*>(s.data), s.size};
}

// The string that Rust made; gives Rust's memory back.
inline std::string TakeString(QuireTextBytes bytes) {
  std::string out(reinterpret_cast<const char*>(bytes.data), bytes.size);
  quire_text_free_bytes(bytes);
  return out;
}

// REQUIRES: code is what a call returned, `error` what it filled if the code is not 0.
inline absl::Status RustStatus(int32_t code, QuireTextBytes error) {
  if (code == 0) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(code), TakeString(error));
}

}  // namespace quire
