#include "services/store/tier/faults.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quire::store {
namespace {

class Faults : public testing::Test {
 protected:
  void SetUp() override {
    if (!FaultPoints::kBuiltIn) GTEST_SKIP() << "built with QUIRE_FAULTS=OFF";
  }
  FaultPoints faults_;
};

TEST_F(Faults, StrikeAsOftenAsArmedWithTheirParameter) {
  EXPECT_FALSE(faults_.Take(Fault::kDiskFull));
  ASSERT_TRUE(faults_.Arm("disk_full", 2, 99).ok());
  EXPECT_FALSE(faults_.Take(Fault::kDiskReadError));
  EXPECT_EQ(faults_.TakeParameter(Fault::kDiskFull), 99u);
  EXPECT_EQ(faults_.left(Fault::kDiskFull), 1u);
  EXPECT_TRUE(faults_.Take(Fault::kDiskFull));
  EXPECT_FALSE(faults_.Take(Fault::kDiskFull));
}

TEST_F(Faults, ArmingReplacesAndZeroDisarms) {
  ASSERT_TRUE(faults_.Arm("slow_tier", 5, 1).ok());
  ASSERT_TRUE(faults_.Arm("slow_tier", 1, 2).ok());
  EXPECT_EQ(faults_.TakeParameter(Fault::kSlowTier), 2u);
  EXPECT_FALSE(faults_.Take(Fault::kSlowTier));
  ASSERT_TRUE(faults_.Arm("slow_tier", 5).ok());
  ASSERT_TRUE(faults_.Arm("slow_tier", 0).ok());
  EXPECT_FALSE(faults_.Take(Fault::kSlowTier));
  ASSERT_TRUE(faults_.Arm("disk_full", 5).ok());
  faults_.DisarmAll();
  EXPECT_FALSE(faults_.Take(Fault::kDiskFull));
}

TEST_F(Faults, EveryPointHasItsNameAndAnUnknownOneIsRefusedWithTheList) {
  for (size_t i = 0; i < kFaults; ++i) {
    auto fault = static_cast<Fault>(i);
    ASSERT_TRUE(faults_.Arm(FaultName(fault), 1).ok());
    EXPECT_EQ(faults_.left(fault), 1u);
  }
  absl::Status status = faults_.Arm("disk_on_fire", 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("crash_before_disk_commit"));
}

TEST_F(Faults, ManyThreadsTakeExactlyTheCount) {
  ASSERT_TRUE(faults_.Arm("disk_read_error", 1000).ok());
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) taken += faults_.Take(Fault::kDiskReadError) ? 1 : 0;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(taken, 1000);
}

TEST_F(Faults, CrashEndsTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  faults_.CrashHere(Fault::kCrashAfterVerify);
  ASSERT_TRUE(faults_.Arm("crash_after_verify", 1).ok());
  EXPECT_EXIT(faults_.CrashHere(Fault::kCrashAfterVerify),
              testing::ExitedWithCode(FaultPoints::kCrashExitCode), "crash_after_verify");
}

}  // namespace
}  // namespace quire::store
