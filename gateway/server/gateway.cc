#include "gateway/server/gateway.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "gateway/auth/secret.h"
#include "gateway/server/api.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"

namespace quire::gateway {
namespace asio = boost::asio;

namespace {

absl::StatusOr<std::vector<WorkerEndpoint>> Connect(const GatewayOptions& options) {
  std::vector<WorkerEndpoint> endpoints;
  const runtime::ChannelOptions tls{options.worker_ca, options.worker_certificate, options.worker_key};
  for (const std::string& address : options.workers) {
    QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, runtime::NewChannel(address, tls));
    endpoints.push_back({address, std::move(channel)});
  }
  for (const auto& channel : options.channels)
    endpoints.push_back({absl::StrCat("local-", endpoints.size()), channel});
  if (endpoints.empty()) return absl::InvalidArgumentError("the gateway needs at least one worker");
  return endpoints;
}

int ThreadCount(int wanted) {
  if (wanted > 0) return wanted;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 4);
}

}  // namespace

// In the order of their making; they go in the opposite one, after the threads.
struct Gateway::Parts {
  std::shared_ptr<prometheus::Registry> registry;
  std::unique_ptr<Metrics> metrics;
  asio::io_context io;
  std::unique_ptr<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::vector<std::thread> threads;
  std::unique_ptr<WorkerPool> pool;
  std::unique_ptr<Api> api;
  std::unique_ptr<http::Server> server;
  std::once_flag stopped;

  void Run(int count) {
    work = std::make_unique<asio::executor_work_guard<asio::io_context::executor_type>>(io.get_executor());
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this] { io.run(); });
      pthread_setname_np(threads.back().native_handle(), "gateway-http");
    }
  }

  void Stop(std::chrono::milliseconds deadline) {
    std::call_once(stopped, [&] {
      if (server) server->Shutdown(deadline);
      if (pool) pool->Shutdown();
      work.reset();
      for (auto& thread : threads) thread.join();
    });
  }

  ~Parts() { Stop(std::chrono::milliseconds(0)); }
};

Gateway::Gateway(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Gateway::~Gateway() = default;

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(GatewayOptions options) {
  QUIRE_ASSIGN_OR_RETURN(std::string secret, LoadSecret({options.secret_file, options.data_dir}));
  QUIRE_ASSIGN_OR_RETURN(std::vector<WorkerEndpoint> endpoints, Connect(options));

  auto parts = std::make_unique<Parts>();
  Parts* p = parts.get();
  p->registry = options.registry ? options.registry : runtime::NewRegistry();
  p->metrics = std::make_unique<Metrics>(p->registry);
  for (const auto& endpoint : endpoints) p->metrics->WorkerReady(endpoint.name, false);
  p->Run(ThreadCount(options.threads));

  PoolOptions pool;
  pool.on_change = [p](const std::string& worker, bool ready) { p->metrics->WorkerReady(worker, ready); };
  p->pool = WorkerPool::Start(p->io.get_executor(), std::move(endpoints), std::move(pool));
  p->api =
      std::make_unique<Api>(*p->pool, *p->metrics, CompletionOptions{std::move(secret), options.max_active});

  http::ServerOptions http{
      .listen = options.listen,
      .certificate = options.tls_certificate,
      .key = options.tls_key,
      .client_ca = options.tls_client_ca,
      .limits = options.limits,
      .refusal = [p](int status, const std::string& message) { return p->api->Refusal(status, message); }};
  QUIRE_ASSIGN_OR_RETURN(p->server, http::Server::Start(p->io, std::move(http),
                                                        [p](http::Request request, http::Exchange& exchange) {
                                                          return p->api->Handle(std::move(request), exchange);
                                                        }));
  return std::unique_ptr<Gateway>(new Gateway(std::move(parts)));
}

int Gateway::port() const { return parts_->server->port(); }
const std::string& Gateway::address() const { return parts_->server->address(); }
bool Gateway::ready() const { return parts_->pool->ready(); }
const std::shared_ptr<prometheus::Registry>& Gateway::registry() const { return parts_->registry; }
void Gateway::Shutdown(std::chrono::milliseconds deadline) { parts_->Stop(deadline); }

}  // namespace quire::gateway
