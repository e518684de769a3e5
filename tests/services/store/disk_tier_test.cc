// What the disk tier does beyond the conformance suite: restarts, damage, folders that are not its own.
#include "services/store/disk/disk_tier.h"

#include <rocksdb/db.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/store/sample_object.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

class DiskTierTest : public testing::Test {
 protected:
  DiskTierTest() {
    options_.folder = folder_.path();
    options_.capacity_bytes = 64 << 20;
    options_.write_buffer_bytes = 4 << 20;
  }
  DiskTier& Open() {
    tier_.reset();
    auto tier = DiskTier::Open(options_);
    EXPECT_TRUE(tier.ok()) << tier.status();
    tier_ = *std::move(tier);
    return *tier_;
  }
  absl::Status OpenFails() {
    tier_.reset();
    auto tier = DiskTier::Open(options_);
    EXPECT_FALSE(tier.ok());
    return tier.ok() ? absl::OkStatus() : tier.status();
  }
  std::map<ObjectName, ObjectRecord> Scan() {
    std::map<ObjectName, ObjectRecord> out;
    absl::Status status = tier_->Scan([&](const ObjectName& n, const ObjectRecord& r) { out[n] = r; });
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
  // The database behind the tier's back, while no tier is open.
  void Tamper(const std::function<void(rocksdb::DB&, std::vector<rocksdb::ColumnFamilyHandle*>&)>& tamper) {
    tier_.reset();
    rocksdb::ColumnFamilyOptions blobs;
    blobs.enable_blob_files = true;
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    auto status = rocksdb::DB::Open({}, options_.folder,
                                    {{"default", {}}, {"entries", {}}, {"levels", blobs}}, &handles, &db);
    ASSERT_TRUE(status.ok()) << status.ToString();
    tamper(*db, handles);
    for (auto* h : handles) db->DestroyColumnFamilyHandle(h);
    delete db;
  }

  TempFolder folder_;
  DiskTierOptions options_;
  std::shared_ptr<DiskTier> tier_;
};

class DiskRestart : public DiskTierTest, public testing::WithParamInterface<DiskSync> {};

TEST_P(DiskRestart, EverythingIsThereAgain) {
  options_.sync = GetParam();
  Open();
  std::map<ObjectName, ObjectRecord> stored;
  std::vector<SampleObject> objects;
  for (uint32_t i = 0; i < 40; ++i) {
    SampleObject o = MakeSample(i, 100'000);
    ASSERT_TRUE(WriteSample(*tier_, o).ok());
    if (i % 4 == 1) {
      ASSERT_TRUE(tier_->Remove({&o.name, 1}).ok());
      continue;
    }
    if (i % 4 == 2) {
      o.record.levels = 2;
      ASSERT_TRUE(tier_->DropLevels(o.name, o.record).ok());
    }
    objects.push_back(o);
    stored[o.name] = o.record;
  }
  uint64_t used = tier_->used_bytes();
  EXPECT_EQ(tier_->figures().objects, 30u);
  for (int restart = 0; restart < 2; ++restart) {
    Open();
    EXPECT_EQ(Scan(), stored);
    EXPECT_EQ(tier_->used_bytes(), used);
    EXPECT_EQ(tier_->figures().objects, 30u);
    for (const SampleObject& o : objects) {
      EXPECT_TRUE(Holds(*tier_, o, static_cast<int>(o.record.levels)));
      EXPECT_FALSE(o.record.levels < 4 && ReadLevels(*tier_, o, 4).ok());
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Sync, DiskRestart,
                         testing::Values(DiskSync::kNone, DiskSync::kLog, DiskSync::kSync));

// The log is cut anywhere within the last commit: the object is whole or is not there.
TEST_F(DiskTierTest, AHalfWrittenCommitIsInvisible) {
  namespace fs = std::filesystem;
  SampleObject first = MakeSample(1, 20'000), second = MakeSample(2, 20'000);
  TempFolder copy;
  Open();
  ASSERT_TRUE(WriteSample(*tier_, first).ok());
  auto log_size = [&] {
    uintmax_t size = 0;
    for (const auto& f : fs::directory_iterator(options_.folder))
      if (f.path().extension() == ".log") size = std::max(size, f.file_size());
    return size;
  };
  uintmax_t before = log_size();
  ASSERT_TRUE(WriteSample(*tier_, second).ok());
  uintmax_t after = log_size();
  ASSERT_GT(after, before + 20'000);
  fs::copy(options_.folder, copy.path(), fs::copy_options::recursive);
  for (int cut = 0; cut <= 8; ++cut) {
    TempFolder again;
    fs::copy(copy.path(), again.path(), fs::copy_options::recursive);
    for (const auto& f : fs::directory_iterator(again.path())) {
      if (f.path().extension() == ".log" && f.file_size() == after)
        fs::resize_file(f.path(), before + (after - before) * static_cast<uintmax_t>(cut) / 8);
    }
    options_.folder = again.path();
    Open();
    EXPECT_TRUE(Holds(*tier_, first, 4)) << cut;
    EXPECT_EQ(Scan().size(), cut == 8 ? 2u : 1u) << cut;
    EXPECT_EQ(ReadLevels(*tier_, second, 1).ok(), cut == 8) << cut;
    tier_.reset();
  }
}

TEST_F(DiskTierTest, DamagedRecordsAreCountedRemovedAndSkipped) {
  Open();
  std::vector<SampleObject> objects;
  for (uint32_t i = 0; i < 6; ++i) {
    objects.push_back(MakeSample(i, 10'000));
    ASSERT_TRUE(WriteSample(*tier_, objects.back()).ok());
  }
  Tamper([&](rocksdb::DB& db, auto& handles) {
    std::string good = objects[0].record.Serialize();
    good[40] = static_cast<char>(good[40] ^ 1);
    db.Put({}, handles[1], objects[0].name.Encode(), good);
    db.Put({}, handles[1], objects[1].name.Encode(), "");
    db.Put({}, handles[1], objects[2].name.Encode(), std::string(100'000, 'x'));
    db.Put({}, handles[1], "a key of no name", objects[3].record.Serialize());
  });
  Open();
  EXPECT_EQ(tier_->figures().objects, 3u);
  EXPECT_TRUE(FindSample(*tier_, objects[0].name.tenant, objects[0].name.key).found.empty());
  EXPECT_EQ(Scan().size(), 3u);
  EXPECT_EQ(tier_->figures().damaged_records, 4u);
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(Holds(*tier_, objects[i], 4), i >= 3) << i;
  EXPECT_EQ(Scan().size(), 3u);
  EXPECT_EQ(tier_->figures().damaged_records, 4u);  // gone, not counted again
  ASSERT_TRUE(WriteSample(*tier_, objects[0]).ok());
  EXPECT_TRUE(Holds(*tier_, objects[0], 4));
}

TEST_F(DiskTierTest, ADamagedRecordIsReplacedOrRemovedLikeAnother) {
  Open();
  SampleObject replaced = MakeSample(1, 10'000), removed = MakeSample(2, 10'000);
  for (const SampleObject* o : {&replaced, &removed}) ASSERT_TRUE(WriteSample(*tier_, *o).ok());
  Tamper([&](rocksdb::DB& db, auto& handles) {
    for (const SampleObject* o : {&replaced, &removed}) db.Put({}, handles[1], o->name.Encode(), "damaged");
  });
  Open();
  EXPECT_EQ(tier_->used_bytes(), 0u);
  EXPECT_EQ(tier_->DropLevels(removed.name, removed.record).code(), StatusCode::kDataLoss);
  ASSERT_TRUE(tier_->Remove({&removed.name, 1}).ok());
  EXPECT_FALSE(ReadLevels(*tier_, removed, 1).ok());
  replaced.record.levels = 2;
  ASSERT_TRUE(WriteSample(*tier_, replaced).ok());
  EXPECT_TRUE(Holds(*tier_, replaced, 2));
  EXPECT_FALSE(ReadLevels(*tier_, replaced, 4).ok());  // the damaged one's last levels went
  EXPECT_EQ(tier_->used_bytes(), tier_->Charge(replaced.record));
}

// Bytes that rot in blob files are never given out.
TEST_F(DiskTierTest, RottenBytesAreDataLoss) {
  for (bool direct : {true, false}) {
    options_.direct_io = direct;
    Open();
    std::vector<SampleObject> objects;
    for (uint32_t i = 0; i < 8; ++i) {
      objects.push_back(MakeSample(i, 50'000, direct));
      ASSERT_TRUE(WriteSample(*tier_, objects.back()).ok());
    }
    ASSERT_TRUE(tier_->CollectGarbage().ok());  // into blob files
    tier_.reset();
    for (const auto& file : std::filesystem::directory_iterator(options_.folder)) {
      if (file.path().extension() != ".blob") continue;
      std::fstream f(file.path(), std::ios::in | std::ios::out | std::ios::binary);
      for (uintmax_t at = 3000; at < file.file_size(); at += 60'000) {
        f.seekg(static_cast<std::streamoff>(at));
        char c = static_cast<char>(f.get() ^ 0x20);
        f.seekp(static_cast<std::streamoff>(at));
        f.put(c);
      }
    }
    Open();
    int lost = 0;
    for (const SampleObject& o : objects) {
      for (int levels = 1; levels <= 4; ++levels) {
        auto got = ReadLevels(*tier_, o, levels);
        if (got.ok()) {
          EXPECT_TRUE(std::equal(got->begin(), got->end(), o.bytes.begin()));
        } else {
          EXPECT_EQ(got.status().code(), StatusCode::kDataLoss) << got.status();
          ++lost;
        }
      }
    }
    EXPECT_GE(lost, 5);
    std::vector<ObjectName> names;
    for (const SampleObject& o : objects) names.push_back(o.name);
    EXPECT_TRUE(tier_->Remove(names).ok());
    EXPECT_EQ(tier_->used_bytes(), 0u);
  }
}

TEST_F(DiskTierTest, AFolderInUseIsRefused) {
  Open();
  auto second = DiskTier::Open(options_);
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use by another store"));
  EXPECT_TRUE(WriteSample(*tier_, MakeSample(1)).ok());
}

TEST_F(DiskTierTest, AnotherFormatIsRefusedAndLeftAlone) {
  Open();
  SampleObject o = MakeSample(1);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Tamper([&](rocksdb::DB& db, auto& handles) { db.Put({}, handles[0], "quire.disk.format", "2"); });
  absl::Status status = OpenFails();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("format 2"));
  Tamper([&](rocksdb::DB& db, auto& handles) { db.Delete({}, handles[0], "quire.disk.format"); });
  EXPECT_EQ(OpenFails().code(), StatusCode::kFailedPrecondition);  // objects of who knows what format
  Tamper([&](rocksdb::DB& db, auto& handles) { db.Put({}, handles[0], "quire.disk.format", "1"); });
  Open();
  EXPECT_TRUE(Holds(*tier_, o, 4));
}

TEST_F(DiskTierTest, AForeignDatabaseIsRefused) {
  rocksdb::Options foreign;
  foreign.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(foreign, options_.folder, &db).ok());
  rocksdb::ColumnFamilyHandle* family = nullptr;
  ASSERT_TRUE(db->CreateColumnFamily({}, "theirs", &family).ok());
  db->DestroyColumnFamilyHandle(family);
  delete db;
  absl::Status status = OpenFails();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("theirs"));
}

TEST_F(DiskTierTest, OptionsThatCannotBeAreRefused) {
  for (auto spoil : std::vector<void (*)(DiskTierOptions&)>{
           [](DiskTierOptions& o) { o.folder = ""; }, [](DiskTierOptions& o) { o.capacity_bytes = 1000; },
           [](DiskTierOptions& o) { o.max_garbage = 0; }, [](DiskTierOptions& o) { o.read_threads = 0; },
           [](DiskTierOptions& o) { o.write_buffer_bytes = 1; },
           [](DiskTierOptions& o) { o.max_open_files = 1; }}) {
    DiskTierOptions options = options_;
    spoil(options);
    EXPECT_EQ(DiskTier::Open(options).status().code(), StatusCode::kInvalidArgument);
  }
  std::ofstream(options_.folder + "/file") << "not a folder";
  options_.folder += "/file";
  EXPECT_EQ(OpenFails().code(), StatusCode::kFailedPrecondition);
}

TEST_F(DiskTierTest, ASmallerCapacityKeepsObjectsAndTakesNoMore) {
  Open();
  for (uint32_t i = 0; i < 30; ++i) ASSERT_TRUE(WriteSample(*tier_, MakeSample(i, 100'000)).ok());
  options_.capacity_bytes = 1 << 20;
  Open();
  EXPECT_EQ(Scan().size(), 30u);
  EXPECT_GT(tier_->used_bytes(), tier_->capacity_bytes());
  EXPECT_EQ(WriteSample(*tier_, MakeSample(99, 1000)).code(), StatusCode::kResourceExhausted);
  std::vector<ObjectName> names;
  for (uint32_t i = 0; i < 25; ++i) names.push_back(MakeSample(i).name);
  ASSERT_TRUE(tier_->Remove(names).ok());
}

// What is removed frees its room on the device too, and nothing is lost by the rewriting.
TEST_F(DiskTierTest, GarbageStaysWithinItsShare) {
  options_.max_garbage = 0.25;
  options_.write_buffer_bytes = 1 << 20;
  Open();
  std::map<uint32_t, SampleObject> live;
  std::mt19937 random(3);
  constexpr uint32_t kLive = 100;
  for (uint32_t i = 0; i < 700; ++i) {
    SampleObject o = MakeSample(i, 100'000);
    ASSERT_TRUE(WriteSample(*tier_, o).ok());
    live[i] = o;
    if (live.size() > kLive) {  // any of them, the worst case for rewriting
      auto victim = std::next(live.begin(), random() % live.size());
      ASSERT_TRUE(tier_->Remove({&victim->second.name, 1}).ok());
      live.erase(victim);
    }
    if (i % 50 == 0) {
      auto& [n, cold] = *live.begin();
      cold.record.levels = 1;
      ASSERT_TRUE(tier_->DropLevels(cold.name, cold.record).ok());
    }
    if (i > 200 && i % 100 == 0) {
      // Beside the live bytes: twice the share, and buffers and one rewriting under way.
      EXPECT_LE(tier_->figures().blob_bytes, tier_->used_bytes() * 1.5 * 2 + (24 << 20)) << i;
    }
  }
  ASSERT_TRUE(tier_->CollectGarbage().ok());
  EXPECT_LE(tier_->figures().blob_bytes, tier_->used_bytes() * 1.125 + (2 << 20));
  for (auto& [n, o] : live) EXPECT_TRUE(Holds(*tier_, o, static_cast<int>(o.record.levels))) << n;
  Open();
  for (auto& [n, o] : live) EXPECT_TRUE(Holds(*tier_, o, static_cast<int>(o.record.levels))) << n;
  EXPECT_EQ(Scan().size(), live.size());
}

}  // namespace
}  // namespace quire::store
