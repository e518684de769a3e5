// How to reach a Redis or Valkey, and what of it this store may use.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace CLI {
class App;
}

namespace quire::store::redis {

// One server: host:port, [ipv6]:port, unix:path; redis:// or rediss:// (TLS) may stand before a host.
struct Endpoint {
  std::string host;  // without brackets
  uint16_t port = 0;
  std::string path;  // of a Unix socket; then host is empty
  bool tls = false;

  // INVALID_ARGUMENT naming the address and what is wrong with it. The port is 6379 if none is given.
  static absl::StatusOr<Endpoint> Parse(std::string_view address);
  std::string ToString() const;  // what Parse takes
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

struct ClientOptions {
  std::vector<std::string> addresses;  // one server, or some nodes of a cluster
  bool cluster = false;
  uint32_t database = 0;      // SELECT; a cluster has only 0
  std::string user;           // "": the default user
  std::string password_file;  // its first line; "": no AUTH. Read at each connect, as are the TLS files
  // PEM files. With rediss:// addresses only; the CA defaults to the system's. A server shows a certificate
  // for its host name or address.
  std::string tls_ca, tls_certificate, tls_key;
  std::string client_name = "quire-store";
  std::chrono::milliseconds timeout{1000};    // of connecting, and of a batch of small commands
  std::chrono::milliseconds keepalive{2000};  // an idle connection is asked for a PONG so often
  // Reconnects wait from the first to the second, doubling, each with up to half of it taken off at random.
  std::chrono::milliseconds first_pause{20}, last_pause{2000};
  uint32_t connections = 2;                   // to each server
  uint64_t window_bytes = uint64_t{8} << 20;  // values asked for on a connection and not yet received
};

struct TierOptions {
  ClientOptions client;
  std::string hmac_key_file;          // its bytes are the key, at least 16; "": no HMAC
  std::chrono::seconds ttl{0};        // of all keys; 0: none
  uint64_t capacity_bytes = 0;        // of what this process has written and not removed; 0: no limit
  std::string prefix = "quire";       // of all keys; [A-Za-z0-9._-]{1,64}
  std::chrono::seconds staging{600};  // what a write that breaks off leaves behind is gone after this
  uint64_t slowest_bytes_per_second = uint64_t{16} << 20;  // batches get their bytes over this more time
};

// Adds --redis-address (repeatable), --redis-cluster, --redis-database, --redis-user, --redis-password-file,
// --redis-tls-ca, --redis-tls-cert, --redis-tls-key, --redis-hmac-file, --redis-ttl (seconds),
// --redis-timeout-ms, --redis-bytes, --redis-connections and --redis-prefix. No address: no Redis tier.
void AddRedisFlags(CLI::App& app, TierOptions& options);

}  // namespace quire::store::redis
