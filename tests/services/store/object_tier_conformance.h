// What every ObjectTier must do. A test file includes this and says which tiers it runs on:
//
//   INSTANTIATE_TEST_SUITE_P(Disk, ObjectTierConformance, testing::Values(TierBackend{"log", &OpenDisk}),
//   BackendName);
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/store/sample_object.h"

namespace quire::store {

struct TierBackend {
  std::string name;
  // An empty tier that takes `capacity` bytes; null: the test is skipped (no server here).
  std::function<std::shared_ptr<ObjectTier>(uint64_t capacity)> open;
};
inline std::string BackendName(const testing::TestParamInfo<TierBackend>& info) { return info.param.name; }

class ObjectTierConformance : public testing::TestWithParam<TierBackend> {
 protected:
  void Start(uint64_t capacity) {
    tier_ = GetParam().open(capacity);
    if (tier_ == nullptr) GTEST_SKIP() << "no " << GetParam().name << " here";
  }
  void SetUp() override { Start(256 << 20); }
  ObjectTier& tier() { return *tier_; }

  std::shared_ptr<ObjectTier> tier_;
};

TEST_P(ObjectTierConformance, GivesBackWhatWasWrittenByAnyNumberOfLevels) {
  SampleObject o = MakeSample(1);
  EXPECT_EQ(tier().used_bytes(), 0u);
  ASSERT_TRUE(WriteSample(tier(), o).ok());
  for (int levels = 1; levels <= 4; ++levels) EXPECT_TRUE(Holds(tier(), o, levels)) << levels;
  EXPECT_EQ(tier().used_bytes(), tier().Charge(o.record));
  EXPECT_GE(tier().Charge(o.record), o.record.bytes());
  EXPECT_LE(tier().Charge(o.record), o.record.bytes() + 2048);
}

TEST_P(ObjectTierConformance, TakesFewerLevelsThanWereMade) {
  SampleObject o = MakeSample(2);
  o.record.levels = 2;
  ASSERT_TRUE(WriteSample(tier(), o).ok());
  EXPECT_TRUE(Holds(tier(), o, 2));
  EXPECT_EQ(ReadLevels(tier(), o, 3).status().code(), absl::StatusCode::kNotFound);
  ObjectTier::FindRequest found = FindSample(tier(), o.name.tenant, o.name.key);
  ASSERT_EQ(found.found.size(), 1u);
  EXPECT_EQ(found.found[0].second, o.record);
}

TEST_P(ObjectTierConformance, TakesSmallAndLargeObjects) {
  SampleObject small = MakeSample(3, 8);
  small.record.ends = {65, 66, 67, 68};
  small.bytes.resize(68);
  SampleObject large = MakeSample(4, 12 << 20);
  ASSERT_TRUE(WriteSample(tier(), small).ok());
  ASSERT_TRUE(WriteSample(tier(), large).ok());
  EXPECT_TRUE(Holds(tier(), small, 4));
  EXPECT_TRUE(Holds(tier(), large, 4));
}

TEST_P(ObjectTierConformance, UnknownNamesAreMisses) {
  SampleObject o = MakeSample(5);
  EXPECT_EQ(ReadLevels(tier(), o, 1).status().code(), absl::StatusCode::kNotFound);
  ObjectTier::FindRequest found = FindSample(tier(), o.name.tenant, o.name.key);
  EXPECT_TRUE(found.status.ok()) << found.status;
  EXPECT_TRUE(found.found.empty());
  EXPECT_EQ(tier().DropLevels(o.name, o.record).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(tier().Remove({&o.name, 1}).ok());
  EXPECT_TRUE(tier().Remove({}).ok());
  tier().Read({});
  tier().Find({});
}

TEST_P(ObjectTierConformance, NamesThatDifferInOnePlaceAreDifferentObjects) {
  std::vector<SampleObject> objects;
  for (int i = 0; i < 7; ++i) objects.push_back(MakeSample(6, 4000, static_cast<uint32_t>(i)));
  objects[1].name.tenant.bytes[31] ^= 1;
  objects[2].name.key.bytes[0] ^= 0x80;
  objects[3].name.part.layer_begin = 1;
  objects[4].name.part.layer_end += 1 << 24;
  objects[5].name.part.head_begin ^= 1;
  objects[6].name.part.head_end = UINT32_MAX;
  for (const SampleObject& o : objects) ASSERT_TRUE(WriteSample(tier(), o).ok());
  for (const SampleObject& o : objects) EXPECT_TRUE(Holds(tier(), o, 4));
  ASSERT_TRUE(tier().Remove({&objects[0].name, 1}).ok());
  EXPECT_FALSE(Holds(tier(), objects[0], 1));
  for (size_t i = 1; i < objects.size(); ++i) EXPECT_TRUE(Holds(tier(), objects[i], 4)) << i;
}

// Digests may hold any byte: those that end lines, strings or braces elsewhere.
TEST_P(ObjectTierConformance, NamesOfAnyBytes) {
  std::vector<SampleObject> objects;
  for (int byte : {0x00, 0xFF, 0x0A, 0x0D, 0x7B, 0x7D, 0x25, 0x22, 0x5C, 0x2A}) {
    SampleObject o = MakeSample(7, 1000, static_cast<uint32_t>(byte));
    o.name.tenant.bytes.fill(static_cast<uint8_t>(byte));
    o.name.key.bytes.fill(static_cast<uint8_t>(byte));
    ASSERT_TRUE(WriteSample(tier(), o).ok());
    objects.push_back(o);
  }
  for (const SampleObject& o : objects) {
    EXPECT_TRUE(Holds(tier(), o, 4));
    EXPECT_EQ(FindSample(tier(), o.name.tenant, o.name.key).found.size(), 1u);
  }
}

TEST_P(ObjectTierConformance, FindsEveryPartOfABlockAndNoOther) {
  std::map<Part, ObjectRecord> parts;
  SampleObject first = MakeSample(8, 4000);
  for (uint32_t rank = 0; rank < 4; ++rank) {
    SampleObject o = MakeSample(8, 4000, rank);
    o.name.part = {rank, rank + 1, 0, 8 + rank};
    ASSERT_TRUE(WriteSample(tier(), o).ok());
    parts[o.name.part] = o.record;
  }
  SampleObject sibling = MakeSample(8, 4000);
  sibling.name.key.bytes[31] ^= 1;
  ASSERT_TRUE(WriteSample(tier(), sibling).ok());
  SampleObject foreign = MakeSample(8, 4000);
  foreign.name.tenant.bytes[31] ^= 1;
  ASSERT_TRUE(WriteSample(tier(), foreign).ok());

  std::vector<ObjectTier::FindRequest> requests(3);
  requests[0] = {first.name.tenant, first.name.key, {}, {}};
  requests[1] = {first.name.tenant, SampleDigest("none", 1), {}, {}};
  requests[2] = {foreign.name.tenant, foreign.name.key, {{Part{}, ObjectRecord{}}}, {}};  // as if used before
  tier().Find(requests);
  for (const auto& r : requests) ASSERT_TRUE(r.status.ok()) << r.status;
  std::map<Part, ObjectRecord> found(requests[0].found.begin(), requests[0].found.end());
  EXPECT_EQ(requests[0].found.size(), 4u);
  EXPECT_EQ(found, parts);
  EXPECT_TRUE(requests[1].found.empty());
  EXPECT_EQ(requests[2].found.size(), 1u);
}

TEST_P(ObjectTierConformance, DropsLevelsAndKeepsTheRest) {
  SampleObject o = MakeSample(9);
  ASSERT_TRUE(WriteSample(tier(), o).ok());
  for (uint32_t levels : {3u, 1u}) {
    o.record.levels = levels;
    o.record.priority = static_cast<int32_t>(levels);
    ASSERT_TRUE(tier().DropLevels(o.name, o.record).ok());
    EXPECT_TRUE(Holds(tier(), o, static_cast<int>(levels)));
    EXPECT_EQ(ReadLevels(tier(), o, static_cast<int>(levels) + 1).status().code(),
              absl::StatusCode::kNotFound);
    EXPECT_EQ(FindSample(tier(), o.name.tenant, o.name.key).found.at(0).second, o.record);
    EXPECT_EQ(tier().used_bytes(), tier().Charge(o.record));
  }
}

TEST_P(ObjectTierConformance, RefusesToDropToWhatIsNotThere) {
  SampleObject o = MakeSample(10);
  o.record.levels = 2;
  ASSERT_TRUE(WriteSample(tier(), o).ok());
  ObjectRecord more = o.record;
  more.levels = 3;
  EXPECT_EQ(tier().DropLevels(o.name, more).code(), absl::StatusCode::kInvalidArgument);
  ObjectRecord none = o.record;
  none.levels = 0;
  EXPECT_EQ(tier().DropLevels(o.name, none).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Holds(tier(), o, 2));
  EXPECT_EQ(tier().used_bytes(), tier().Charge(o.record));
}

TEST_P(ObjectTierConformance, ReplacesWholly) {
  SampleObject first = MakeSample(11, 40'000, 0), second = MakeSample(11, 20'000, 1);
  second.record.levels = 2;
  ASSERT_TRUE(WriteSample(tier(), first).ok());
  ASSERT_TRUE(WriteSample(tier(), second).ok());
  EXPECT_TRUE(Holds(tier(), second, 2));
  EXPECT_EQ(ReadLevels(tier(), first, 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FindSample(tier(), first.name.tenant, first.name.key).found.size(), 1u);
  EXPECT_EQ(tier().used_bytes(), tier().Charge(second.record));
  ASSERT_TRUE(WriteSample(tier(), first).ok());
  EXPECT_TRUE(Holds(tier(), first, 4));
  EXPECT_EQ(tier().used_bytes(), tier().Charge(first.record));
}

TEST_P(ObjectTierConformance, RemovesWhatIsNamedAndGivesTheRoomBack) {
  std::vector<SampleObject> objects;
  std::vector<ObjectName> names;
  for (uint32_t i = 0; i < 20; ++i) {
    objects.push_back(MakeSample(100 + i, 4000));
    ASSERT_TRUE(WriteSample(tier(), objects.back()).ok());
    if (i % 2 == 0) names.push_back(objects.back().name);
  }
  names.push_back(names[0]);              // twice
  names.push_back(MakeSample(999).name);  // unknown
  ASSERT_TRUE(tier().Remove(names).ok());
  uint64_t left = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(Holds(tier(), objects[i], 4), i % 2 == 1) << i;
    EXPECT_EQ(FindSample(tier(), objects[i].name.tenant, objects[i].name.key).found.size(), i % 2);
    if (i % 2 == 1) left += tier().Charge(objects[i].record);
  }
  EXPECT_EQ(tier().used_bytes(), left);
  ASSERT_TRUE(WriteSample(tier(), objects[0]).ok());
  EXPECT_TRUE(Holds(tier(), objects[0], 4));
}

TEST_P(ObjectTierConformance, ABatchHasAnOutcomeForEachRequest) {
  std::vector<SampleObject> objects;
  for (uint32_t i = 0; i < 40; ++i) {
    objects.push_back(MakeSample(200 + i, 10'000));
    if (i % 3 == 0) continue;
    ASSERT_TRUE(WriteSample(tier(), objects[i]).ok());
  }
  std::vector<std::vector<uint8_t>> out(40);
  std::vector<ObjectTier::ReadRequest> requests(40);
  for (uint32_t i = 0; i < 40; ++i) {
    int levels = 1 + static_cast<int>(i % 4);
    // Every tenth asks for another size than is there: what its caller knows of is not what is stored.
    out[i].resize(objects[i].record.ends[i % 4] - (i % 10 == 5 ? 1 : 0));
    requests[i] = {objects[i].name, levels, out[i], absl::UnknownError("not answered")};
  }
  tier().Read(requests);
  for (uint32_t i = 0; i < 40; ++i) {
    if (i % 3 == 0 || i % 10 == 5) {
      EXPECT_EQ(requests[i].status.code(), absl::StatusCode::kNotFound) << i << requests[i].status;
    } else {
      EXPECT_TRUE(requests[i].status.ok()) << i << requests[i].status;
      EXPECT_TRUE(std::equal(out[i].begin(), out[i].end(), objects[i].bytes.begin())) << i;
    }
  }
}

TEST_P(ObjectTierConformance, RefusesRecordsAndRequestsThatCannotBe) {
  SampleObject o = MakeSample(12);
  EXPECT_EQ(tier().Write(o.name, o.record, Bytes(o.bytes).first(o.bytes.size() - 1)).code(),
            absl::StatusCode::kInvalidArgument);
  ObjectRecord bad = o.record;
  bad.levels = 5;
  EXPECT_EQ(tier().Write(o.name, bad, o.bytes).code(), absl::StatusCode::kInvalidArgument);
  bad = o.record;
  bad.ends[1] = bad.ends[0];
  EXPECT_EQ(tier().Write(o.name, bad, o.bytes).code(), absl::StatusCode::kInvalidArgument);
  bad = o.record;
  bad.codec.assign(65, 'c');
  EXPECT_EQ(tier().Write(o.name, bad, o.bytes).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(FindSample(tier(), o.name.tenant, o.name.key).found.empty());
  EXPECT_EQ(tier().used_bytes(), 0u);
  ASSERT_TRUE(WriteSample(tier(), o).ok());
  for (int levels : {0, -1, 5, INT32_MAX}) {
    std::vector<uint8_t> out(100);
    ObjectTier::ReadRequest request{o.name, levels, out, {}};
    tier().Read({&request, 1});
    EXPECT_EQ(request.status.code(), absl::StatusCode::kInvalidArgument) << levels;
  }
}

TEST_P(ObjectTierConformance, FullIsResourceExhaustedAndHarmsNothing) {
  Start(1 << 20);
  if (tier().capacity_bytes() > 2 << 20) GTEST_SKIP() << "unbounded";
  std::vector<SampleObject> kept;
  absl::Status status;
  uint64_t charged = 0;
  for (uint32_t i = 0; status.ok(); ++i) {
    ASSERT_LT(i, 40u) << "more was taken than there is room for";
    SampleObject o = MakeSample(300 + i, 60'000);
    status = WriteSample(tier(), o);
    if (!status.ok()) break;
    charged += tier().Charge(o.record);
    kept.push_back(o);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(tier().used_bytes(), charged);
  EXPECT_LE(charged, tier().capacity_bytes());
  EXPECT_GT(charged, tier().capacity_bytes() - 70'000);
  for (const SampleObject& o : kept) EXPECT_TRUE(Holds(tier(), o, 4));
  // Replacing by no more than is there needs no room; dropping and removing make some.
  EXPECT_TRUE(WriteSample(tier(), kept[0]).ok());
  kept[1].record.levels = 1;
  ASSERT_TRUE(tier().DropLevels(kept[1].name, kept[1].record).ok());
  ASSERT_TRUE(tier().Remove({&kept[2].name, 1}).ok());
  EXPECT_TRUE(WriteSample(tier(), MakeSample(399, 60'000)).ok());
}

TEST_P(ObjectTierConformance, ScanVisitsEveryObjectOnce) {
  std::map<ObjectName, ObjectRecord> stored, seen;
  for (uint32_t i = 0; i < 50; ++i) {
    SampleObject o = MakeSample(400 + i, 2000);
    ASSERT_TRUE(WriteSample(tier(), o).ok());
    stored[o.name] = o.record;
  }
  ObjectName removed = stored.begin()->first;
  ASSERT_TRUE(tier().Remove({&removed, 1}).ok());
  stored.erase(removed);
  ObjectRecord& dropped = stored.begin()->second;
  dropped.levels = 1;
  ASSERT_TRUE(tier().DropLevels(stored.begin()->first, dropped).ok());
  int visits = 0;
  absl::Status status = tier().Scan([&](const ObjectName& n, const ObjectRecord& r) {
    seen[n] = r;
    ++visits;
  });
  ASSERT_TRUE(status.ok()) << status;
  if (tier().shared()) {
    EXPECT_EQ(visits, 0);
    return;
  }
  EXPECT_EQ(seen, stored);
  EXPECT_EQ(visits, 49);
}

// Several threads write, replace, drop and remove the same few objects and read them all the time: what a
// reader gets is one version, never parts of two.
TEST_P(ObjectTierConformance, ReadersAmongWritersSeeWholeObjects) {
  constexpr uint32_t kObjects = 4, kVersions = 3;
  std::vector<std::vector<SampleObject>> versions(kObjects);
  for (uint32_t i = 0; i < kObjects; ++i) {
    for (uint32_t v = 0; v < kVersions; ++v) versions[i].push_back(MakeSample(500 + i, 16'000, v));
  }
  std::atomic<bool> stop{false};
  std::atomic<int> read{0}, torn{0}, failed{0};
  std::vector<std::thread> readers, writers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      while (!stop) {
        const SampleObject& o = versions[random() % kObjects][random() % kVersions];
        absl::StatusOr<std::vector<uint8_t>> got = ReadLevels(tier(), o, 1 + static_cast<int>(random() % 4));
        if (got.ok()) {
          ++read;
          if (!std::equal(got->begin(), got->end(), o.bytes.begin())) ++torn;
        } else if (!absl::IsNotFound(got.status())) {
          ++failed;
        }
      }
    });
  }
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(100 + t));
      // On a busy machine the readers may come late; a tier that never answers them ends it too.
      for (int i = 0; i < 150 || (read == 0 && i < 200'000); ++i) {
        SampleObject o = versions[random() % kObjects][random() % kVersions];
        absl::Status status;
        switch (random() % 6) {
          case 0:
            status = tier().Remove({&o.name, 1});
            break;
          case 1:
            o.record.levels = 2;
            status = tier().DropLevels(o.name, o.record);
            // Another version may be there, or none.
            if (absl::IsNotFound(status) || absl::IsInvalidArgument(status)) status = absl::OkStatus();
            break;
          default:
            status = WriteSample(tier(), o);
        }
        if (!status.ok()) ++failed;
      }
    });
  }
  for (std::thread& t : writers) t.join();
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(failed, 0);
  EXPECT_GT(read, 0);
  // The account is right to the byte after all that.
  uint64_t charged = 0;
  for (const auto& v : versions) {
    for (const auto& [part, record] : FindSample(tier(), v[0].name.tenant, v[0].name.key).found)
      charged += tier().Charge(record);
  }
  EXPECT_EQ(tier().used_bytes(), charged);
}

TEST_P(ObjectTierConformance, ConcurrentWritersOfManyObjects) {
  constexpr uint32_t kThreads = 4, kEach = 25;
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < kEach; ++i)
        if (!WriteSample(tier(), MakeSample(1000 + t * kEach + i, 20'000)).ok()) ++failed;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(failed, 0);
  uint64_t charged = 0;
  for (uint32_t i = 0; i < kThreads * kEach; ++i) {
    SampleObject o = MakeSample(1000 + i, 20'000);
    EXPECT_TRUE(Holds(tier(), o, 4)) << i;
    charged += tier().Charge(o.record);
  }
  EXPECT_EQ(tier().used_bytes(), charged);
  EXPECT_TRUE(tier().Flush().ok());
}

}  // namespace quire::store
