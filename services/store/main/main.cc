// quire-store: keeps KV blocks as codes and serves them over gRPC.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/process.h"
#include "services/runtime/server.h"
#include "services/store/config/store_flags.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"

namespace {

using quire::store::LocalStore;
using quire::store::LocalStoreOptions;
using quire::store::StoreFlags;
using quire::store::StoreServices;
using quire::store::StoreServicesOptions;

struct Flags {
  quire::runtime::CommonFlags common;
  quire::runtime::AccessOptions access;
  quire::store::StoreFlags store;
  quire::store::ArenaOptions arena;
  uint64_t idle_seconds = 30;
  uint64_t drain_seconds = 10;
};

void AddFlags(CLI::App& app, Flags& flags) {
  quire::store::AddStoreFlags(app, flags.store);
  app.add_option("--idle-timeout", flags.idle_seconds,
                 "Seconds after which a stream without progress is ended")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_seconds,
                 "Seconds that running calls get to finish after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app.add_option("--arena-bytes", flags.arena.max_bytes,
                 "Memory shared with clients on this machine, all together; 0: none")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--arena-client-bytes", flags.arena.max_client_bytes, "Of that, for one client")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--arena-clients", flags.arena.max_arenas, "Clients with shared memory at a time")
      ->capture_default_str();
  app.add_option("--arena-folder", flags.arena.parent_folder,
                 "Where the folder with the socket that hands it over is made; empty: the run-time folder");
  quire::runtime::AddAccessFlags(app, flags.access);
  quire::runtime::AddCommonFlags(app, flags.common);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "quire-store: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Run(Flags& flags) {
  std::shared_ptr<prometheus::Registry> registry = quire::runtime::NewRegistry();
  absl::StatusOr<LocalStoreOptions> opened = quire::store::OpenTiers(flags.store);
  if (!opened.ok()) return Fail(opened.status());
  opened->registry = registry;
  uint64_t host_bytes = opened->host_bytes;
  absl::StatusOr<std::shared_ptr<LocalStore>> store = LocalStore::Create(*std::move(opened));
  if (!store.ok()) return Fail(store.status());
  auto authenticator = quire::runtime::OpenAuthenticator(flags.access, flags.common.server.listen);
  if (!authenticator.ok()) return Fail(authenticator.status());
  StoreServicesOptions options;
  options.authenticator = *std::move(authenticator);
  options.arena = flags.arena;
  options.stream_idle_limit = std::chrono::seconds(flags.idle_seconds);
  StoreServices services(*store, *registry, options);

  std::unique_ptr<quire::runtime::MetricsListener> metrics;
  if (!flags.common.metrics_listen.empty()) {
    auto listener = quire::runtime::MetricsListener::Start(flags.common.metrics_listen, registry);
    if (!listener.ok()) return Fail(listener.status());
    metrics = *std::move(listener);
    std::printf("quire-store metrics on port %d\n", metrics->port());
  }
  auto server = quire::runtime::Server::Start(flags.common.server, services.services());
  if (!server.ok()) return Fail(server.status());
  services.OnDrain([s = server->get()] { s->SetServing(false); });
  (*server)->SetServing(true);
  std::printf("quire-store ready, listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  spdlog::info("quire-store listens on {} with {} bytes of host memory", (*server)->address(), host_bytes);

  int signal = quire::runtime::WaitForSignal();
  spdlog::info("quire-store drains after signal {}", signal);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(flags.drain_seconds);
  if (absl::Status drained = services.Drain(std::chrono::seconds(flags.drain_seconds)); !drained.ok())
    spdlog::warn("quire-store: {}", std::string(drained.message()));
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  (*server)->Shutdown(std::max(left, std::chrono::milliseconds(0)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  quire::runtime::BlockSignals();
  CLI::App app(
      "Keeps KV blocks as codes, finds the longest stored prefix of a prompt, gives codes or tensors back.",
      "quire-store");
  Flags flags;
  AddFlags(app, flags);
  if (int code = quire::runtime::ParseFlags(app, argc, argv); code >= 0) return code;
  if (absl::Status status = quire::runtime::InitLogging("quire-store", flags.common.log_level); !status.ok())
    return Fail(status);
  return Run(flags);
}
