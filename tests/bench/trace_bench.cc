#include "tests/bench/trace_bench.h"

#include <atomic>
#include <cstdio>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "tests/bench/chart.h"
#include "tests/bench/trace_replay.h"

namespace quire::bench {
namespace {

using store::PolicyKind;

// One line of the table at every capacity.
struct Way {
  const char* codec;
  uint32_t floor_levels;
  PolicyKind policy;
  std::vector<double> goals;  // of the clairvoyant policy's hit rate at 2, 5 and 10 %
};

constexpr uint32_t kUncut = kMaxLevels, kTwoBits = 1, kThreeBits = 2;

std::vector<Way> Ways() {
  std::vector<Way> ways = {{"tq:k4v4", kUncut, PolicyKind::kLru, {}},
                           {"tq:k8v4", kThreeBits, PolicyKind::kLru, {}}};
  for (PolicyKind policy : {PolicyKind::kLru, PolicyKind::kS3Fifo, PolicyKind::kLfu}) {
    bool lru = policy == PolicyKind::kLru;
    std::vector<double> three = {.85, .94, .97}, two = {.95, .95, .95}, none;
    ways.push_back({"raw", kUncut, policy, none});
    ways.push_back({"tq:k4v4", kThreeBits, policy, lru ? three : none});
    ways.push_back({"tq:k4v4", kTwoBits, policy, lru ? two : none});
  }
  return ways;
}

std::string PolicyName(PolicyKind policy) {
  return policy == PolicyKind::kLru ? "LRU" : policy == PolicyKind::kLfu ? "LFU" : "S3-FIFO";
}

std::string Name(const Way& way) {
  std::string floor =
      way.floor_levels == kUncut ? "" : absl::StrCat(", floor ", way.floor_levels + 1, " bits");
  return absl::StrCat(way.codec, floor, ", ", PolicyName(way.policy));
}

// How many bits were kept of what was hit. Of a codec without levels nothing is cut.
std::string KeptBits(const Way& way, const ReplayResult& result) {
  if (std::string(way.codec) == "raw") return "all bits kept";
  std::string text;
  for (size_t level = 0; level < result.by_levels.size(); ++level) {
    if (result.by_levels[level] == 0) continue;
    double share = static_cast<double>(result.by_levels[level]) / static_cast<double>(result.hits);
    bool all = level + 1 == result.by_levels.size();
    absl::StrAppend(&text, text.empty() ? "" : ", ", absl::StrFormat("%.1f %%", 100 * share), " at ",
                    all ? "all" : std::to_string(level + 2), " bits");
  }
  return text;
}

// All ways at one capacity, several at a time.
absl::StatusOr<std::vector<ReplayResult>> ReplayAll(const Trace& trace, const std::vector<Way>& ways,
                                                    uint64_t capacity, int threads) {
  std::vector<absl::StatusOr<ReplayResult>> results(ways.size(), ReplayResult());
  std::atomic<size_t> next = 0;
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&] {
        for (size_t w = next++; w < ways.size(); w = next++)
          results[w] = Replay(trace, {ways[w].codec, ways[w].policy, ways[w].floor_levels, capacity});
      });
    }
  }
  std::vector<ReplayResult> all;
  for (const absl::StatusOr<ReplayResult>& result : results) {
    QUIRE_RETURN_IF_ERROR(result.status());
    all.push_back(*result);
  }
  return all;
}

}  // namespace

absl::Status RunTraceBench(const TraceBench& bench, Report& report) {
  absl::StatusOr<Trace> trace = Trace::Read(bench.file);
  if (absl::IsNotFound(trace.status())) {
    std::fprintf(stderr, "quire-bench trace: %s, so it is skipped; name one with --trace\n",
                 std::string(trace.status().message()).c_str());
    return absl::OkStatus();
  }
  QUIRE_RETURN_IF_ERROR(trace.status());
  uint64_t raw_bytes = ReplayLayout().RawBlockBytes();
  std::vector<Way> ways = Ways();
  std::erase_if(ways, [&](const Way& way) { return Name(way).find(bench.only) == std::string::npos; });
  std::vector<ChartLine> lines;
  for (const Way& way : ways) lines.push_back({Name(way), {}, way.floor_levels == kUncut});
  lines.push_back({"raw, clairvoyant", {}, true});
  for (size_t c = 0; c < bench.percents.size(); ++c) {
    double percent = bench.percents[c];
    auto blocks = static_cast<uint64_t>(percent / 100 * static_cast<double>(trace->distinct));
    uint64_t capacity = blocks * raw_bytes;
    double best = static_cast<double>(ClairvoyantHits(*trace, blocks)) / static_cast<double>(trace->accesses);
    lines.back().points.emplace_back(percent, best);
    QUIRE_ASSIGN_OR_RETURN(std::vector<ReplayResult> results,
                           ReplayAll(*trace, ways, capacity, bench.threads));
    for (size_t w = 0; w < ways.size(); ++w) {
      const ReplayResult& result = results[w];
      lines[w].points.emplace_back(percent, result.HitRate(*trace));
      std::optional<double> goal;
      if (c < ways[w].goals.size() && bench.percents == TraceBench().percents) goal = ways[w].goals[c];
      report.Add(
          {absl::StrFormat("trace/%g%%/%s", percent, Name(ways[w])), result.HitRate(*trace), "of tokens",
           "clairvoyant on raw", best, goal,
           absl::StrFormat("%s; %.0f %% of %d MiB in use at the end; %.1f s", KeptBits(ways[w], result),
                           100 * result.used, capacity >> 20, result.seconds)});
    }
  }
  if (bench.chart.empty()) return absl::OkStatus();
  return WriteChart(bench.chart, "Tokens found in the store, of a trace of conversations",
                    "capacity, % of the trace's distinct raw bytes", "hit rate", lines);
}

}  // namespace quire::bench
