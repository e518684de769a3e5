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
  app.add_option("--token-file", a.channel.token_file,
                 "File with the bearer token to show; sent over TLS or to this machine only");
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

void AddLayout(CLI::App* sub, Arguments& a) {
  sub->add_option("--layout", a.layout, "JSON file of the layout")->required();
}
void AddKeys(CLI::App* sub, Arguments& a) {
  sub->add_option("keys", a.keys, "Block keys, hex, in the order of their chain")
      ->required()
      ->expected(1, 1 << 16);
}
void AddTier(CLI::App* sub, Arguments& a, const char* help) {
  sub->add_option("--tier", a.tier, help)
      ->check(CLI::IsMember({"none", "gpu", "host", "disk", "redis"}))
      ->capture_default_str();
}

void AddBlockCommands(CLI::App& app, Arguments& a, Command& chosen) {
  CLI::App* lookup =
      AddCommand(app, "lookup", "Which blocks of a chain are stored; exit code 2 if not all", Lookup, chosen);
  AddLayout(lookup, a), AddKeys(lookup, a);
  lookup->add_flag("--all", a.all, "Tell of every key, not only up to the first miss");

  CLI::App* put = AddCommand(app, "put", "Stores object files, parents first", Put, chosen);
  AddLayout(put, a);
  put->add_option("files", a.files, "Objects of format v1")->required()->expected(1, 4096);

  CLI::App* get = AddCommand(
      app, "get", "Fetches blocks into files named KEY.qkv; exit code 2 if some are missing", Get, chosen);
  AddLayout(get, a), AddKeys(get, a);
  get->add_option("--parent", a.parent, "Key of the block before the first, hex; of block 0 the chain's root")
      ->required();
  get->add_option("--index", a.index, "Number of the first block within its sequence")->capture_default_str();
  get->add_option("--max-bits", a.max_bits, "At most the levels that hold this many bits; 0: all")
      ->capture_default_str();
  get->add_option("--out", a.out_folder, "Folder for the files")->capture_default_str();

  CLI::App* remove = AddCommand(app, "delete", "Removes blocks", Delete, chosen);
  AddLayout(remove, a), AddKeys(remove, a);
  remove->add_flag("--force", a.force, "Leased and pinned ones too");

  CLI::App* inspect =
      AddCommand(app, "inspect", "Prints the header of object files; asks no store", Inspect, chosen);
  inspect->add_option("files", a.files, "Objects of format v1")->required()->expected(1, 4096);
}

void AddKeyCommands(CLI::App& app, Arguments& a, Command& chosen) {
  CLI::App* pin = AddCommand(app, "pin", "Keeps blocks until they are unpinned as often", Pin, chosen);
  AddLayout(pin, a), AddKeys(pin, a);
  CLI::App* unpin = AddCommand(app, "unpin", "Takes back a pin of each block", Unpin, chosen);
  AddLayout(unpin, a), AddKeys(unpin, a);
  CLI::App* touch = AddCommand(app, "touch", "Marks blocks as used now", Touch, chosen);
  AddLayout(touch, a), AddKeys(touch, a);
  CLI::App* prefetch = AddCommand(app, "prefetch", "Asks for blocks in a faster tier", Prefetch, chosen);
  AddLayout(prefetch, a), AddKeys(prefetch, a);
  AddTier(prefetch, a, "At least as fast as this; none: the fastest");
}

