#include "services/worker/eval/progress.h"

#include <gtest/gtest.h>

namespace quire::worker {
namespace {

TEST(WorkEstimate, KnowsNothingBeforeTheFirstStep) {
  WorkEstimate estimate;
  estimate.Expect(Work::kUncodedRun, 2);
  estimate.Expect(Work::kMeasurement, 4);
  EXPECT_EQ(estimate.fraction(), 0);
  EXPECT_FALSE(estimate.remaining().has_value());
}

TEST(WorkEstimate, LearnsWhatEachKindTakes) {
  WorkEstimate estimate;
  estimate.Expect(Work::kUncodedRun, 2);
  estimate.Expect(Work::kMeasurement, 4);
  estimate.Done(Work::kUncodedRun, 30);  // then a measurement is taken to be 10
  EXPECT_DOUBLE_EQ(*estimate.remaining(), 30 + 4 * 10);
  EXPECT_DOUBLE_EQ(estimate.fraction(), 0.3);
  estimate.Done(Work::kMeasurement, 5);
  EXPECT_DOUBLE_EQ(*estimate.remaining(), 30 + 3 * 5);
  EXPECT_DOUBLE_EQ(estimate.fraction(), 35.0 / 80);
  for (int i = 0; i < 3; ++i) estimate.Done(Work::kMeasurement, 5);
  estimate.Done(Work::kUncodedRun, 50);
  EXPECT_EQ(estimate.fraction(), 1);
  EXPECT_EQ(*estimate.remaining(), 0);
}

TEST(WorkEstimate, MoreThanExpectedIsNotLessThanNothing) {
  WorkEstimate estimate;
  estimate.Expect(Work::kMeasurement, 1);
  for (int i = 0; i < 3; ++i) estimate.Done(Work::kUncodedRun, 6);
  EXPECT_DOUBLE_EQ(*estimate.remaining(), 2);
  EXPECT_DOUBLE_EQ(estimate.fraction(), 0.9);
}

TEST(Duration, IsReadable) {
  EXPECT_EQ(FormatDuration(0.4), "0 s");
  EXPECT_EQ(FormatDuration(59.6), "1 min 00 s");
  EXPECT_EQ(FormatDuration(200), "3 min 20 s");
  EXPECT_EQ(FormatDuration(7500), "2 h 05 min");
  EXPECT_EQ(FormatDuration(-1), "0 s");
}

}  // namespace
}  // namespace quire::worker
