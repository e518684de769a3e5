#include "services/store/redis/options.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

constexpr uint16_t kDefaultPort = 6379;

bool Consume(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

}  // namespace

absl::StatusOr<Endpoint> Endpoint::Parse(std::string_view address) {
  auto wrong = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("redis address '", std::string(address), "': ", std::string(why)));
  };
  Endpoint endpoint;
  std::string_view rest = address;
  if (Consume(&rest, "unix:")) {
    constexpr size_t kLongestPath = 107;  // of sockaddr_un, less its final zero
    if (rest.empty() || rest.size() > kLongestPath) return wrong("a socket's path has 1 to 107 bytes");
    endpoint.path = rest;
    return endpoint;
  }
  endpoint.tls = Consume(&rest, "rediss://");
  if (!endpoint.tls) Consume(&rest, "redis://");
  if (rest.ends_with('/')) rest.remove_suffix(1);
  std::string_view port;
  if (Consume(&rest, "[")) {
    size_t close = rest.find(']');
    if (close == rest.npos) return wrong("the bracket of an IPv6 address is not closed");
    endpoint.host = rest.substr(0, close);
    rest.remove_prefix(close + 1);
    if (!rest.empty() && !Consume(&rest, ":")) return wrong("a colon and a port may follow the bracket");
    port = rest;
  } else {
    size_t colon = rest.rfind(':');
    endpoint.host = rest.substr(0, colon);
    if (colon != rest.npos) port = rest.substr(colon + 1);
    if (colon != rest.npos && port.empty()) return wrong("the port is missing");
    if (endpoint.host.find_first_of(":/@") != std::string::npos)
      return wrong("a host has no ':', '/' or '@'; IPv6 addresses stand in brackets, users in --redis-user");
  }
  if (endpoint.host.empty()) return wrong("the host is missing");
  endpoint.port = kDefaultPort;
  if (!port.empty()) {
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (error != std::errc() || end != port.data() + port.size() || endpoint.port == 0)
      return wrong("a port is a number from 1 to 65535");
  }
  return endpoint;
}

std::string Endpoint::ToString() const {
  if (!path.empty()) return absl::StrCat("unix:", path);
  bool v6 = host.find(':') != std::string::npos;
  return absl::StrCat(tls ? "rediss://" : "", v6 ? "[" : "", host, v6 ? "]" : "", ":", port);
}

void AddRedisFlags(CLI::App& app, TierOptions& options) {
  ClientOptions& client = options.client;
  app.add_option("--redis-address", client.addresses,
                 "Redis or Valkey that stores share: host:port, rediss://host:port (TLS) or unix:path; "
                 "repeat it to name several nodes of a cluster");
  app.add_flag("--redis-cluster", client.cluster, "Those addresses are nodes of a Redis Cluster");
  app.add_option("--redis-database", client.database, "Database number; a cluster has only 0")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--redis-user", client.user, "ACL user; default: Redis' default user");
  app.add_option("--redis-password-file", client.password_file,
                 "File whose first line is the password; read again at each connect");
  app.add_option("--redis-tls-ca", client.tls_ca,
                 "PEM file of the CAs that may sign Redis' certificate; default: the system's");
  app.add_option("--redis-tls-cert", client.tls_certificate, "PEM file: certificate shown to Redis");
  app.add_option("--redis-tls-key", client.tls_key, "PEM file: that certificate's key");
  app.add_option("--redis-hmac-file", options.hmac_key_file,
                 "File with a key of at least 16 bytes: all that is stored carries an HMAC and is checked");
  app.add_option_function<uint64_t>(
         "--redis-ttl", [&options](uint64_t s) { options.ttl = std::chrono::seconds(s); },
         "Seconds after which what was stored expires; 0: never")
      ->check(CLI::Range(uint64_t{0}, uint64_t{10} * 365 * 86400))
      ->default_str("0");
  app.add_option_function<uint64_t>(
         "--redis-timeout-ms", [&client](uint64_t ms) { client.timeout = std::chrono::milliseconds(ms); },
         "Milliseconds that connecting or a batch of small commands may take; large values get more time")
      ->check(CLI::Range(1, 600000))
      ->default_str("1000");
  app.add_option("--redis-bytes", options.capacity_bytes,
                 "Bytes that this store may have there at a time; 0: as many as Redis takes")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->capture_default_str();
  app.add_option("--redis-connections", client.connections, "Connections to each server")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--redis-prefix", options.prefix, "What the names of all keys begin with")
      ->capture_default_str();
}

}  // namespace quire::store::redis
