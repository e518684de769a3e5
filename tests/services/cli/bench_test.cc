// quirectl bench against a real server, and the arithmetic of its figures.
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "gmock/gmock.h"
#include "services/cli/latencies.h"
#include "services/cli/load_chains.h"
#include "services/cli/zipf.h"
#include "tests/services/cli/run.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(Latencies, PercentilesAreOfAllSamples) {
  Latencies odd, rest;
  EXPECT_EQ(odd.Percentile(.5), 0);
  for (int i = 100; i > 50; --i) odd.Add(i);
  for (int i = 1; i <= 50; ++i) rest.Add(i);
  EXPECT_EQ(odd.Percentile(1), 100);
  odd.Add(rest);
  EXPECT_EQ(odd.count(), 100u);
  for (int p : {1, 50, 90, 99, 100}) EXPECT_EQ(odd.Percentile(p / 100.0), p) << p;
  EXPECT_EQ(odd.Percentile(0), 1);
  EXPECT_EQ(odd.Percentile(.999), 100);
  EXPECT_EQ(odd.sum(), 5050);
}

TEST(Zipf, NumbersComeAsOftenAsTheirRankSays) {
  constexpr size_t kNumbers = 20;
  for (double s : {0.0, 0.9, 2.0}) {
    Zipf zipf(kNumbers, s);
    double sum = 0;
    for (size_t i = 0; i < kNumbers; ++i) sum += std::pow(i + 1.0, -s);
    std::vector<double> seen(kNumbers);
    constexpr int kSteps = 1'000'000;  // every u of a grid: shares are exact to a step
    for (int u = 0; u < kSteps; ++u) seen[zipf.At((u + 0.5) / kSteps)] += 1.0 / kSteps;
    for (size_t i = 0; i < kNumbers; ++i) EXPECT_NEAR(seen[i], std::pow(i + 1.0, -s) / sum, 3e-6) << s;
  }
  EXPECT_EQ(Zipf(1, 1).At(0.999), 0u);
}

TEST(LoadBlocks, AreValidObjectsOfTheirChain) {
  Layout layout = store::SampleLayout();
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  LoadBlocks blocks = *LoadBlocks::Create(layout, "tq:k3v3", false, 3);
  for (uint64_t number : {0, 1, 7}) {
    auto chain = LoadChain(layout.Fingerprint(), "s", number, 3);
    for (const store::PutBlock& block : blocks.Of(chain)) {
      auto reader = BlockReader::Open(codec, block.identity, block.data);
      ASSERT_TRUE(reader.ok()) << reader.status();
      EXPECT_TRUE(reader->Verify().ok());
      EXPECT_EQ(reader->header().identity, block.identity);
    }
  }
  EXPECT_NE(LoadChain(layout.Fingerprint(), "s", 0, 1)[0].key,
            LoadChain(layout.Fingerprint(), "t", 0, 1)[0].key);
  EXPECT_FALSE(LoadBlocks::Create(layout, "zip", false, 3).ok());
}

class BenchCommand : public testing::Test {
 protected:
  BenchCommand() : served_(store::SmallStore(8 << 20)), address_(served_.address()) {}
  Ran Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--store", address_, "bench", "--layers", "2", "--kv-heads", "2",
                                         "--head-dim", "64", "--blocks", "4", "--prompts", "8"});
    return RunQuirectl(std::move(arguments));
  }
  static std::map<std::string, json> Rows(const std::string& out) {
    std::map<std::string, json> rows;
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);) {
      json row = json::parse(line);
      rows[row["name"]] = row;
    }
    return rows;
  }

  store::ServedStore served_;
  const std::string address_;
};

TEST_F(BenchCommand, MakesTheCallsItIsAskedForAndCountsThem) {
  Ran ran = Run({"--json", "--calls", "200", "--clients", "3", "--read-share", "0.75"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  auto rows = Rows(ran.out);
  EXPECT_EQ(rows.count("failures"), 0u) << ran.out;
  uint64_t reads = rows["lookup"]["calls"], puts = rows["put"]["calls"];
  EXPECT_EQ(reads + puts, 200u);
  EXPECT_NEAR(static_cast<double>(reads), 150, 30);
  EXPECT_EQ(rows["get"]["calls"], reads);  // all of them hit: there was room
  EXPECT_EQ(rows["lookup"]["missed_blocks"], 0);
  EXPECT_EQ(rows["get"]["blocks"], 4 * reads);
  EXPECT_LE(rows["get"]["p50_us"], rows["get"]["p99_us"]);
  EXPECT_LE(rows["get"]["p99_us"], rows["get"]["max_us"]);
  EXPECT_EQ(served_.engine().Stats()->blocks_stored, 4 * (8 + puts));
}

TEST_F(BenchCommand, GoesThroughSharedMemoryWhereItIsAskedTo) {
  Ran ran = Run({"--json", "--calls", "50", "--clients", "2", "--read-share", "0.5", "--arena-mib", "4"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  auto rows = Rows(ran.out);
  EXPECT_EQ(rows.count("failures"), 0u) << ran.out;
  EXPECT_EQ(rows["lookup"]["calls"].get<int>() + rows["put"]["calls"].get<int>(), 50);
  EXPECT_EQ(rows["get"]["blocks"], 4 * rows["get"]["calls"].get<int>());
  // More than the store shares with all of its clients.
  Ran greedy = Run({"--calls", "1", "--arena-mib", "1048576"});
  EXPECT_EQ(greedy.code, 1);
  EXPECT_THAT(greedy.err, HasSubstr("1048576 MiB"));
}

TEST_F(BenchCommand, SendsRawKvOrLooksUpOnly) {
  Ran raw = Run({"--json", "--calls", "20", "--raw", "--read-share", "0", "--codec", "tq:k2v2"});
  ASSERT_EQ(raw.code, 0) << raw.err;
  EXPECT_EQ(Rows(raw.out)["put"]["calls"], 20);
  EXPECT_EQ(Rows(raw.out)["put"]["bytes"], 20 * 4 * store::SampleLayout().RawBlockBytes());
  Ran only = Run({"--json", "--calls", "20", "--lookup-only", "--read-share", "1"});
  EXPECT_EQ(Rows(only.out).size(), 1u);
  EXPECT_EQ(Rows(only.out)["lookup"]["blocks"], 80);
}

TEST_F(BenchCommand, PrintsATableAndRefusesNonsense) {
  Ran table = Run({"--seconds", "0.1"});
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("p99.9 us"));
  EXPECT_THAT(table.out, HasSubstr("\nlookup"));
  EXPECT_NE(Run({"--read-share", "2"}).code, 0);
  Ran spec = Run({"--codec", "zip"});
  EXPECT_EQ(spec.code, 1);
  EXPECT_THAT(spec.err, HasSubstr("zip"));
  served_.Stop();
  EXPECT_THAT(Run({"--calls", "1", "--timeout", "1"}).err, HasSubstr("UNAVAILABLE"));
}

}  // namespace
}  // namespace quire::cli
