#include "tests/bench/soak.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/server.h"
#include "services/store/client/admin_client.h"
#include "services/store/tier/faults.h"
#include "tests/bench/soak_client.h"
#include "tests/services/store/redis/redis_process.h"
#include "tests/services/store/store_process.h"
#include "tests/services/store/temp_folder.h"

namespace quire::bench {
namespace {

using std::chrono::steady_clock;
using store::StoreProcess;
using store::redis::RedisProcess;

constexpr double kCrashShare = 0.1;       // of all calls, at the end: the process dies and comes back
constexpr double kMostGrowth = 0.02;      // of memory, once it has warmed up
constexpr double kMostP99Seconds = 1.0;   // of any kind of call, faults and all
constexpr double kLongestSeconds = 12.0;  // of any call: deadlines of 5 and 10 s, and the time to notice
constexpr std::chrono::milliseconds kCrashPatience{20'000};  // for a crash point to be reached
constexpr double kSecondsToJudgeMemory = 60;                 // a shorter run ends before it has warmed up

// What a store in trouble may say; anything else is a mistake of the store's.
const std::set<absl::StatusCode> kAllowed = {absl::StatusCode::kOk,
                                             absl::StatusCode::kNotFound,
                                             absl::StatusCode::kResourceExhausted,
                                             absl::StatusCode::kUnavailable,
                                             absl::StatusCode::kDeadlineExceeded,
                                             absl::StatusCode::kFailedPrecondition,
                                             absl::StatusCode::kCancelled,
                                             absl::StatusCode::kDataLoss,
                                             absl::StatusCode::kOutOfRange};

// The store with its Redis, and what happens to them.
class Victim {
 public:
  absl::Status Start(const Soak& soak) {
    binary_ = soak.store_binary;
    if (binary_.empty())
      binary_ = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "quire-store";
    QUIRE_ASSIGN_OR_RETURN(
        redis_,
        RedisProcess::Start(folder_.path(), {{"--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru"}}));
    std::string secret = folder_.path() + "/secret";
    std::ofstream(secret) << std::string(32, 's');
    std::filesystem::permissions(secret,
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    address_ = absl::StrCat("127.0.0.1:", store::redis::FreePort());
    QUIRE_RETURN_IF_ERROR(Restart());
    channel_ = *runtime::NewChannel(address_);
    store::AdminClient admin(channel_, std::chrono::seconds(10));
    return admin.SetQuota(SoakTenant(0), 4 << 20).status();  // one tenant is kept short
  }

  // What goes wrong next while the process lives.
  void Trouble(std::mt19937& random) {
    if (redis_stopped_) {
      redis_->Continue();
      redis_stopped_ = false;
    }
    uint32_t what = random() % 40;
    if (what == 0) {
      redis_->Restart().IgnoreError();
    } else if (what == 1) {
      redis_->Stop();
      redis_stopped_ = true;  // until the next trouble
    } else {
      Arm(random);
    }
  }
  // It dies, at one of the named steps or anywhere, and starts again.
  absl::Status Crash(std::mt19937& random) {
    std::string point(store::FaultName(static_cast<store::Fault>(random() % store::kFaults)));
    store::AdminClient admin(channel_, std::chrono::seconds(10));
    const bool at_point = point.starts_with("crash_");
    // It may die before it has answered, and a load that is served from memory may not come to that step.
    const bool reached = at_point && admin.InjectFault(point, 1).ok() && process_->EndsWithin(kCrashPatience);
    int end = reached ? process_->AwaitEnd() : process_->Stop(SIGKILL);
    ++crashes_;
    if (end != -SIGKILL && !(at_point && end == store::FaultPoints::kCrashExitCode))
      return absl::InternalError(absl::StrCat("the store ended by itself, with ", end));
    return Restart();
  }

  absl::Status Settle() {
    if (std::exchange(redis_stopped_, false)) redis_->Continue();
    int end = process_->Stop(SIGTERM);
    return end == 0 ? absl::OkStatus()
                    : absl::InternalError(absl::StrCat("the store drained to exit code ", end));
  }
  uint64_t rss_bytes() const { return process_->rss_bytes(); }
  const std::string& address() const { return address_; }
  const std::map<std::string, int>& armed() const { return armed_; }
  int crashes() const { return crashes_; }

 private:
  absl::Status Restart() {
    process_.reset();
    QUIRE_ASSIGN_OR_RETURN(process_, StoreProcess::Start(binary_, {"--listen",
                                                                   address_,
                                                                   "--host-bytes",
                                                                   "12MiB",
                                                                   "--host-prefault",
                                                                   "--disk-folder",
                                                                   folder_.path() + "/disk",
                                                                   "--disk-bytes",
                                                                   "24MiB",
                                                                   "--redis-address",
                                                                   redis_->address(),
                                                                   "--redis-bytes",
                                                                   "16MiB",
                                                                   "--tenant-secret-file",
                                                                   folder_.path() + "/secret",
                                                                   "--arena-bytes",
                                                                   "16MiB",
                                                                   "--watch-events",
                                                                   "1024",  // full, and so warm, soon
                                                                   "--enable-faults",
                                                                   "--eviction",
                                                                   "s3fifo",
                                                                   "--log-level",
                                                                   "critical"}));
    return absl::OkStatus();
  }
  void Arm(std::mt19937& random) {
    std::string point;
    do {
      point = store::FaultName(static_cast<store::Fault>(random() % store::kFaults));
    } while (point.starts_with("crash_"));
    // An offset of a byte, or milliseconds.
    uint64_t parameter = point == "corrupt_byte" ? random() : 5 + random() % 50;
    store::AdminClient admin(channel_, std::chrono::seconds(10));
    if (admin.InjectFault(point, 1 + random() % 3, parameter).ok()) ++armed_[point];
  }

  store::TempFolder folder_;
  std::string binary_, address_;
  std::unique_ptr<RedisProcess> redis_;
  bool redis_stopped_ = false;
  std::unique_ptr<StoreProcess> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::map<std::string, int> armed_;
  int crashes_ = 0;
};

double Mean(std::span<const uint64_t> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) /
         static_cast<double>(std::max<size_t>(values.size(), 1));
}

// Memory in the last quarter of the samples over that in the second: the first is warming up. Under 0: less.
double Growth(std::span<const uint64_t> rss) {
  size_t quarter = rss.size() / 4;
  if (quarter == 0) return 0;
  return Mean(rss.last(quarter)) / Mean(rss.subspan(quarter, quarter)) - 1;
}

// The load's threads, all ended when this is.
class Load {
 public:
  Load(const Soak& soak, const SoakBlocks& blocks, SoakTally& tally, const std::string& address)
      : tally_(tally) {
    for (uint32_t tenant = 0; tenant < kSoakTenants; ++tenant) {
      watchers_.push_back(std::make_unique<SoakWatcher>(tally, address, SoakTenant(tenant)));
      threads_.emplace_back([watcher = watchers_.back().get()] { watcher->Run(); });
    }
    for (uint32_t i = 0; i < soak.clients; ++i) {
      uint64_t arena = i % 2 == 1 ? 4 << 20 : 0;
      clients_.push_back(std::make_unique<SoakClient>(blocks, tally, address, arena, i + 1));
      threads_.emplace_back([client = clients_.back().get()] { client->Run(); });
    }
  }
  ~Load() { End(); }
  void End() {
    tally_.Stop();
    for (auto& watcher : watchers_) watcher->Cancel();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  SoakTally& tally_;
  std::vector<std::unique_ptr<SoakWatcher>> watchers_;
  std::vector<std::unique_ptr<SoakClient>> clients_;
  std::vector<std::thread> threads_;
};

struct Outcome {
  std::vector<uint64_t> rss;  // at every fault of the first life
  double seconds = 0;
};

absl::StatusOr<Outcome> Drive(const Soak& soak, const SoakBlocks& blocks, SoakTally& tally, Victim& victim) {
  Outcome outcome;
  std::mt19937 random(5);
  auto start = steady_clock::now();
  auto end =
      start + std::chrono::duration_cast<steady_clock::duration>(std::chrono::duration<double>(soak.seconds));
  auto crashes_from = start + std::chrono::duration_cast<steady_clock::duration>(
                                  std::chrono::duration<double>(soak.seconds * (1 - kCrashShare)));
  auto crash_calls = static_cast<uint64_t>(static_cast<double>(soak.calls) * (1 - kCrashShare));
  Load load(soak, blocks, tally, victim.address());
  for (uint64_t at = soak.fault_every; !tally.over(); at = tally.ended() + soak.fault_every) {
    tally.Await(at, end);
    if (steady_clock::now() >= end || tally.over()) break;
    if (tally.ended() < crash_calls && steady_clock::now() < crashes_from) {
      outcome.rss.push_back(victim.rss_bytes());
      victim.Trouble(random);
    } else {
      QUIRE_RETURN_IF_ERROR(victim.Crash(random));
    }
  }
  load.End();
  outcome.seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
  QUIRE_RETURN_IF_ERROR(victim.Settle());
  return outcome;
}

std::string StatusesOf(const SoakTally& tally, std::string* wrong) {
  std::string out;
  for (auto [code, count] : tally.statuses()) {
    std::string name = absl::StatusCodeToString(code);
    absl::StrAppend(&out, out.empty() ? "" : ", ", name, " ", count);
    if (!kAllowed.contains(code)) absl::StrAppend(wrong, "; ", count, " calls ended with ", name);
  }
  return out;
}

absl::Status Judge(const SoakTally& tally, const Outcome& outcome) {
  std::string wrong;
  if (tally.wrong() > 0) absl::StrAppend(&wrong, "; ", tally.wrong(), " blocks had wrong bytes");
  if (tally.right() == 0) absl::StrAppend(&wrong, "; no block came back");
  if (tally.begun() != tally.ended())
    absl::StrAppend(&wrong, "; ", tally.begun() - tally.ended(), " calls did not end");
  StatusesOf(tally, &wrong);
  for (size_t i = 0; i < kSoakCalls; ++i) {
    auto call = static_cast<SoakCall>(i);
    double p99 = tally.Percentile(call, 0.99), longest = tally.Percentile(call, 1);
    if (p99 > kMostP99Seconds) absl::StrAppend(&wrong, "; p99 of ", Name(call), " was ", p99, " s");
    if (longest > kLongestSeconds) absl::StrAppend(&wrong, "; a ", Name(call), " took ", longest, " s");
  }
  double growth = Growth(outcome.rss);
  if (outcome.seconds >= kSecondsToJudgeMemory && growth > kMostGrowth)
    absl::StrAppend(&wrong, "; memory grew by ", growth * 100, " %");
  return wrong.empty() ? absl::OkStatus() : absl::FailedPreconditionError(wrong.substr(2));
}

}  // namespace

absl::Status RunSoak(const Soak& soak, Report& report) {
  QUIRE_ASSIGN_OR_RETURN(SoakBlocks blocks, MakeSoakBlocks(soak.chains));
  Victim victim;
  QUIRE_RETURN_IF_ERROR(victim.Start(soak));
  SoakTally tally(soak.calls);
  QUIRE_ASSIGN_OR_RETURN(Outcome outcome, Drive(soak, blocks, tally, victim));

  std::string faults, ignored;
  for (const auto& [point, times] : victim.armed())
    absl::StrAppend(&faults, faults.empty() ? "" : ", ", point, " ", times);
  auto calls = static_cast<double>(tally.ended());
  report.Add({"soak/calls", calls, "calls", "an hour at 25.6 calls a second", double{Soak::kHourCalls},
              std::nullopt,
              absl::StrCat(static_cast<int>(outcome.seconds), " s; ", StatusesOf(tally, &ignored), "; ",
                           tally.events(), " events watched")});
  report.Add(
      {"soak/blocks", static_cast<double>(tally.right()), "blocks", "", 0, std::nullopt,
       absl::StrCat("checked byte for byte; ", tally.wrong(), " wrong, ", tally.missed(), " missing")});
  report.Add({"soak/faults", static_cast<double>(victim.crashes()), "crashes", "", 0, std::nullopt,
              absl::StrCat("armed: ", faults)});
  size_t quarter = outcome.rss.size() / 4;
  std::span<const uint64_t> rss = outcome.rss;
  report.Add(
      {"soak/memory", Mean(rss.last(quarter)) / (1 << 20), "MiB", "after warming up",
       Mean(rss.subspan(quarter, quarter)) / (1 << 20), std::nullopt,
       absl::StrCat("anonymous; growth ", Growth(rss) * 100, " %, at most ", kMostGrowth * 100, " %")});
  for (size_t i = 0; i < kSoakCalls; ++i) {
    auto call = static_cast<SoakCall>(i);
    if (tally.Count(call) == 0) continue;
    report.Add(
        {absl::StrCat("soak/", Name(call)), tally.Percentile(call, 0.99) * 1e3, "ms", "", 0, std::nullopt,
         absl::StrCat("p99 of ", tally.Count(call), ", at most ", kMostP99Seconds * 1e3, "; p50 ",
                      tally.Percentile(call, 0.5) * 1e3, ", longest ", tally.Percentile(call, 1) * 1e3)});
  }
  return Judge(tally, outcome);
}

}  // namespace quire::bench
