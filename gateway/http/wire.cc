#include "gateway/http/wire.h"

#include <charconv>
#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quire::gateway::http {
namespace {

// RFC 9110 wants a Date; formatting it is done once a second and thread.
std::string_view DateLine() {
  thread_local std::time_t last = 0;
  thread_local char line[64];
  std::time_t now = std::time(nullptr);
  if (now != last) {
    std::tm utc{};
    gmtime_r(&now, &utc);
    std::strftime(line, sizeof line, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
    last = now;
  }
  return line;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

const std::string* Request::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (absl::EqualsIgnoreCase(key, std::string(name))) return &value;
  }
  return nullptr;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Status";
  }
}

void AppendHead(int status, std::string_view content_type, const Headers& headers, const HeadOptions& options,
                std::string* out) {
  absl::StrAppend(out, "HTTP/1.1 ", status, " ");
  out->append(ReasonPhrase(status)).append("\r\n").append(DateLine());
  if (!content_type.empty()) out->append("Content-Type: ").append(content_type).append("\r\n");
  for (const auto& [name, value] : headers) out->append(name).append(": ").append(value).append("\r\n");
  if (options.content_length) absl::StrAppend(out, "Content-Length: ", *options.content_length, "\r\n");
  if (options.chunked) out->append("Transfer-Encoding: chunked\r\n");
  out->append(options.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
}

void AppendChunk(std::string_view data, std::string* out) {
  char size[17];
  auto [end, ec] = std::to_chars(size, size + sizeof size, data.size(), 16);
  out->append(size, end).append("\r\n").append(data).append("\r\n");
}

std::string PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      int high = HexValue(text[i + 1]), low = HexValue(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out.push_back(static_cast<char>(high * 16 + low));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

bool SplitTarget(std::string_view target, std::string* path, std::string* query) {
  if (target.empty()) return false;
  if (target[0] != '/') {  // absolute form, as sent to proxies
    size_t scheme = target.find("://");
    if (scheme == std::string_view::npos) return false;
    target.remove_prefix(scheme + 3);
    size_t slash = target.find_first_of("/?");
    if (slash == std::string_view::npos || target[slash] == '?') return false;
    target.remove_prefix(slash);
  }
  size_t mark = target.find('?');
  *path = std::string(target.substr(0, mark));
  *query = mark == std::string_view::npos ? "" : std::string(target.substr(mark + 1));
  return true;
}

}  // namespace quire::gateway::http
