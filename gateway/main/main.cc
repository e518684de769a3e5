// quire-gateway: OpenAI's API in front of workers.
#include <cstdio>
#include <memory>

#include "gateway/server/gateway.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/process.h"

namespace {

constexpr auto kDrainTime = std::chrono::seconds(30);

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "quire-gateway: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  quire::runtime::BlockSignals();
  CLI::App app("OpenAI's API over HTTP in front of Quire workers");
  quire::runtime::CommonFlags flags;
  quire::gateway::GatewayOptions options;
  flags.server.listen = options.listen;
  flags.server.max_streams = static_cast<int>(options.max_active);
  app.add_option("--worker", options.workers, "Address of a worker, host:port; may be given several times")
      ->required();
  app.add_option("--worker-ca", options.worker_ca, "PEM file: TLS to the workers, trusting this authority");
  app.add_option("--worker-cert", options.worker_certificate, "PEM certificate to show to the workers");
  app.add_option("--worker-key", options.worker_key, "PEM key of --worker-cert");
  app.add_option(
      "--secret-file", options.secret_file,
      "File with the secret that cache salts are derived with; created if it is missing and --data is given");
  app.add_option("--data", options.data_dir,
                 "Folder for what must outlive the process; the secret, if --secret-file is not given");
  app.add_option("--threads", options.threads, "Threads that serve HTTP; 0: half of the cores, at most 4")
      ->check(CLI::Range(0, 256));
  quire::runtime::AddCommonFlags(app, flags);
  if (int code = quire::runtime::ParseFlags(app, argc, argv); code >= 0) return code;
  if (absl::Status status = quire::runtime::InitLogging("quire-gateway", flags.log_level); !status.ok())
    return Fail(status);

  options.listen = flags.server.listen;
  options.tls_certificate = flags.server.tls.certificate;
  options.tls_key = flags.server.tls.key;
  options.tls_client_ca = flags.server.tls.client_ca;
  options.max_active = static_cast<size_t>(flags.server.max_streams);
  const bool tls = !options.tls_certificate.empty();
  auto gateway = quire::gateway::Gateway::Start(std::move(options));
  if (!gateway.ok()) return Fail(gateway.status());
  std::unique_ptr<quire::runtime::MetricsListener> metrics;
  if (!flags.metrics_listen.empty()) {
    auto listener = quire::runtime::MetricsListener::Start(flags.metrics_listen, (*gateway)->registry());
    if (!listener.ok()) return Fail(listener.status());
    metrics = *std::move(listener);
    std::printf("quire-gateway metrics on port %d\n", metrics->port());
  }
  std::printf("quire-gateway ready, listening on %s://%s\n", tls ? "https" : "http",
              (*gateway)->address().c_str());
  std::fflush(stdout);
  quire::runtime::WaitForSignal();
  (*gateway)->Shutdown(kDrainTime);
  return 0;
}
