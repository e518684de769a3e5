#include "services/runtime/process.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <memory>

namespace quire::runtime {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

std::string EnvironmentName(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return c == '-' ? '_' : static_cast<char>(std::toupper(c)); });
  return "QUIRE_" + name;
}

// CLI11 lets the file beat the environment; here the environment, which is nearer to the process, wins.
class EnvironmentFirst : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items = CLI::ConfigTOML::from_config(input);
    std::erase_if(items, [](const CLI::ConfigItem& i) {
      return std::getenv(EnvironmentName(i.name).c_str()) != nullptr;
    });
    return items;
  }
};

}  // namespace

void AddCommonFlags(CLI::App& app, CommonFlags& flags) {
  app.add_option("--listen", flags.server.listen,
                 "Address to serve on: host:port (port 0 picks one) or unix:/path")
      ->capture_default_str();
  app.add_option("--metrics-listen", flags.metrics_listen, "Address for Prometheus /metrics; empty: none");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_option("--tls-cert", flags.server.tls.certificate, "PEM certificate; re-read when it changes");
  app.add_option("--tls-key", flags.server.tls.key, "PEM key of --tls-cert");
  app.add_option("--tls-client-ca", flags.server.tls.client_ca,
                 "PEM CA: clients must show a certificate signed by it");
  app.add_option("--max-streams", flags.server.max_streams,
                 "Calls served at a time; over it RESOURCE_EXHAUSTED")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
}

void AddAccessFlags(CLI::App& app, AccessOptions& access) {
  app.add_option("--identities", access.identities,
                 "File of who may call, by token hash or certificate name; re-read when it changes. Without: "
                 "anyone may name any tenant");
  app.add_flag("--insecure", access.insecure,
               "Listen where other machines can connect although there are no identities");
}

void BindEnvironment(CLI::App& app) {
  if (app.get_config_ptr() == nullptr) {
    app.set_config("--config", "", "TOML file with any of these flags");
    app.config_formatter(std::make_shared<EnvironmentFirst>());
  }
  for (CLI::Option* option : app.get_options([](CLI::Option* o) { return !o->get_lnames().empty(); })) {
    if (option->get_lnames().front() != "help")
      option->envname(EnvironmentName(option->get_lnames().front()));
  }
}

int ParseFlags(CLI::App& app, int argc, char** argv) {
  BindEnvironment(app);
  try {
    app.parse(argc, argv);
    return -1;
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  }
}

void BlockSignals() {
  sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a peer that hangs up is an error code, not our end
}

int WaitForSignal() {
  sigset_t set = StopSignals();
  int signal_number = 0;
  sigwait(&set, &signal_number);
  return signal_number;
}

}  // namespace quire::runtime
