// The disk tier on a disk that fails.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/store/disk/disk_tier.h"
#include "tests/services/store/sample_object.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;

class DiskFaults : public testing::TestWithParam<DiskSync> {
 protected:
  void SetUp() override {
    if (!FaultPoints::kBuiltIn) GTEST_SKIP() << "built with QUIRE_FAULTS=OFF";
    options_.folder = folder_.path();
    options_.capacity_bytes = 64 << 20;
    options_.write_buffer_bytes = 4 << 20;
    options_.sync = GetParam();
    options_.faults = faults_;
    Open();
  }
  void Open() {
    tier_.reset();
    auto tier = DiskTier::Open(options_);
    ASSERT_TRUE(tier.ok()) << tier.status();
    tier_ = *std::move(tier);
  }
  void Arm(const std::string& point, uint32_t count, uint64_t parameter = 0) {
    ASSERT_TRUE(faults_->Arm(point, count, parameter).ok());
  }
  size_t Visible() {
    size_t n = 0;
    absl::Status status = tier_->Scan([&](const ObjectName&, const ObjectRecord&) { ++n; });
    EXPECT_TRUE(status.ok()) << status;
    return n;
  }

  TempFolder folder_;
  std::shared_ptr<FaultPoints> faults_ = std::make_shared<FaultPoints>();
  DiskTierOptions options_;
  std::shared_ptr<DiskTier> tier_;
};

// With a log, a commit fails there and then, leaves nothing, and the tier goes on.
class DiskLogFaults : public DiskFaults {
 protected:
  void FailsOnce(const std::string& point, StatusCode code) {
    SampleObject before = MakeSample(1), failing = MakeSample(2), after = MakeSample(3);
    ASSERT_TRUE(WriteSample(*tier_, before).ok());
    uint64_t used = tier_->used_bytes();
    Arm(point, 1);
    absl::Status status = WriteSample(*tier_, failing);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(tier_->used_bytes(), used);
    EXPECT_TRUE(Holds(*tier_, before, 4));
    EXPECT_FALSE(ReadLevels(*tier_, failing, 1).ok());
    ASSERT_TRUE(WriteSample(*tier_, after).ok());
    EXPECT_TRUE(Holds(*tier_, after, 4));
    EXPECT_EQ(Visible(), 2u);
    EXPECT_EQ(tier_->used_bytes(), tier_->Charge(before.record) + tier_->Charge(after.record));
    Open();
    EXPECT_TRUE(Holds(*tier_, before, 4));
    EXPECT_TRUE(Holds(*tier_, after, 4));
    EXPECT_EQ(Visible(), 2u);
    ASSERT_TRUE(WriteSample(*tier_, failing).ok());
    EXPECT_TRUE(Holds(*tier_, failing, 4));
  }
};
TEST_P(DiskLogFaults, WriteError) { FailsOnce("disk_write_error", StatusCode::kUnavailable); }
TEST_P(DiskLogFaults, ShortWrite) { FailsOnce("disk_short_write", StatusCode::kUnavailable); }
TEST_P(DiskLogFaults, FullDisk) { FailsOnce("disk_full", StatusCode::kResourceExhausted); }

TEST_P(DiskLogFaults, AFailedReplacementLeavesTheOldOrNothing) {
  SampleObject old = MakeSample(1, 40'000, 0), replacement = MakeSample(1, 20'000, 1);
  ASSERT_TRUE(WriteSample(*tier_, old).ok());
  Arm("disk_write_error", 1);
  EXPECT_FALSE(WriteSample(*tier_, replacement).ok());
  EXPECT_FALSE(ReadLevels(*tier_, replacement, 4).ok());
  ASSERT_TRUE(WriteSample(*tier_, MakeSample(2)).ok());  // recovers
  EXPECT_FALSE(ReadLevels(*tier_, replacement, 4).ok());
  bool there = Visible() == 2;
  EXPECT_EQ(there, Holds(*tier_, old, 4));
}

