// quire-store: keeps KV blocks as codes and serves them over gRPC.
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/process.h"
#include "services/runtime/server.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"

namespace {

using quire::store::LocalStore;
using quire::store::LocalStoreOptions;
using quire::store::StoreServices;
using quire::store::StoreServicesOptions;

struct Flags {
  quire::runtime::CommonFlags common;
  quire::runtime::AccessOptions access;
  LocalStoreOptions store;
  uint64_t idle_seconds = 30;
  uint64_t drain_seconds = 10;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--host-bytes", flags.store.host_bytes,
                 "Size of the host memory tier, reserved at start; 512MiB, 16GiB, …")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->capture_default_str();
  app.add_flag("--host-prefault", flags.store.host_prefault, "Touch all of that memory at start");
  app.add_option("--max-put-sessions", flags.store.max_put_sessions, "Put streams open at a time")
      ->capture_default_str();
  app.add_option("--max-announced-bytes", flags.store.max_announced_bytes,
                 "Bytes that open put streams may have announced together; 0: the size of the host tier")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--max-staged-raw-bytes", flags.store.max_staged_raw_bytes,
                 "Raw KV received and not yet encoded")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--idle-timeout", flags.idle_seconds,
                 "Seconds after which a stream without progress is ended")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_seconds,
                 "Seconds that running calls get to finish after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app.add_flag("--enable-faults", flags.store.enable_faults, "Let StoreAdmin.InjectFault work; for tests");
  quire::runtime::AddAccessFlags(app, flags.access);
  quire::runtime::AddCommonFlags(app, flags.common);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "quire-store: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Run(Flags& flags) {
  std::shared_ptr<prometheus::Registry> registry = quire::runtime::NewRegistry();
  flags.store.registry = registry;
  absl::StatusOr<std::shared_ptr<LocalStore>> store = LocalStore::Create(flags.store);
  if (!store.ok()) return Fail(store.status());
  auto authenticator = quire::runtime::OpenAuthenticator(flags.access, flags.common.server.listen);
  if (!authenticator.ok()) return Fail(authenticator.status());
  StoreServicesOptions options;
  options.authenticator = *std::move(authenticator);
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
  (*server)->SetServing(true);
  std::printf("quire-store ready, listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  spdlog::info("quire-store listens on {} with {} bytes of host memory", (*server)->address(),
               flags.store.host_bytes);

  int signal = quire::runtime::WaitForSignal();
  spdlog::info("quire-store drains after signal {}", signal);
  (*server)->Shutdown(std::chrono::seconds(flags.drain_seconds));
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
