#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/commands.h"
#include "services/cli/latencies.h"
#include "services/cli/layout_file.h"
#include "services/cli/load_chains.h"
#include "services/cli/session.h"
#include "services/cli/zipf.h"
#include "services/store/client/client.h"

namespace quire::cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// What one kind of call did; `bytes` as they crossed the wire, `raw_bytes` of the same blocks at the layout's
// dtype.
struct Figures {
  Latencies latencies;
  uint64_t blocks = 0, bytes = 0, raw_bytes = 0, misses = 0;

  void Add(const Figures& other) {
    latencies.Add(other.latencies);
    blocks += other.blocks, bytes += other.bytes, raw_bytes += other.raw_bytes, misses += other.misses;
  }
};

// What all clients share.
struct Load {
  const BenchArguments& flags;
  Layout layout;
  std::string salt;
  Zipf popularity;
  Clock::time_point end;
  std::atomic<int64_t> calls_left;
  std::atomic<uint64_t> next_new;  // number of the next prompt that nobody stored yet
  std::atomic<bool> failed{false};
};

class LoadClient {
 public:
  LoadClient(Load& load, const std::shared_ptr<client::Client>& client, LoadBlocks blocks, uint32_t number)
      : load_(load), client_(client), blocks_(std::move(blocks)), random_(load.flags.seed + number) {}

  void Run() {
    std::uniform_real_distribution<double> uniform;
    while (!load_.failed && Clock::now() < load_.end && load_.calls_left-- > 0) {
      bool read = uniform(random_) < load_.flags.read_share;
      absl::Status status = read ? Read(load_.popularity.At(uniform(random_))) : Write(load_.next_new++);
      if (status.ok()) continue;
      ++failures[std::string(absl::StatusCodeToString(status.code()))];
      if (first_failure.ok()) first_failure = status;
      // A full or busy store is part of a load; anything else ends the run.
      if (!absl::IsResourceExhausted(status) && !absl::IsFailedPrecondition(status)) load_.failed = true;
    }
  }

  absl::Status Write(uint64_t prompt) {
    auto chain = LoadChain(client_->ns().fingerprint, load_.salt, prompt, load_.flags.blocks);
    std::span<const store::PutBlock> blocks = blocks_.Of(chain);
    store::PutOptions options;
    if (load_.flags.raw) options.encode = load_.flags.codec;
    Clock::time_point begin = Clock::now();
    QUIRE_RETURN_IF_ERROR(client_->Put(blocks, options).status());
    put.latencies.Add(Seconds(Clock::now() - begin));
    put.blocks += blocks.size(), put.bytes += blocks_.chain_bytes(),
        put.raw_bytes += blocks_.raw_chain_bytes();
    return absl::OkStatus();
  }

  Figures lookup, get, put;
  std::map<std::string, uint64_t> failures;  // by code
  absl::Status first_failure;

 private:
  absl::Status Read(uint64_t prompt) {
    auto chain = LoadChain(client_->ns().fingerprint, load_.salt, prompt, load_.flags.blocks);
    Clock::time_point begin = Clock::now();
    QUIRE_ASSIGN_OR_RETURN(store::LookupResult found, client_->Lookup(chain));
    Clock::time_point found_at = Clock::now();
    lookup.latencies.Add(Seconds(found_at - begin));
    lookup.blocks += chain.size(), lookup.misses += chain.size() - found.prefix_blocks;
    if (found.prefix_blocks == 0 || load_.flags.lookup_only) return absl::OkStatus();

    uint64_t came = 0;
    store::GetSink sink;
    sink.on_block = [&](uint32_t, Bytes object) {
      ++came, get.bytes += object.size();
      return absl::OkStatus();
    };
    sink.on_miss = [&](uint32_t, const absl::Status& why) {  // evicted since
      ++get.misses;
      return absl::IsNotFound(why) ? absl::OkStatus() : why;
    };
    store::GetOptions options;
    options.max_bits = load_.flags.max_bits;
    QUIRE_RETURN_IF_ERROR(client_->Get(std::span(chain).first(found.prefix_blocks), options, sink));
    get.latencies.Add(Seconds(Clock::now() - found_at));
    get.blocks += came, get.raw_bytes += came * load_.layout.RawBlockBytes();
    return absl::OkStatus();
  }

  Load& load_;
  std::shared_ptr<client::Client> client_;
  LoadBlocks blocks_;
  std::mt19937_64 random_;
};

ordered_json ToJson(const char* name, Figures& f, double seconds, const BenchArguments& flags) {
  auto us = [&](double share) { return f.latencies.Percentile(share) * 1e6; };
  double n = static_cast<double>(std::max<size_t>(f.latencies.count(), 1));
  return {{"name", name},
          {"calls", f.latencies.count()},
          {"calls_per_second", static_cast<double>(f.latencies.count()) / seconds},
          {"blocks", f.blocks},
          {"missed_blocks", f.misses},
          {"bytes", f.bytes},
          {"gb_per_second", static_cast<double>(f.bytes) * 1e-9 / seconds},
          {"raw_gb_per_second", static_cast<double>(f.raw_bytes) * 1e-9 / seconds},
          {"mean_us", f.latencies.sum() / n * 1e6},
          {"p50_us", us(.5)},
          {"p90_us", us(.9)},
          {"p99_us", us(.99)},
          {"p999_us", us(.999)},
          {"max_us", us(1)},
          {"clients", flags.clients},
          {"blocks_a_prompt", flags.blocks},
          {"codec", flags.codec},
          {"raw", flags.raw},
          {"seconds", seconds}};
}