TEST_P(DiskLogFaults, ALongOutageEnds) {
  SampleObject before = MakeSample(1);
  ASSERT_TRUE(WriteSample(*tier_, before).ok());
  Arm("disk_write_error", 1000);
  for (uint32_t i = 0; i < 5; ++i)
    EXPECT_EQ(WriteSample(*tier_, MakeSample(10 + i)).code(), StatusCode::kUnavailable);
  faults_->DisarmAll();
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(WriteSample(*tier_, MakeSample(20 + i)).ok());
  EXPECT_TRUE(Holds(*tier_, before, 4));
  EXPECT_EQ(Visible(), 6u);
  EXPECT_GE(tier_->figures().recoveries, 1u);
}
INSTANTIATE_TEST_SUITE_P(Sync, DiskLogFaults, testing::Values(DiskSync::kLog, DiskSync::kSync));

// Without a log, writing shows up when buffers are written out.
class DiskFlushFaults : public DiskFaults {};
TEST_P(DiskFlushFaults, AFlushThatFailsIsSaidAndTriedAgain) {
  SampleObject o = MakeSample(1, 1'000'000);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Arm("disk_write_error", 1);
  EXPECT_FALSE(tier_->Flush().ok());
  faults_->DisarmAll();
  absl::Status status = tier_->Flush();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Visible() == 1, Holds(*tier_, o, 4));
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  ASSERT_TRUE(tier_->Flush().ok());
  Open();
  EXPECT_TRUE(Holds(*tier_, o, 4));
}
INSTANTIATE_TEST_SUITE_P(Sync, DiskFlushFaults, testing::Values(DiskSync::kNone));

TEST_P(DiskFaults, ReadErrorsStrikeSingleRequests) {
  std::vector<SampleObject> objects;
  std::vector<std::vector<uint8_t>> out(6);
  std::vector<ObjectTier::ReadRequest> requests;
  for (uint32_t i = 0; i < 6; ++i) {
    objects.push_back(MakeSample(i));
    ASSERT_TRUE(WriteSample(*tier_, objects[i]).ok());
    out[i].resize(objects[i].bytes.size());
    requests.push_back({objects[i].name, 4, out[i], {}});
  }
  Arm("disk_read_error", 2);
  tier_->Read(requests);
  int failed = 0;
  for (uint32_t i = 0; i < 6; ++i) {
    if (requests[i].status.ok()) {
      EXPECT_EQ(out[i], objects[i].bytes);
    } else {
      EXPECT_EQ(requests[i].status.code(), StatusCode::kUnavailable);
      ++failed;
    }
  }
  EXPECT_EQ(failed, 2);
}

TEST_P(DiskFaults, ACorruptByteIsGivenToTheEngineToFind) {
  SampleObject o = MakeSample(1);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Arm("corrupt_byte", 1, 1234);
  auto got = ReadLevels(*tier_, o, 4);
  ASSERT_TRUE(got.ok());
  for (size_t i = 0; i < got->size(); ++i) EXPECT_EQ((*got)[i] != o.bytes[i], i == 1234) << i;
  EXPECT_TRUE(Holds(*tier_, o, 4));
}
INSTANTIATE_TEST_SUITE_P(Sync, DiskFaults, testing::Values(DiskSync::kSync));

TEST_P(DiskFaults, ACrashBeforeTheCommitLeavesNothingAndOneAfterItEverything) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  SampleObject o = MakeSample(1);
  for (const char* point : {"crash_before_disk_commit", "crash_after_disk_commit"}) {
    // The statement runs in a process that starts anew, with a fixture of its own: only the name of the
    // folder is the same in both.
    tier_.reset();
    std::string at = testing::TempDir() + "quire-crash-" + point;
    std::filesystem::remove_all(at);
    EXPECT_EXIT(
        {
          options_.folder = at;
          Open();
          Arm(point, 1);
          WriteSample(*tier_, o).IgnoreError();
        },
        testing::ExitedWithCode(FaultPoints::kCrashExitCode), point);
    options_.folder = at;
    Open();
    bool after = std::string(point) == "crash_after_disk_commit";
    EXPECT_EQ(Visible(), after ? 1u : 0u);
    EXPECT_EQ(Holds(*tier_, o, 4), after);
    tier_.reset();
    std::filesystem::remove_all(at);
  }
}

}  // namespace
}  // namespace quire::store
