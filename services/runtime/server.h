// A gRPC server as every service of Quire runs it: TLS, limits, health, reflection, orderly shutdown.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::runtime {

struct TlsOptions {
  std::string certificate, key;  // PEM files; both empty: no TLS. Re-read when they change.
  std::string client_ca;         // PEM file; set: clients must show a certificate signed by it (mTLS)
};

struct ServerOptions {
  std::string listen = "127.0.0.1:0";  // host:port, or unix:/path
  TlsOptions tls;
  int max_streams = 256;  // calls served at a time; over it RESOURCE_EXHAUSTED
  int max_message_bytes = 4 << 20;
};

// Starts answering in Start; health says NOT_SERVING until SetServing(true). Thread-safe.
class Server {
 public:
  // The services are borrowed and must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       const std::vector<grpc::Service*>& services);
  ~Server();

  const std::string& address() const { return address_; }  // host:port with the real port
  int port() const { return port_; }
  void SetServing(bool serving);
  // Stops taking calls, lets running ones finish until the deadline, then cancels them.
  void Shutdown(std::chrono::milliseconds deadline);
  // A channel to this server that stays inside the process.
  std::shared_ptr<grpc::Channel> InProcessChannel();

 private:
  Server() = default;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_ = 0;
};

// A client channel with our limits and keepalive. `ca`: PEM file for TLS, with optional client certificate;
// all three empty: plaintext. `token_file`: holds a bearer token to send with every call; INVALID_ARGUMENT
// where it would leave this machine in the clear.
struct ChannelOptions {
  std::string ca, certificate, key;
  std::string token_file;
};
absl::StatusOr<std::shared_ptr<grpc::Channel>> NewChannel(const std::string& address,
                                                          const ChannelOptions& options = {});

}  // namespace quire::runtime
