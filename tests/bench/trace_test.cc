// The clairvoyant policy against trying everything, traces against their form, and a replay through the
// store.
#include "tests/bench/trace.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "gmock/gmock.h"
#include "tests/bench/chart.h"
#include "tests/bench/trace_replay.h"

namespace quire::bench {
namespace {

using testing::HasSubstr;

// The most hits any choice of what to keep reaches, by trying all: `cache` is a set of ids below 32.
uint64_t MostHits(const std::vector<uint32_t>& ids, size_t at, uint32_t cache, int capacity) {
  if (at == ids.size()) return 0;
  uint32_t bit = 1u << ids[at];
  uint64_t hit = (cache & bit) != 0;
  uint64_t best = MostHits(ids, at + 1, cache, capacity);  // bypass, or keep as it is
  if (hit) return hit + best;
  if (std::popcount(cache) < capacity) return std::max(best, MostHits(ids, at + 1, cache | bit, capacity));
  for (uint32_t victim = cache; victim != 0; victim &= victim - 1)
    best = std::max(best, MostHits(ids, at + 1, (cache ^ (victim & -victim)) | bit, capacity));
  return best;
}

TEST(Clairvoyant, IsTheBestOfAllPolicies) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> ids(12);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 6);
    Trace trace = Trace::Of({{0, ids}});
    for (int capacity = 0; capacity <= 4; ++capacity)
      ASSERT_EQ(ClairvoyantHits(trace, static_cast<uint64_t>(capacity)), MostHits(ids, 0, 0, capacity));
  }
}

class TraceFile : public testing::Test {
 protected:
  TraceFile() {
    char name[] = "/tmp/trace_test.XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~TraceFile() override { std::filesystem::remove_all(folder_); }
  absl::StatusOr<Trace> Read(const std::string& text) {
    std::ofstream(folder_ + "/trace") << text;
    return Trace::Read(folder_ + "/trace");
  }
  std::string folder_;
};

TEST_F(TraceFile, IsReadOrRefusedByLine) {
  Trace trace =
      *Read("{\"timestamp\": 5, \"hash_ids\": [0, 1, 2]}\n{\"timestamp\": 7, \"hash_ids\": [0, 1, 9]}\n");
  EXPECT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[1].timestamp_ms, 7);
  EXPECT_EQ(trace.accesses, 6u);
  EXPECT_EQ(trace.distinct, 4u);
  EXPECT_NEAR(trace.RepeatedShare(), 2. / 6, 1e-12);
  EXPECT_EQ(Trace::Read(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
  for (const char* bad : {"", "no json", "{\"timestamp\": 1}", "{\"timestamp\": 1, \"hash_ids\": [-1]}",
                          "{\"timestamp\": 1, \"hash_ids\": [1, 2]}\n{\"timestamp\": 1, \"hash_ids\": [2]}"})
    EXPECT_EQ(Read(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  EXPECT_THAT(std::string(Read("{\"timestamp\": 1, \"hash_ids\": [1]}\nx").status().message()),
              HasSubstr("line 2"));
}

// Requests of a few long prompts that share beginnings.
Trace Conversations() {
  std::mt19937 random(3);
  std::vector<TraceRequest> requests;
  for (int i = 0; i < 300; ++i) {
    uint32_t prompt = static_cast<uint32_t>(random() % 40);
    TraceRequest request{i * 10, {0}};
    for (uint32_t b = 0; b < 5; ++b) request.ids.push_back(1 + prompt * 5 + b);
    requests.push_back(std::move(request));
  }
  return Trace::Of(std::move(requests));
}

TEST(Replay, OfAStoreWithRoomHitsAllThatIsRepeated) {
  Trace trace = Conversations();
  ReplayOptions options;
  options.host_bytes = 32 << 20;
  for (const char* codec : {"raw", "tq:k4v4"}) {
    options.codec = codec;
    ReplayResult result = *Replay(trace, options);
    EXPECT_EQ(result.hits, trace.accesses - trace.distinct) << codec;
    EXPECT_EQ(result.stored, trace.distinct);
    EXPECT_EQ(result.by_levels[std::string(codec) == "raw" ? 0 : 2], result.hits);
  }
}

TEST(Replay, UnderPressureCodesHitMoreThanRawAndBlocksAreCutDownToTheFloor) {
  Trace trace = Conversations();
  ReplayOptions options;
  options.host_bytes = 4 << 20;  // about 60 of 201 raw blocks
  options.codec = "raw";
  ReplayResult raw = *Replay(trace, options);
  EXPECT_LE(raw.hits, ClairvoyantHits(trace, options.host_bytes / ReplayLayout().RawBlockBytes()));
  options.codec = "tq:k4v4";
  options.host_bytes = 2 << 20;  // about 110 of them coded, 200 with two bits
  ReplayResult uncut = *Replay(trace, options);
  EXPECT_GT(uncut.hits, raw.hits);
  EXPECT_EQ(uncut.by_levels[2], uncut.hits);
  options.floor_levels = 1;
  ReplayResult cut = *Replay(trace, options);
  EXPECT_GT(cut.hits, uncut.hits);
  EXPECT_GT(cut.by_levels[0] + cut.by_levels[1], 0u);
}

TEST(Chart, IsAPng) {
  char name[] = "/tmp/trace_test.XXXXXX";
  std::string folder = mkdtemp(name), path = folder + "/chart.png";
  ASSERT_TRUE(
      WriteChart(path, "title", "x", "y", {{"a", {{1, .2}, {5, .9}}, false}, {"b", {{2, .1}}, true}}).ok());
  std::string head(8, 0);
  std::ifstream(path, std::ios::binary).read(head.data(), 8);
  EXPECT_EQ(head, "\x89PNG\r\n\x1a\n");
  EXPECT_GT(std::filesystem::file_size(path), 5000u);
  EXPECT_EQ(WriteChart(folder + "/none/chart.png", "", "", "", {{"a", {{0, 0}}, false}}).code(),
            absl::StatusCode::kUnavailable);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace quire::bench
