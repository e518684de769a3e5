#include "gateway/http/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gateway/http/connection.h"

namespace quire::gateway::http {
namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr auto kTlsCheckInterval = std::chrono::seconds(5);

// Host (without the brackets of [v6]; empty: all) and port.
absl::StatusOr<std::pair<std::string, std::string>> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint16_t port = 0;
  if (colon != std::string::npos) {
    const char* end = address.data() + address.size();
    auto [stop, ec] = std::from_chars(address.data() + colon + 1, end, port);
    if (ec == std::errc() && stop == end) {
      std::string host = address.substr(0, colon);
      if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
      return std::pair(host.empty() ? std::string("0.0.0.0") : host, std::to_string(port));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("listen address '", address, "' is not host:port"));
}

absl::StatusOr<std::shared_ptr<asio::ssl::context>> LoadTls(const ServerOptions& options) {
  if (options.certificate.empty() && options.key.empty() && options.client_ca.empty()) return nullptr;
  if (options.certificate.empty() || options.key.empty()) {
    return absl::InvalidArgumentError("TLS needs both a certificate and a key");
  }
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  error_code ec;
  context->set_options(
      asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1,
      ec);
  context->use_certificate_chain_file(options.certificate, ec);
  if (ec)
    return absl::InvalidArgumentError(
        absl::StrCat("TLS certificate ", options.certificate, ": ", ec.message()));
  context->use_private_key_file(options.key, asio::ssl::context::pem, ec);
  if (ec) return absl::InvalidArgumentError(absl::StrCat("TLS key ", options.key, ": ", ec.message()));
  if (options.client_ca.empty()) return context;
  context->load_verify_file(options.client_ca, ec);
  if (ec)
    return absl::InvalidArgumentError(absl::StrCat("TLS client CA ", options.client_ca, ": ", ec.message()));
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert, ec);
  return context;
}

// When the files of TLS were last written: changes when one of them does.
std::vector<std::filesystem::file_time_type> WriteTimes(const ServerOptions& options) {
  std::vector<std::filesystem::file_time_type> times;
  for (const auto& path : {options.certificate, options.key, options.client_ca}) {
    std::error_code ec;
    times.push_back(path.empty() ? std::filesystem::file_time_type()
                                 : std::filesystem::last_write_time(path, ec));
  }
  return times;
}

}  // namespace

class Server::Impl : public std::enable_shared_from_this<Server::Impl> {
 public:
  Impl(asio::io_context& io, ServerOptions options, Handler handler)
      : io_(io),
        options_(std::move(options)),
        acceptor_(asio::make_strand(io)),
        sweep_(acceptor_.get_executor()) {
    context_ = std::make_shared<ConnectionContext>();
    context_->limits = options_.limits;
    context_->handler = std::move(handler);
    context_->refusal = options_.refusal;
  }

  absl::Status Listen();
  void Start();
  void Shutdown(std::chrono::milliseconds deadline);
  int port() const { return port_; }
  const std::string& address() const { return address_; }
  size_t connections() const {
    std::lock_guard lock(mutex_);
    return connections_.size();
  }

 private:
  asio::awaitable<void> Accept();
  asio::awaitable<void> Sweep();
  void Serve(tcp::socket socket);
  void ReloadTls();
  void Closed(uint64_t id);
  template <typename F>
  void ForEach(F f) {
    std::vector<std::shared_ptr<Connection>> all;
    {
      std::lock_guard lock(mutex_);
      all.reserve(connections_.size());
      for (auto& [id, connection] : connections_) all.push_back(connection);
    }
    for (auto& connection : all) f(*connection);
  }

  asio::io_context& io_;
  const ServerOptions options_;
  std::shared_ptr<ConnectionContext> context_;
  // For new connections; null: plain. On the acceptor's strand.
  std::shared_ptr<asio::ssl::context> tls_;
  std::vector<std::filesystem::file_time_type> tls_times_;
  std::chrono::steady_clock::time_point tls_checked_;
  tcp::acceptor acceptor_;
  asio::steady_timer sweep_;
  int port_ = 0;
  std::string address_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint64_t, std::shared_ptr<Connection>> connections_;
  uint64_t next_id_ = 0;
  int loops_ = 0;  // Accept and Sweep, while they run
  bool shut_down_ = false;
};

absl::Status Server::Impl::Listen() {
  auto split = SplitAddress(options_.listen);
  if (!split.ok()) return split.status();
  auto tls = LoadTls(options_);
  if (!tls.ok()) return tls.status();
  tls_ = *std::move(tls);
  tls_times_ = WriteTimes(options_);
  auto failed = [&](std::string_view what, const error_code& ec) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.listen, ": ", std::string(what), ": ", ec.message()));
  };
  error_code ec;
  tcp::resolver resolver(io_);
  auto found = resolver.resolve(split->first, split->second, tcp::resolver::passive, ec);
  if (ec || found.empty()) return failed("resolving", ec);
  tcp::endpoint endpoint = found.begin()->endpoint();
  if (acceptor_.open(endpoint.protocol(), ec); ec) return failed("socket", ec);
  acceptor_.set_option(asio::socket_base::reuse_address(true), ec);
  if (acceptor_.bind(endpoint, ec); ec) return failed("bind", ec);
  if (acceptor_.listen(4096, ec); ec) return failed("listen", ec);
  port_ = acceptor_.local_endpoint(ec).port();
  const bool v6 = endpoint.address().is_v6();
  address_ = absl::StrCat(v6 ? "[" : "", endpoint.address().to_string(ec), v6 ? "]:" : ":", port_);
  return absl::OkStatus();
}

