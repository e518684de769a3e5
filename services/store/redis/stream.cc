#include "services/store/redis/stream.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store::redis {
namespace {

using boost::system::error_code;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

absl::Status Failed(std::string_view step, const error_code& error) {
  return absl::UnavailableError(absl::StrCat(std::string(step), ": ", error.message()));
}

absl::Status Unusable(std::string_view what, const std::string& file, const error_code& error) {
  return absl::InvalidArgumentError(
      absl::StrCat("the redis ", std::string(what), " in ", file, " cannot be used: ", error.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<asio::ssl::context>> NewTlsContext(const ClientOptions& options) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  error_code error;
  if (options.tls_ca.empty()) {
    context->set_default_verify_paths(error);
    if (error) return Unusable("CAs", "the system's folder", error);
  } else {
    context->load_verify_file(options.tls_ca, error);
    if (error) return Unusable("CA", options.tls_ca, error);
  }
  if (options.tls_certificate.empty() != options.tls_key.empty())
    return absl::InvalidArgumentError(
        "a redis client certificate and its key are given together or not at all");
  if (!options.tls_certificate.empty()) {
    context->use_certificate_chain_file(options.tls_certificate, error);
    if (error) return Unusable("client certificate", options.tls_certificate, error);
    context->use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
    if (error) return Unusable("client key", options.tls_key, error);
  }
  return context;
}

asio::awaitable<absl::Status> Stream::Connect(const Endpoint& endpoint, const ClientOptions& options) {
  absl::Status status = co_await ConnectSocket(endpoint);
  if (status.ok() && endpoint.tls) status = co_await Handshake(endpoint, options);
  co_return status;
}

asio::awaitable<absl::Status> Stream::ConnectSocket(const Endpoint& endpoint) {
  if (endpoint.path.empty()) {
    absl::Status status = co_await ConnectTcp(endpoint);
    co_return status;
  }
  asio::generic::stream_protocol::endpoint address(asio::local::stream_protocol::endpoint(endpoint.path));
  auto [error] = co_await socket_.async_connect(address, kTuple);
  co_return error ? Failed("connect", error) : absl::OkStatus();
}

asio::awaitable<absl::Status> Stream::ConnectTcp(const Endpoint& endpoint) {
  std::string port = absl::StrCat(endpoint.port);
  auto [error, addresses] = co_await resolver_.async_resolve(endpoint.host, port, kTuple);
  if (error) co_return Failed("name lookup", error);
  absl::Status status = absl::UnavailableError("name lookup: no address");
  for (const auto& entry : addresses) {
    if (closed_) co_return absl::UnavailableError("connect: given up");
    asio::generic::stream_protocol::endpoint address(entry.endpoint());
    error_code ignored;
    socket_.close(ignored);
    auto [failed] = co_await socket_.async_connect(address, kTuple);
    if (!failed) {
      socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
      co_return absl::OkStatus();
    }
    status = Failed("connect", failed);
  }
  co_return status;
}

asio::awaitable<absl::Status> Stream::Handshake(const Endpoint& endpoint, const ClientOptions& options) {
  auto context = NewTlsContext(options);
  if (!context.ok()) co_return context.status();
  if (closed_) co_return absl::UnavailableError("TLS handshake: given up");
  tls_ = std::make_unique<asio::ssl::stream<Socket&>>(socket_, **context);
  error_code error;
  tls_->set_verify_mode(asio::ssl::verify_peer, error);
  tls_->set_verify_callback(asio::ssl::host_name_verification(endpoint.host), error);
  asio::ip::make_address(endpoint.host, error);
  if (error) SSL_set_tlsext_host_name(tls_->native_handle(), endpoint.host.c_str());  // names only
  auto [failed] = co_await tls_->async_handshake(asio::ssl::stream_base::client, kTuple);
  co_return failed ? Failed("TLS handshake", failed) : absl::OkStatus();
}

asio::awaitable<Stream::Transferred> Stream::ReadSome(const std::array<asio::mutable_buffer, 2>& buffers) {
  if (tls_ != nullptr) {
    auto [error, bytes] = co_await tls_->async_read_some(buffers, kTuple);
    co_return Transferred(error, bytes);
  }
  auto [error, bytes] = co_await socket_.async_read_some(buffers, kTuple);
  co_return Transferred(error, bytes);
}

asio::awaitable<error_code> Stream::Write(const std::vector<asio::const_buffer>& buffers) {
  if (tls_ != nullptr) {
    auto [error, bytes] = co_await asio::async_write(*tls_, buffers, kTuple);
    co_return error;
  }
  auto [error, bytes] = co_await asio::async_write(socket_, buffers, kTuple);
  co_return error;
}

void Stream::Close() {
  closed_ = true;
  resolver_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace quire::store::redis
