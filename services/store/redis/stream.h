// One byte stream to a server: TCP or a Unix socket, TLS over it where the endpoint says so.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/system/error_code.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/store/redis/options.h"

namespace quire::store::redis {

namespace asio = boost::asio;

// Belongs to the thread that runs the io_context. One read and one write may be under way at a time; the
// buffers must live until they end. Close ends both, and Connect.
class Stream {
 public:
  explicit Stream(asio::io_context& io) : socket_(io), resolver_(io) {}

  // UNAVAILABLE naming the step that failed; INVALID_ARGUMENT if a TLS file cannot be used.
  asio::awaitable<absl::Status> Connect(const Endpoint& endpoint, const ClientOptions& options);
  using Transferred = std::pair<boost::system::error_code, size_t>;
  asio::awaitable<Transferred> ReadSome(const std::array<asio::mutable_buffer, 2>& buffers);
  asio::awaitable<boost::system::error_code> Write(const std::vector<asio::const_buffer>& buffers);
  void Close();

 private:
  using Socket = asio::generic::stream_protocol::socket;

  asio::awaitable<absl::Status> ConnectSocket(const Endpoint& endpoint);
  asio::awaitable<absl::Status> ConnectTcp(const Endpoint& endpoint);
  asio::awaitable<absl::Status> Handshake(const Endpoint& endpoint, const ClientOptions& options);

  Socket socket_;
  asio::ip::tcp::resolver resolver_;
  std::unique_ptr<asio::ssl::stream<Socket&>> tls_;  // over socket_
  bool closed_ = false;
};

// The TLS context that the options ask for. INVALID_ARGUMENT naming a file that cannot be used.
absl::StatusOr<std::unique_ptr<asio::ssl::context>> NewTlsContext(const ClientOptions& options);

}  // namespace quire::store::redis
