// quire-worker: runs one model and serves quire.v1.Inference.
//
// It listens before the model is loaded: grpc.health then says NOT_SERVING and Inference answers UNAVAILABLE.
// The line "ready" on standard output, and SERVING, come once it answers requests.
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "core/base/status_macros.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/process.h"
#include "services/runtime/server.h"
#include "services/store/client/remote_store.h"
#include "services/worker/engine/engine.h"
#include "services/worker/server/inference_service.h"

namespace {

using quire::worker::InferenceService;

struct Flags {
  quire::runtime::CommonFlags common;
  quire::worker::EngineOptions engine;
  quire::worker::SchedulerOptions scheduler;
  quire::runtime::ChannelOptions store_tls;
  std::string store, kv_codec = "tq:k4v4";
  int64_t store_timeout_ms = 2000;
  uint64_t offload_queue_bytes = quire::worker::OffloaderOptions().max_queued_bytes;
  uint64_t drain_seconds = 30;
};

void AddModelFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.engine.model_path, "GGUF file of the model")->required();
  app.add_option("--served-model-name", flags.engine.served_name,
                 "What clients call the model; empty: the file's name without .gguf");
  app.add_option("--kv-codec", flags.kv_codec,
                 "How finished KV blocks are coded: raw, fp8, tq:k4v4, tq:k6v3,effort=2, …")
      ->capture_default_str();
  app.add_option("--query-tokens", flags.engine.query_tokens,
                 "Tokens of a sample text run at start to learn where queries lie; tq's encoder then keeps "
                 "its keys' errors out of their way; 0: not")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--threads", flags.engine.threads, "Threads that compute; 0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--max-context", flags.engine.max_context,
                 "Tokens of prompt and answer together; 0: the model's own limit")
      ->capture_default_str();
  app.add_option("--max-running", flags.scheduler.max_running, "Requests that run at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-waiting", flags.scheduler.max_waiting,
                 "Requests that wait behind them; over it RESOURCE_EXHAUSTED")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_seconds,
                 "Seconds that running generations get to finish after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
}

void AddStoreFlags(CLI::App& app, Flags& flags) {
  app.add_option("--store", flags.store, "host:port of quire-store; empty: nothing is kept between requests");
  app.add_option("--store-timeout-ms", flags.store_timeout_ms,
                 "How long a request waits for its prefix before it is computed instead")
      ->check(CLI::Range(1, 600'000))
      ->capture_default_str();
  app.add_option("--offload-queue-bytes", flags.offload_queue_bytes,
                 "Blocks on their way to the store, as 64MiB, 1GiB, …; what does not fit is not stored")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->capture_default_str();
  app.add_option("--store-ca", flags.store_tls.ca,
                 "PEM CA of the store's certificate; set: TLS to the store");
  app.add_option("--store-cert", flags.store_tls.certificate, "PEM certificate shown to the store");
  app.add_option("--store-key", flags.store_tls.key, "PEM key of --store-cert");
  app.add_option("--store-token-file", flags.store_tls.token_file,
                 "File with the bearer token to show the store; sent over TLS or to this machine only");
}

// One line for each quarter of a step.
quire::worker::LoadProgress PrintProgress() {
  return [step = std::string(), quarter = -1](const std::string& now, double fraction) mutable {
    int next = static_cast<int>(fraction * 4);
    if (now == step && next <= quarter) return;
    step = now;
    quarter = next;
    std::printf("quire-worker: %s %3.0f %%\n", now.c_str(), fraction * 100);
    std::fflush(stdout);
  };
}

absl::StatusOr<std::shared_ptr<quire::store::KvStore>> ConnectStore(const Flags& flags) {
  if (flags.store.empty()) return nullptr;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         quire::runtime::NewChannel(flags.store, flags.store_tls));
  quire::store::RemoteStoreOptions options;
  options.call_timeout = std::chrono::milliseconds(flags.store_timeout_ms);
  return std::make_shared<quire::store::RemoteStore>(std::move(channel), options);
}

// Loads the model and starts serving it.
absl::Status Serve(Flags& flags, InferenceService& service) {
  QUIRE_ASSIGN_OR_RETURN(flags.engine.kv_codec, quire::CodecSpec::Parse(flags.kv_codec));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<quire::store::KvStore> store, ConnectStore(flags));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<quire::worker::Engine> engine,
                         quire::worker::Engine::Load(flags.engine, PrintProgress()));
  flags.scheduler.store_timeout = std::chrono::milliseconds(flags.store_timeout_ms);
  flags.scheduler.offloader.max_queued_bytes = flags.offload_queue_bytes;
  return service.Serve(std::move(engine), std::move(store), flags.engine.kv_codec, flags.scheduler);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "quire-worker: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Run(Flags& flags) {
  std::shared_ptr<prometheus::Registry> registry = quire::runtime::NewRegistry();
  std::unique_ptr<quire::runtime::MetricsListener> metrics;
  if (!flags.common.metrics_listen.empty()) {
    auto listener = quire::runtime::MetricsListener::Start(flags.common.metrics_listen, registry);
    if (!listener.ok()) return Fail(listener.status());
    metrics = *std::move(listener);
    std::printf("quire-worker metrics on port %d\n", metrics->port());
  }
  InferenceService service(registry);
  auto server = quire::runtime::Server::Start(flags.common.server, {&service});
  if (!server.ok()) return Fail(server.status());
  if (absl::Status status = Serve(flags, service); !status.ok()) return Fail(status);
  (*server)->SetServing(true);
  std::printf("quire-worker ready, listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  spdlog::info("quire-worker listens on {}", (*server)->address());

  int signal = quire::runtime::WaitForSignal();
  spdlog::info("quire-worker drains after signal {}", signal);
  (*server)->SetServing(false);
  service.Drain(std::chrono::seconds(flags.drain_seconds));
  (*server)->Shutdown(std::chrono::seconds(1));  // what has ended is still on its way to its client
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  quire::runtime::BlockSignals();
  CLI::App app(
      "Runs one model and serves it over gRPC; finished KV blocks go to a store, prompts that begin alike "
      "come from it.",
      "quire-worker");
  Flags flags;
  AddModelFlags(app, flags);
  AddStoreFlags(app, flags);
  quire::runtime::AddCommonFlags(app, flags.common);
  if (int code = quire::runtime::ParseFlags(app, argc, argv); code >= 0) return code;
  if (absl::Status status = quire::runtime::InitLogging("quire-worker", flags.common.log_level); !status.ok())
    return Fail(status);
  return Run(flags);
}
