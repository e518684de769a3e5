// stats: counters once, or as a live view with what changed between two looks.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <ostream>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/commands.h"
#include "services/cli/session.h"

namespace quire::cli {
namespace {

using nlohmann::ordered_json;
using store::StoreStats;
using store::TierStats;

double Share(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

ordered_json ToJson(const StoreStats& stats, const store::ServerInfo& info) {
  ordered_json tiers = ordered_json::array();
  uint64_t used = 0;
  for (const TierStats& t : stats.tiers) {
    used += t.used_bytes;
    tiers.push_back({{"tier", TierName(t.tier)},
                     {"capacity_bytes", t.capacity_bytes},
                     {"used_bytes", t.used_bytes},
                     {"blocks", t.blocks},
                     {"raw_bytes", t.raw_bytes}});
  }
  return {{"tiers", tiers},
          {"lookups", stats.lookups},
          {"hit_tokens", stats.hit_tokens},
          {"miss_tokens", stats.miss_tokens},
          {"blocks_stored", stats.blocks_stored},
          {"blocks_evicted", stats.blocks_evicted},
          {"blocks_deleted", stats.blocks_deleted},
          {"checksum_failures", stats.checksum_failures},
          {"raw_bytes_stored", stats.raw_bytes_stored},
          {"compression_ratio", Share(stats.raw_bytes_stored, used)},
          {"put_sessions", stats.put_sessions},
          {"layouts", stats.layouts},
          {"version", info.version},
          {"uptime_ms", info.uptime.count()}};
}

void PrintPlain(ordered_json all, std::ostream& out) {
  for (const ordered_json& tier : all["tiers"]) {
    out << absl::StrFormat("%-18s %d of %d bytes, %d blocks of %d bytes raw\n",
                           tier["tier"].get<std::string>(), tier["used_bytes"].get<uint64_t>(),
                           tier["capacity_bytes"].get<uint64_t>(), tier["blocks"].get<uint64_t>(),
                           tier["raw_bytes"].get<uint64_t>());
  }
  all.erase("tiers");
  for (const auto& [name, value] : all.items()) out << absl::StrFormat("%-18s %s\n", name, value.dump());
}

// One look of the live view. `before`, `seconds`: the look before, and how long ago.
void PrintLive(const StoreStats& now, const StoreStats& before, double seconds, const store::ServerInfo& info,
               std::ostream& out) {
  constexpr int kBar = 40;
  out << absl::StrFormat("quire-store %s, up %d s\n\n", info.version, info.uptime.count() / 1000);
  for (const TierStats& tier : now.tiers) {
    double full = Share(tier.used_bytes, tier.capacity_bytes);
    int filled = std::clamp(static_cast<int>(full * kBar + 0.5), 0, kBar);
    out << absl::StrFormat("%-6s [%s%s] %5.1f %% of %s, %d blocks, %.2f x smaller than raw\n",
                           TierName(tier.tier), std::string(static_cast<size_t>(filled), '#'),
                           std::string(static_cast<size_t>(kBar - filled), ' '), 100 * full,
                           SizeText(static_cast<double>(tier.capacity_bytes)), tier.blocks,
                           Share(tier.raw_bytes, tier.used_bytes));
  }
  auto row = [&](const char* name, uint64_t StoreStats::*field) {
    double rate = seconds > 0 ? static_cast<double>(now.*field - before.*field) / seconds : 0;
    out << absl::StrFormat("%-20s %14d %12.1f /s\n", name, now.*field, rate);
  };
  out << "\n";
  row("lookups", &StoreStats::lookups);
  row("hit tokens", &StoreStats::hit_tokens);
  row("miss tokens", &StoreStats::miss_tokens);
  row("blocks stored", &StoreStats::blocks_stored);
  row("blocks evicted", &StoreStats::blocks_evicted);
  row("blocks deleted", &StoreStats::blocks_deleted);
  row("checksum failures", &StoreStats::checksum_failures);
  uint64_t hits = now.hit_tokens - before.hit_tokens, misses = now.miss_tokens - before.miss_tokens;
  out << absl::StrFormat("%-20s %13.1f %% %10.1f %% since the last look\n", "hit rate",
                         100 * Share(now.hit_tokens, now.hit_tokens + now.miss_tokens),
                         100 * Share(hits, hits + misses));
  out << absl::StrFormat("%-20s %14d\n%-20s %14d\n", "put sessions", now.put_sessions, "layouts",
                         now.layouts);
}

absl::StatusOr<int> Live(const Arguments& arguments, store::AdminClient& admin, std::ostream& out) {
  using Clock = std::chrono::steady_clock;
  auto interval =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(arguments.watch_seconds));
  std::optional<StoreStats> before;
  Clock::time_point last, next = Clock::now();
  for (uint64_t look = 1;; ++look) {
    store::ServerInfo info;
    QUIRE_ASSIGN_OR_RETURN(StoreStats stats, admin.Stats(&info));
    Clock::time_point now = Clock::now();
    if (arguments.json) {
      out << ToJson(stats, info).dump() << "\n";
    } else {
      if (arguments.terminal) out << "\x1b[H\x1b[2J";
      double seconds = before ? std::chrono::duration<double>(now - last).count() : 0;
      PrintLive(stats, before ? *before : stats, seconds, info, out);
      if (!arguments.terminal) out << "\n";
    }
    out.flush();
    if (look == arguments.count) return kDone;
    before = std::move(stats), last = now;
    std::this_thread::sleep_until(next += interval);
  }
}

}  // namespace

absl::StatusOr<int> Stats(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::AdminClient> admin, ConnectAdmin(arguments));
  if (arguments.watch_seconds > 0) return Live(arguments, *admin, out);
  store::ServerInfo info;
  QUIRE_ASSIGN_OR_RETURN(StoreStats stats, admin->Stats(&info));
  ordered_json all = ToJson(stats, info);
  if (arguments.json) {
    PrintJson(all, out);
  } else {
    PrintPlain(std::move(all), out);
  }
  return kDone;
}

}  // namespace quire::cli
