#include "services/quire/serve.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "core/base/status_macros.h"
#include "services/quire/all_in_one.h"
#include "services/quire/progress.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/process.h"
#include "services/store/config/store_flags.h"

namespace quire {
namespace {

struct Flags {
  runtime::CommonFlags common;  // its server is the HTTP one
  std::string grpc_listen = "127.0.0.1:0";
  std::string kv_codec = "tq:k4v4";
  uint64_t drain_seconds = 10;
  store::StoreFlags store;
  AllInOneOptions options;
};

// Where data goes that outlives the process, by the XDG base directory specification.
std::string DefaultDataFolder() {
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data != '\0')
    return std::string(data) + "/quire";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::string(home) + "/.local/share/quire";
  return "quire-data";
}

void AddModelFlags(CLI::App& app, Flags& flags) {
  worker::EngineOptions& engine = flags.options.engine;
  worker::SchedulerOptions& scheduler = flags.options.scheduler;
  app.add_option("--model", engine.model_path, "GGUF file of the model")->required();
  app.add_option("--served-model-name", engine.served_name,
                 "What clients call the model; empty: the file's name without .gguf");
  app.add_option("--kv-codec", flags.kv_codec,
                 "How finished KV blocks are coded: raw, fp8, tq:k4v4, tq:k6v3,effort=2, …")
      ->capture_default_str();
  app.add_option("--query-tokens", engine.query_tokens,
                 "Tokens of a sample text run at start to learn where queries lie; tq's encoder then keeps "
                 "its keys' errors out of their way; 0: not")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--threads", engine.threads, "Threads that compute; 0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--max-context", engine.max_context,
                 "Tokens of prompt and answer together; 0: the model's own limit")
      ->capture_default_str();
  app.add_option("--max-running", scheduler.max_running, "Requests that run at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-waiting", scheduler.max_waiting, "Requests that wait behind them; over it 429")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
}

void AddServerFlags(CLI::App& app, Flags& flags) {
  flags.common.server.listen = "127.0.0.1:8000";
  flags.common.log_level = "warn";
  flags.options.gateway.data_dir = DefaultDataFolder();
  flags.store.store.host_bytes = uint64_t{1} << 30;
  app.add_option("--grpc-listen", flags.grpc_listen,
                 "Address of the store's and the worker's gRPC services; port 0 picks one")
      ->capture_default_str();
  app.add_option("--data", flags.options.gateway.data_dir,
                 "Folder for what outlives the process: the secret of the cache salts, and with --disk-bytes "
                 "the KV blocks")
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_seconds,
                 "Seconds that running requests get to finish after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  store::AddStoreFlags(app, flags.store);
  runtime::AddAccessFlags(app, flags.options.access);
  runtime::AddCommonFlags(app, flags.common);
}

absl::Status FinishOptions(Flags& flags) {
  QUIRE_ASSIGN_OR_RETURN(flags.options.engine.kv_codec, CodecSpec::Parse(flags.kv_codec));
  gateway::GatewayOptions& gateway = flags.options.gateway;
  gateway.listen = flags.common.server.listen;
  gateway.tls_certificate = flags.common.server.tls.certificate;
  gateway.tls_key = flags.common.server.tls.key;
  gateway.tls_client_ca = flags.common.server.tls.client_ca;
  gateway.max_active = static_cast<size_t>(flags.common.server.max_streams);
  flags.options.grpc = flags.common.server;
  flags.options.grpc.listen = flags.grpc_listen;

  std::error_code error;
  std::filesystem::create_directories(gateway.data_dir, error);
  if (error)
    return absl::PermissionDeniedError("cannot make the data folder " + gateway.data_dir + ": " +
                                       error.message());
  if (flags.store.disk.capacity_bytes != 0 && flags.store.disk.folder.empty()) {
    flags.store.disk.folder = gateway.data_dir + "/blocks";
  }
  QUIRE_ASSIGN_OR_RETURN(flags.options.store, store::OpenTiers(flags.store));
  return absl::OkStatus();
}

// An address that a client on this machine can connect to.
std::string Reachable(const std::string& address) {
  for (const std::string any : {"0.0.0.0:", "[::]:"}) {
    if (address.starts_with(any)) return "127.0.0.1:" + address.substr(any.size());
  }
  return address;
}

void PrintReady(const AllInOne& all, bool tls) {
  const std::string base = (tls ? "https://" : "http://") + Reachable(all.http_address());
  std::printf(
      "\nquire is ready: OpenAI API at %s/v1 · gRPC at %s\n"
      "Paste this to try it:\n\n"
      "curl %s/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "  -d '{\"model\": \"%s\", \"max_tokens\": 64, \"messages\": [{\"role\": \"user\", \"content\": \"Why "
      "is the sky blue?\"}]}'\n\n",
      base.c_str(), all.grpc_address().c_str(), base.c_str(), all.model().name.c_str());
  std::fflush(stdout);
}

// SIGINT and SIGTERM, waited for on a thread of its own: while a model loads the first one ends the process,
// and afterwards, when the first one drains, the second does.
class StopSignals {
 public:
  StopSignals() {
    std::thread([state = state_] {
      const int first = runtime::WaitForSignal();
      if (!state->serving) std::_Exit(128 + first);
      state->stop.set_value(first);
      std::_Exit(128 + runtime::WaitForSignal());
    }).detach();
  }
  // From now on the first signal is Wait's result.
  void Serving() { state_->serving = true; }
  int Wait() { return state_->stop.get_future().get(); }

 private:
  struct State {
    std::atomic<bool> serving = false;
    std::promise<int> stop;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

absl::Status Serve(Flags& flags) {
  StopSignals signals;
  QUIRE_RETURN_IF_ERROR(FinishOptions(flags));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<AllInOne> all, AllInOne::Start(std::move(flags.options)));
  std::unique_ptr<runtime::MetricsListener> metrics;
  if (!flags.common.metrics_listen.empty()) {
    QUIRE_ASSIGN_OR_RETURN(metrics,
                           runtime::MetricsListener::Start(flags.common.metrics_listen, all->registry()));
    std::printf("metrics on port %d\n", metrics->port());
  }
  {
    Progress progress;
    QUIRE_RETURN_IF_ERROR(
        all->Load([&](const std::string& step, double fraction) { progress.Show(step, fraction); }));
  }
  signals.Serving();
  PrintReady(*all, !flags.common.server.tls.certificate.empty());

  spdlog::info("quire drains after signal {}", signals.Wait());
  all->Shutdown(std::chrono::seconds(flags.drain_seconds));
  return absl::OkStatus();
}

}  // namespace

int ServeMain(int argc, char** argv) {
  runtime::BlockSignals();
  CLI::App app(
      "Serves a model over OpenAI's API and gRPC, its KV cache kept as codes: gateway, worker and store in "
      "one process.",
      "quire serve");
  Flags flags;
  AddModelFlags(app, flags);
  AddServerFlags(app, flags);
  if (int code = runtime::ParseFlags(app, argc, argv); code >= 0) return code;
  absl::Status status = runtime::InitLogging("quire", flags.common.log_level);
  if (status.ok()) status = Serve(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "quire: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace quire
