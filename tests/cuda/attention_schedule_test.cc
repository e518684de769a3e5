// Schedules of decode attention: every item of every pair once, within the bounds, and balanced. Needs no
// GPU.
#include "cuda/attention_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace quire::cuda {
namespace {

struct Load {
  std::vector<AttentionWork> work;
  std::vector<uint32_t> costs;

  void Add(uint32_t coded, uint32_t raw, uint32_t coded_cost = 8656, uint32_t raw_cost = 32768) {
    work.push_back({static_cast<uint32_t>(costs.size()), coded, raw});
    costs.insert(costs.end(), coded, coded_cost);
    costs.insert(costs.end(), raw, raw_cost);
  }
};

// Checks all that must hold, and gives the busiest block's cost over the mean.
double Check(const Load& load, uint32_t heads, uint32_t blocks) {
  AttentionSchedule schedule;
  MakeSchedule(load.work, load.costs, heads, blocks, &schedule);
  size_t pairs = load.work.size() * heads;
  EXPECT_LE(schedule.segments.size(), pairs + (kSegmentsPerBlock + 1) * blocks);
  EXPECT_EQ(schedule.first.size(), blocks + 1);
  EXPECT_EQ(schedule.first.front(), blocks);
  EXPECT_EQ(schedule.first.back(), schedule.segments.size());
  EXPECT_TRUE(std::is_sorted(schedule.first.begin(), schedule.first.end()));
  std::vector<std::vector<int>> seen(pairs, std::vector<int>(load.costs.size(), 0));
  std::set<uint32_t> slots;
  std::vector<uint32_t> parts(pairs, 0), parts_seen(pairs, 0);
  uint64_t total = 0, most = 0;
  for (uint32_t b = 0; b < blocks; ++b) {
    std::vector<AttentionSegment> segments{schedule.segments[b]};
    for (uint32_t i = schedule.first[b]; i < schedule.first[b + 1]; ++i)
      segments.push_back(schedule.segments[i]);
    uint64_t mine = 0;
    for (const AttentionSegment& s : segments) {
      if (s.parts == 0) {
        EXPECT_EQ(segments.size(), 1u);
        continue;
      }
      EXPECT_GT(s.coded + s.raw, 0u);
      EXPECT_LE(s.raw_share, 256u);
      EXPECT_LT(s.part, s.parts);
      EXPECT_LT(s.first_slot + s.part, pairs + kSegmentsPerBlock * blocks);
      EXPECT_TRUE(slots.insert(s.first_slot + s.part).second);
      if (parts[s.pair] != 0) {
        EXPECT_EQ(parts[s.pair], s.parts);
      }
      parts[s.pair] = s.parts;
      ++parts_seen[s.pair];
      auto take = [&](uint32_t first, uint32_t count) {
        for (uint32_t k = first; k < first + count; ++k) {
          ++seen[s.pair][k];
          mine += load.costs[k];
        }
      };
      take(s.first_coded, s.coded);
      take(s.first_raw, s.raw);
      const AttentionWork& w = load.work[s.pair / heads];
      if (s.coded > 0) {
        EXPECT_LE(s.first_coded + s.coded, w.first_item + w.coded);
      }
      if (s.raw > 0) {
        EXPECT_GE(s.first_raw, w.first_item + w.coded);
      }
    }
    total += mine;
    most = std::max(most, mine);
  }
  for (size_t p = 0; p < pairs; ++p) {
    EXPECT_EQ(parts_seen[p], parts[p]);
    const AttentionWork& w = load.work[p / heads];
    for (uint32_t k = 0; k < load.costs.size(); ++k)
      EXPECT_EQ(seen[p][k], k >= w.first_item && k < w.first_item + w.coded + w.raw ? 1 : 0);
  }
  return static_cast<double>(most) * blocks / static_cast<double>(total);
}

TEST(AttentionScheduleTest, OneLongSequenceGoesToAllBlocks) {
  Load load;
  load.Add(512, 0);
  EXPECT_LE(Check(load, 8, 132), 1.07);
}

TEST(AttentionScheduleTest, EqualSequencesAreNotCutWhereBlocksAreNearlyAllBusy) {
  Load load;
  for (int i = 0; i < 16; ++i) load.Add(128, 0);
  EXPECT_LE(Check(load, 8, 132), 1.04);
}

TEST(AttentionScheduleTest, AFewMorePairsThanBlocksAreCut) {
  Load load;
  for (int i = 0; i < 20; ++i) load.Add(512, 0);
  EXPECT_LE(Check(load, 8, 132), 1.1);
}

TEST(AttentionScheduleTest, UnequalLengths) {
  Load load;
  for (uint32_t i = 0; i < 16; ++i) load.Add(16 + 64 * i, 3);
  EXPECT_LE(Check(load, 8, 132), 1.15);
}

TEST(AttentionScheduleTest, AnyLoad) {
  std::mt19937 engine(3);
  for (int round = 0; round < 200; ++round) {
    Load load;
    uint32_t sequences = 1 + engine() % 40, heads = 1 + engine() % 8;
    for (uint32_t i = 0; i < sequences; ++i) {
      uint32_t coded = engine() % 3 == 0 ? 0 : engine() % (1u << engine() % 9), raw = engine() % 4;
      if (coded + raw == 0) raw = 1;
      load.Add(coded, raw, 4096 + engine() % 9000, 4096 + engine() % 50000);
    }
    Check(load, heads, 1 + engine() % 140);
  }
}

}  // namespace
}  // namespace quire::cuda