void AddAdminCommands(CLI::App& app, Arguments& a, Command& chosen) {
  CLI::App* stats = AddCommand(app, "stats", "Counters and sizes of the store", Stats, chosen);
  stats->add_option("--watch", a.watch_seconds, "Look again every so many seconds, and show what changed")
      ->expected(0, 1)
      ->default_str("1")
      ->check(CLI::Range(0.05, 86400.0));
  stats->add_option("--count", a.count, "With --watch: end after so many looks; 0: never")
      ->capture_default_str();

  CLI::App* watch = AddCommand(app, "watch", "Prints what happens to blocks, as it happens", Watch, chosen);
  watch->add_option("--layout", a.layout, "JSON file of the layout; without it: all of the tenant's");
  watch->add_option("--from", a.from_sequence, "Begin with this event; 0: from now on")
      ->capture_default_str();
  watch->add_option("--count", a.count, "End after so many events; 0: never")->capture_default_str();

  CLI::App* quota = AddCommand(app, "quota", "Shows, or sets, how much --tenant may store", Quota, chosen);
  quota->add_option("--set", a.quota_bytes, "Stored bytes: 10GiB, …; 0: no limit")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));

  AddCommand(app, "delete-tenant", "Removes all blocks of --tenant", DeleteTenant, chosen);

  CLI::App* drain =
      AddCommand(app, "drain", "Makes the store finish what runs and refuse what is new", Drain, chosen);
  drain->add_option("--deadline", a.drain_seconds, "Seconds that running calls get")->capture_default_str();

  CLI::App* verify = AddCommand(
      app, "verify", "Checks all that is stored and drops what is wrong; exit code 2 if anything was", Verify,
      chosen);
  AddTier(verify, a, "Only this tier; none: all");
  verify->add_option("--rate", a.bytes_per_second, "Bytes a second: 100MiB, …; 0: no limit")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
}

void AddBench(CLI::App& app, Arguments& a, Command& chosen) {
  BenchArguments& b = a.bench;
  CLI::App* bench =
      AddCommand(app, "bench",
                 "Loads the store with reads and writes of made-up prompts and prints every call's latency",
                 Bench, chosen);
  bench->add_option("--clients", b.clients, "Each a thread with a connection of its own")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  bench->add_option("--layout", a.layout, "JSON file of the layout; without it the next three");
  bench->add_option("--layers", b.layers, "Layers")->check(CLI::Range(1, 1024))->capture_default_str();
  bench->add_option("--kv-heads", b.kv_heads, "KV heads")->check(CLI::Range(1, 1024))->capture_default_str();
  bench->add_option("--head-dim", b.head_dim, "Head dimension")
      ->check(CLI::Range(16, 576))
      ->capture_default_str();
  bench->add_option("--blocks", b.blocks, "Blocks of 64 tokens a prompt")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  bench->add_option("--prompts", b.prompts, "Prompts that are stored at first and read then")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  bench
      ->add_option("--zipf", b.zipf,
                   "Prompt i is read with a probability proportional to 1/i^zipf; 0: all alike")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  bench
      ->add_option("--read-share", b.read_share,
                   "Share of calls that look up and fetch; the others store new prompts")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  bench->add_option("--codec", b.codec, "Codec spec of what is stored")->capture_default_str();
  bench->add_flag("--raw", b.raw, "Send raw KV, which the store encodes with --codec");
  bench->add_flag("--lookup-only", b.lookup_only, "Reads look up and do not fetch");
  bench->add_option("--max-bits", b.max_bits, "Fetch at most the levels that hold this many bits; 0: all")
      ->capture_default_str();
  bench
      ->add_option("--arena-mib", b.arena_mib,
                   "MiB of memory that each client shares with a store on this machine, for blocks to go "
                   "through; 0: they go through gRPC")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  bench->add_option("--seconds", b.seconds, "How long")->check(CLI::Range(0.01, 1e6))->capture_default_str();
  bench->add_option("--calls", b.calls, "So many calls instead of --seconds")->capture_default_str();
  bench->add_option("--seed", b.seed, "Of the order of calls")->capture_default_str();
}

}  // namespace

int Quirectl(int argc, const char* const* argv, std::ostream& out, std::ostream& err, bool terminal) {
  CLI::App app("Asks a quire-store, and looks into its objects.", "quirectl");
  Arguments arguments;
  arguments.terminal = terminal;
  Command chosen;
  AddCommonOptions(app, arguments);
  AddBlockCommands(app, arguments, chosen);
  AddKeyCommands(app, arguments, chosen);
  AddAdminCommands(app, arguments, chosen);
  AddBench(app, arguments, chosen);
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
