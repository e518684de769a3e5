// What every binary's main does: flags with environment and file, logging, signals.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "services/runtime/authenticator.h"
#include "services/runtime/server.h"

namespace quire::runtime {

// Flags all servers share.
struct CommonFlags {
  ServerOptions server;
  std::string metrics_listen;  // host:port; empty: no metrics listener
  std::string log_level = "info";
};
// Adds --listen, --metrics-listen, --log-level, --tls-cert, --tls-key, --tls-client-ca, --max-streams,
// --config; every flag --a-b of `app` can also be given as QUIRE_A_B or in the TOML file of --config. Call
// after the app's own flags were added.
void AddCommonFlags(CLI::App& app, CommonFlags& flags);
// Adds --identities and --insecure, for servers that know tenants.
void AddAccessFlags(CLI::App& app, AccessOptions& access);
void BindEnvironment(CLI::App& app);

// Parses; on --help or a mistake prints and returns the exit code, else −1.
int ParseFlags(CLI::App& app, int argc, char** argv);

// Blocks SIGINT and SIGTERM in this thread and all started later; call first thing in main.
void BlockSignals();
// Waits for SIGINT or SIGTERM; returns its number.
int WaitForSignal();

}  // namespace quire::runtime
