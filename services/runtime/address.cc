#include "services/runtime/address.h"

#include <arpa/inet.h>

#include <string_view>

namespace quire::runtime {
namespace {

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "[::1]:80" → "::1", "host:80" → "host", "::1" → "::1".
std::string HostOf(std::string_view address) {
  if (TakePrefix(address, "[")) return std::string(address.substr(0, address.find(']')));
  size_t colon = address.find(':');
  bool one_colon = colon != std::string_view::npos && address.find(':', colon + 1) == std::string_view::npos;
  return std::string(one_colon ? address.substr(0, colon) : address);
}

}  // namespace

bool IsLocalAddress(const std::string& address) {
  std::string_view rest = address;
  if (rest.starts_with("unix:") || rest.starts_with("unix-abstract:")) return true;
  if (TakePrefix(rest, "dns:") || TakePrefix(rest, "ipv4:") || TakePrefix(rest, "ipv6:")) {
    // Of dns://authority/host only an empty authority is this machine's own resolver.
    if (TakePrefix(rest, "///")) {
    } else if (rest.starts_with("/")) {
      return false;
    }
  }
  if (rest.find(',') != std::string_view::npos) return false;
  const std::string host = HostOf(rest);
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

}  // namespace quire::runtime
