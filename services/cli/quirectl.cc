#include "services/cli/quirectl.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <ostream>

#include "services/cli/commands.h"
#include "services/runtime/process.h"

namespace quire::cli {
namespace {

using Command = std::function<absl::StatusOr<int>(const Arguments&, std::ostream&)>;

void AddCommonOptions(CLI::App& app, Arguments& a) {
  app.add_option("--store", a.store, "Address of the store")->capture_default_str();
  app.add_option("--ca", a.channel.ca, "PEM file of the CA that signed the store's certificate: TLS");
  app.add_option("--cert", a.channel.certificate, "PEM client certificate");
  app.add_option("--key-file", a.channel.key, "PEM key of --cert");
  app.add_option("--tenant", a.tenant, "Tenant; empty: one's own");
  app.add_option("--timeout", a.timeout_seconds, "Seconds for the whole command")
      ->capture_default_str()
      ->check(CLI::Range(1, 86400));
  app.add_flag("--json", a.json, "Print JSON");
}

// A command; `chosen` is set when it is the one given.
CLI::App* AddCommand(CLI::App& app, const char* name, const char* help, Command command, Command& chosen) {
  CLI::App* sub = app.add_subcommand(name, help);
  sub->fallthrough();  // --store and friends may stand after the command too
  sub->callback([command = std::move(command), &chosen] { chosen = command; });
  return sub;
}

void AddCommands(CLI::App& app, Arguments& a, Command& chosen) {
  auto layout = [&](CLI::App* sub) {
    sub->add_option("--layout", a.layout, "JSON file of the layout")->required();
  };
  auto keys = [&](CLI::App* sub) {
    sub->add_option("keys", a.keys, "Block keys, hex, in the order of their chain")
        ->required()
        ->expected(1, 1 << 16);
  };
  AddCommand(app, "stats", "Counters and sizes of the store", Stats, chosen);

  CLI::App* lookup =
      AddCommand(app, "lookup", "Which blocks of a chain are stored; exit code 2 if not all", Lookup, chosen);
  layout(lookup), keys(lookup);
  lookup->add_flag("--all", a.all, "Tell of every key, not only up to the first miss");

  CLI::App* put = AddCommand(app, "put", "Stores object files, parents first", Put, chosen);
  layout(put);
  put->add_option("files", a.files, "Objects of format v1")->required()->expected(1, 4096);

  CLI::App* get = AddCommand(
      app, "get", "Fetches blocks into files named KEY.qkv; exit code 2 if some are missing", Get, chosen);
  layout(get), keys(get);
  get->add_option("--parent", a.parent, "Key of the block before the first, hex; of block 0 the chain's root")
      ->required();
  get->add_option("--index", a.index, "Number of the first block within its sequence")->capture_default_str();
  get->add_option("--max-bits", a.max_bits, "At most the levels that hold this many bits; 0: all")
      ->capture_default_str();
  get->add_option("--out", a.out_folder, "Folder for the files")->capture_default_str();

  CLI::App* remove = AddCommand(app, "delete", "Removes blocks", Delete, chosen);
  layout(remove), keys(remove);
  remove->add_flag("--force", a.force, "Leased ones too");

  CLI::App* inspect =
      AddCommand(app, "inspect", "Prints the header of object files; asks no store", Inspect, chosen);
  inspect->add_option("files", a.files, "Objects of format v1")->required()->expected(1, 4096);
}

}  // namespace

int Quirectl(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  CLI::App app("Asks a quire-store, and looks into its objects.", "quirectl");
  Arguments arguments;
  Command chosen;
  AddCommonOptions(app, arguments);
  AddCommands(app, arguments, chosen);
  app.require_subcommand(1);
  runtime::BindEnvironment(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e, out, err);
  }
  absl::StatusOr<int> code = chosen(arguments, out);
  if (code.ok()) return *code;
  err << "quirectl: " << code.status().ToString() << "\n";
  return 1;
}

}  // namespace quire::cli