void Server::Impl::Start() {
  loops_ = 2;
  auto ended = [self = shared_from_this()](std::exception_ptr) {
    std::lock_guard lock(self->mutex_);
    --self->loops_;
    self->changed_.notify_all();
  };
  asio::co_spawn(
      acceptor_.get_executor(), [self = shared_from_this()] { return self->Accept(); }, ended);
  asio::co_spawn(
      acceptor_.get_executor(), [self = shared_from_this()] { return self->Sweep(); }, ended);
}

asio::awaitable<void> Server::Impl::Accept() {
  asio::steady_timer pause(acceptor_.get_executor());
  while (!context_->draining) {
    auto [ec, socket] = co_await acceptor_.async_accept(asio::make_strand(io_), kTuple);
    if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) break;
    if (ec) {  // out of descriptors or memory: leave the rest in the backlog for a moment
      spdlog::warn("accept failed: {}", ec.message());
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(kTuple);
      continue;
    }
    Serve(std::move(socket));
  }
}

void Server::Impl::Serve(tcp::socket socket) {
  error_code ec;
  socket.set_option(tcp::no_delay(true), ec);
  std::shared_ptr<Connection> connection;
  uint64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    if (context_->draining || connections_.size() >= options_.limits.connections) return;  // closes it
    connection = tls_ ? NewTlsConnection(std::move(socket), tls_, context_)
                      : NewTcpConnection(std::move(socket), context_);
    id = next_id_++;
    connections_.emplace(id, connection);
  }
  connection->Start([self = shared_from_this(), id] { self->Closed(id); });
}

void Server::Impl::Closed(uint64_t id) {
  std::shared_ptr<Connection> last;  // destroyed outside the lock
  std::lock_guard lock(mutex_);
  if (auto it = connections_.find(id); it != connections_.end()) {
    last = std::move(it->second);
    connections_.erase(it);
  }
  changed_.notify_all();
}

// One timer for all connections' deadlines: they are far apart and need no precision, and an idle stream
// costs none of its own.
asio::awaitable<void> Server::Impl::Sweep() {
  const Limits& l = options_.limits;
  auto shortest = std::min({l.idle, l.header_time, l.body_time, l.write_time, l.linger});
  auto period = std::clamp<std::chrono::milliseconds>(shortest / 8, std::chrono::milliseconds(5),
                                                      std::chrono::milliseconds(500));
  while (acceptor_.is_open()) {
    sweep_.expires_after(period);
    if (auto [ec] = co_await sweep_.async_wait(kTuple); ec) break;
    auto now = std::chrono::steady_clock::now();
    ForEach([now](Connection& connection) { connection.CheckDeadline(now); });
    if (tls_ && now - tls_checked_ > kTlsCheckInterval) {
      tls_checked_ = now;
      ReloadTls();
    }
  }
}

// Connections keep the context they began with.
void Server::Impl::ReloadTls() {
  auto times = WriteTimes(options_);
  if (times == tls_times_) return;
  auto fresh = LoadTls(options_);
  if (!fresh.ok()) {  // half-written files, say: tried again at the next look
    spdlog::warn("new TLS files are not usable, the old ones stay: {}", fresh.status().ToString());
    return;
  }
  tls_ = *std::move(fresh);
  tls_times_ = std::move(times);
  spdlog::info("TLS files re-read");
}

void Server::Impl::Shutdown(std::chrono::milliseconds deadline) {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(shut_down_, true)) return;
    context_->draining = true;
  }
  // The sweep goes on until the end: draining must not wait for a client that stalls. So only the acceptor
  // stops here.
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
    error_code ec;
    self->acceptor_.cancel(ec);
  });
  ForEach([](Connection& connection) { connection.Drain(); });
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, deadline, [&] { return connections_.empty(); })) {
    lock.unlock();
    ForEach([](Connection& connection) { connection.Abort(); });
    lock.lock();
    changed_.wait(lock, [&] { return connections_.empty(); });
  }
  lock.unlock();
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
    error_code ec;
    self->acceptor_.close(ec);
    self->sweep_.cancel();
  });
  lock.lock();
  changed_.wait(lock, [&] { return loops_ == 0; });
}

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }
int Server::port() const { return impl_->port(); }
const std::string& Server::address() const { return impl_->address(); }
size_t Server::connections() const { return impl_->connections(); }
void Server::Shutdown(std::chrono::milliseconds deadline) { impl_->Shutdown(deadline); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(asio::io_context& io, ServerOptions options,
                                                      Handler handler) {
  auto impl = std::make_shared<Impl>(io, std::move(options), std::move(handler));
  if (absl::Status listening = impl->Listen(); !listening.ok()) return listening;
  impl->Start();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

}  // namespace quire::gateway::http