void PrintTable(const std::vector<ordered_json>& rows, std::ostream& out) {
  out << absl::StrFormat("%-8s %9s %10s %9s %9s %10s %10s %10s %10s %10s\n", "call", "calls", "calls/s",
                         "GB/s", "raw GB/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us");
  for (const ordered_json& r : rows) {
    auto number = [&](const char* name) { return r[name].get<double>(); };
    out << absl::StrFormat("%-8s %9d %10.1f %9.3f %9.3f %10.0f %10.0f %10.0f %10.0f %10.0f\n",
                           r["name"].get<std::string>(), r["calls"].get<uint64_t>(),
                           number("calls_per_second"), number("gb_per_second"), number("raw_gb_per_second"),
                           number("p50_us"), number("p90_us"), number("p99_us"), number("p999_us"),
                           number("max_us"));
  }
}

absl::StatusOr<Layout> LayoutOf(const Arguments& arguments) {
  if (!arguments.layout.empty()) return ReadLayoutFile(arguments.layout);
  const BenchArguments& b = arguments.bench;
  Layout layout =
      Layout::Uniform(Sha256().Update("quirectl bench").Finish(), b.layers, b.kv_heads, b.head_dim);
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  return layout;
}

// One client, with a channel of its own as a process would have.
absl::StatusOr<std::shared_ptr<client::Client>> NewClient(const Arguments& arguments, const Layout& layout) {
  client::Options options;
  options.channel = arguments.channel;
  options.tenant = arguments.tenant;
  options.remote.call_timeout = options.remote.stream_timeout =
      std::chrono::seconds(arguments.timeout_seconds);
  options.remote.arena_bytes = uint64_t{arguments.bench.arena_mib} << 20;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<client::Client> client,
                         client::Client::Connect(arguments.store, layout, options));
  if (options.remote.arena_bytes > 0 && client->remote().arena() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the store at ", arguments.store, " shares no ",
                                                      arguments.bench.arena_mib, " MiB with this client"));
  }
  return std::shared_ptr<client::Client>(std::move(client));
}

absl::StatusOr<int> Report(const Arguments& arguments, std::vector<LoadClient>& clients, double seconds,
                           std::ostream& out) {
  Figures lookup, get, put;
  std::map<std::string, uint64_t> failures;
  absl::Status first_failure;
  for (LoadClient& client : clients) {
    lookup.Add(client.lookup), get.Add(client.get), put.Add(client.put);
    for (const auto& [code, count] : client.failures) failures[code] += count;
    if (first_failure.ok()) first_failure = client.first_failure;
  }
  std::vector<ordered_json> rows;
  auto add = [&](const char* name, Figures& figures) {
    if (figures.latencies.count() > 0) rows.push_back(ToJson(name, figures, seconds, arguments.bench));
  };
  add("lookup", lookup), add("get", get), add("put", put);
  if (arguments.json) {
    for (const ordered_json& row : rows) out << row.dump() << "\n";
    if (!failures.empty())
      out << ordered_json{{"name", "failures"}, {"by_code", failures}, {"first", first_failure.ToString()}}
                 .dump()
          << "\n";
  } else {
    PrintTable(rows, out);
    for (const auto& [code, count] : failures) out << "failed: " << count << " × " << code << "\n";
    if (!first_failure.ok()) out << "the first: " << first_failure.ToString() << "\n";
  }
  if (!first_failure.ok() && !absl::IsResourceExhausted(first_failure) &&
      !absl::IsFailedPrecondition(first_failure))
    return first_failure;
  return kDone;
}

}  // namespace

absl::StatusOr<int> Bench(const Arguments& arguments, std::ostream& out) {
  const BenchArguments& flags = arguments.bench;
  QUIRE_ASSIGN_OR_RETURN(Layout layout, LayoutOf(arguments));
  std::random_device device;
  std::string salt = absl::StrCat("bench ", device(), device());
  Load load{flags, layout, salt, Zipf(flags.prompts, flags.zipf), {}, INT64_MAX, flags.prompts};

  std::vector<LoadClient> clients;
  QUIRE_ASSIGN_OR_RETURN(LoadBlocks blocks, LoadBlocks::Create(layout, flags.codec, flags.raw, flags.blocks));
  for (uint32_t i = 0; i < flags.clients; ++i) {
    QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<client::Client> client, NewClient(arguments, layout));
    clients.emplace_back(load, client, blocks, i);
  }
  // The prompts that will be read; the least popular first, so that the others are the last to be evicted.
  for (uint64_t prompt = flags.prompts; flags.read_share > 0 && prompt-- > 0;)
    QUIRE_RETURN_IF_ERROR(clients[0].Write(prompt));
  clients[0].put = {};

  Clock::time_point begin = Clock::now();
  load.end =
      begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(flags.seconds));
  if (flags.calls > 0) {
    load.end = Clock::time_point::max();
    load.calls_left = static_cast<int64_t>(flags.calls);
  }
  {
    std::vector<std::jthread> threads;
    for (LoadClient& client : clients) threads.emplace_back([&client] { client.Run(); });
  }
  return Report(arguments, clients, Seconds(Clock::now() - begin), out);
}

}  // namespace quire::cli
