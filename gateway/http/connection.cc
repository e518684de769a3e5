#include "gateway/http/connection.h"

#include <boost/asio/ssl/stream.hpp>

#include "gateway/http/connection_impl.h"

namespace quire::gateway::http {

using Tcp = asio::ip::tcp::socket;
using Tls = asio::ssl::stream<asio::ip::tcp::socket>;

template <>
asio::awaitable<bool> StreamConnection<Tcp>::Handshake() {
  co_return true;
}

template <>
asio::awaitable<void> StreamConnection<Tcp>::ShutdownStream() {
  error_code ec;
  Socket().shutdown(asio::socket_base::shutdown_both, ec);
  co_return;
}

namespace {

// Owns the TLS context too: it may be replaced in the server while this connection lives.
class TlsConnection final : public StreamConnection<Tls> {
 public:
  TlsConnection(std::shared_ptr<asio::ssl::context> tls, asio::ip::tcp::socket socket,
                std::shared_ptr<ConnectionContext> context)
      : StreamConnection<Tls>(std::move(context), std::move(socket), *tls), tls_(std::move(tls)) {}

 private:
  std::shared_ptr<asio::ssl::context> tls_;
};

}  // namespace

template <>
asio::awaitable<bool> StreamConnection<Tls>::Handshake() {
  SetDeadline(context_->limits.header_time);
  auto [ec] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kTuple);
  ClearDeadline();
  if (ec) broken_ = true;
  co_return !ec;
}

template <>
asio::awaitable<void> StreamConnection<Tls>::ShutdownStream() {
  if (watching_) co_return;  // the watch owns the reading side; the socket is closed next
  SetDeadline(context_->limits.linger);
  co_await stream_.async_shutdown(kTuple);
  ClearDeadline();
}

std::shared_ptr<Connection> NewTcpConnection(asio::ip::tcp::socket socket,
                                             std::shared_ptr<ConnectionContext> context) {
  return std::make_shared<StreamConnection<Tcp>>(std::move(context), std::move(socket));
}

std::shared_ptr<Connection> NewTlsConnection(asio::ip::tcp::socket socket,
                                             std::shared_ptr<asio::ssl::context> tls,
                                             std::shared_ptr<ConnectionContext> context) {
  return std::make_shared<TlsConnection>(std::move(tls), std::move(socket), std::move(context));
}

}  // namespace quire::gateway::http
