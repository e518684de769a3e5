// The gateway as an object: what quire-gateway runs, and the all-in-one beside its worker and store.
#pragma once

#include <prometheus/registry.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/http/server.h"

namespace grpc {
class Channel;
}

namespace quire::gateway {

struct GatewayOptions {
  std::string listen = "127.0.0.1:8000";                // host:port; port 0 picks one
  std::string tls_certificate, tls_key, tls_client_ca;  // PEM files; the first two empty: plain HTTP
  // Workers: by address, over the network, and by channel (in-process ones), in any mixture.
  std::vector<std::string> workers;
  std::string worker_ca, worker_certificate,
      worker_key;  // PEM files for TLS to `workers`; all empty: plaintext
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  std::string secret_file, data_dir;  // see auth/secret.h
  size_t max_active = 4096;           // requests at workers at a time; over it 429
  int threads = 0;                    // that serve HTTP; 0: by the number of cores
  http::Limits limits;
  std::shared_ptr<prometheus::Registry> registry;  // null: its own
};

// Thread-safe. Serves as soon as Start returns; /health says 503 until a worker has described its model.
class Gateway {
 public:
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(GatewayOptions options);
  ~Gateway();  // Shutdown(0) if not done

  int port() const;
  const std::string& address() const;  // host:port with the real port
  bool ready() const;                  // a worker is
  const std::shared_ptr<prometheus::Registry>& registry() const;

  // Takes no more requests, lets running ones finish until the deadline, then ends them.
  void Shutdown(std::chrono::milliseconds deadline);

 private:
  struct Parts;
  explicit Gateway(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace quire::gateway
