// The text of HTTP/1.1: heads and chunks we send, targets we get.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/http/server.h"

namespace quire::gateway::http {

std::string_view ReasonPhrase(int status);

struct HeadOptions {
  bool keep_alive = true;
  std::optional<size_t> content_length;  // absent: chunked, or until the connection closes
  bool chunked = false;
};
void AppendHead(int status, std::string_view content_type, const Headers& headers, const HeadOptions& options,
                std::string* out);
// data must not be empty: an empty chunk ends the body.
void AppendChunk(std::string_view data, std::string* out);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// %41 → A; a broken escape stays as it is.
std::string PercentDecode(std::string_view text);

// Splits "/a/b?c" and "http://host/a/b?c" into path and query; false if it is neither.
bool SplitTarget(std::string_view target, std::string* path, std::string* query);

}  // namespace quire::gateway::http
