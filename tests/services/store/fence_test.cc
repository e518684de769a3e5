#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/store/tier/fenced_tier.h"

namespace quire::store {
namespace {

using std::chrono::milliseconds;
using State = FencedTier::State;

// A tier whose every call answers what the test says.
class ScriptedTier : public ObjectTier {
 public:
  absl::Status answer;
  std::vector<absl::Status> answers;  // of a batch's requests; empty: `answer` for each
  int calls = 0;
  std::function<void()> during = [] {};

  Tier kind() const override { return Tier::kDisk; }
  bool shared() const override { return false; }
  absl::Status Write(const ObjectName&, const ObjectRecord&, Bytes) override { return Answer(); }
  void Read(std::span<ReadRequest> requests) override { Batch(requests); }
  void Find(std::span<FindRequest> requests) override { Batch(requests); }
  absl::Status DropLevels(const ObjectName&, const ObjectRecord&) override { return Answer(); }
  absl::Status Remove(std::span<const ObjectName>) override { return Answer(); }
  absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)>) override {
    return Answer();
  }
  absl::Status Flush() override { return Answer(); }
  uint64_t capacity_bytes() const override { return 7; }
  uint64_t used_bytes() const override { return 5; }
  uint64_t Charge(const ObjectRecord&) const override { return 3; }

 private:
  absl::Status Answer() {
    ++calls;
    absl::Status now = answer;
    auto run = during;  // it may replace itself
    run();
    return now;
  }
  template <typename Request>
  void Batch(std::span<Request> requests) {
    absl::Status each = Answer();
    for (size_t i = 0; i < requests.size(); ++i) requests[i].status = answers.empty() ? each : answers[i];
  }
};

class Fence : public testing::Test {
 protected:
  FenceOptions::Clock::time_point now_{};
  std::shared_ptr<ScriptedTier> inner_ = std::make_shared<ScriptedTier>();
  std::unique_ptr<FencedTier> fence_;

  void SetUp() override {
    FenceOptions options;
    options.consecutive_failures = 3;
    options.failure_rate = 0.5;
    options.window = 10;
    options.first_backoff = milliseconds(100);
    options.max_backoff = milliseconds(350);
    options.now = [this] { return now_; };
    fence_ = std::make_unique<FencedTier>(inner_, options);
  }
  absl::StatusCode Call(absl::Status answer) {
    inner_->answer = std::move(answer);
    return fence_->Write({}, {}, {}).code();
  }
  State state() const { return fence_->stats().state; }
  void OpenIt() {
    for (int i = 0; i < 3; ++i) Call(absl::UnavailableError("down"));
    ASSERT_EQ(state(), State::kOpen);
  }
};

TEST_F(Fence, OpensAfterFailuresInARowAndThenRefusesWithoutAsking) {
  for (auto failure : {absl::UnavailableError("a"), absl::DataLossError("c")}) Call(failure);
  EXPECT_EQ(state(), State::kClosed);
  Call(absl::DeadlineExceededError("b"));
  EXPECT_EQ(state(), State::kOpen);
  int calls = inner_->calls;
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kUnavailable);
  std::vector<ObjectTier::ReadRequest> reads(2);
  fence_->Read(reads);
  std::vector<ObjectTier::FindRequest> finds(1);
  fence_->Find(finds);
  EXPECT_EQ(reads[1].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(finds[0].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fence_->Flush().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fence_->Remove({}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fence_->DropLevels({}, {}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fence_->Scan([](const ObjectName&, const ObjectRecord&) {}).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(inner_->calls, calls);
  EXPECT_EQ(fence_->stats().refused, 7u);
  EXPECT_EQ(fence_->stats().opened, 1u);
  EXPECT_EQ(fence_->stats().failures, 3u);
  EXPECT_FALSE(fence_->admits());
}

TEST_F(Fence, AnswersOfAWorkingMediumDoNotOpenIt) {
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(Call(absl::NotFoundError("")), absl::StatusCode::kNotFound);
    EXPECT_EQ(Call(absl::ResourceExhaustedError("")), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Call(absl::InvalidArgumentError("")), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(state(), State::kClosed);
}

TEST_F(Fence, OpensAtAFailureRate) {
  // ok, fail, ok, fail: never three in a row, but half of a full window of ten.
  for (int i = 0; i < 9; ++i) Call(i % 2 == 0 ? absl::OkStatus() : absl::UnavailableError(""));
  EXPECT_EQ(state(), State::kClosed);
  Call(absl::UnavailableError(""));
  EXPECT_EQ(state(), State::kOpen);
}

TEST_F(Fence, OneProbeClosesIt) {
  OpenIt();
  now_ += milliseconds(99);
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kUnavailable);
  now_ += milliseconds(1);
  EXPECT_TRUE(fence_->admits());
  // While the probe is under way everyone else is refused.
  inner_->during = [&] {
    inner_->during = [] {};
    EXPECT_EQ(state(), State::kHalfOpen);
    EXPECT_FALSE(fence_->admits());
    EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kUnavailable);
  };
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kOk);
  EXPECT_EQ(state(), State::kClosed);
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kOk);
}

TEST_F(Fence, BackoffDoublesToItsLimitAndStartsAnewAfterSuccess) {
  OpenIt();
  for (int wait : {100, 200, 350, 350}) {
    now_ += milliseconds(wait - 1);
    EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kUnavailable) << wait;
    now_ += milliseconds(1);
    int calls = inner_->calls;
    Call(absl::UnavailableError("still down"));
    EXPECT_EQ(inner_->calls, calls + 1) << wait;
    EXPECT_EQ(state(), State::kOpen);
  }
  now_ += milliseconds(350);
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kOk);
  OpenIt();
  now_ += milliseconds(100);
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kOk);
}

TEST_F(Fence, AnswersThatComeAfterItOpenedCountNothing) {
  inner_->during = [&] {
    inner_->during = [] {};
    OpenIt();
  };
  EXPECT_EQ(Call(absl::OkStatus()), absl::StatusCode::kOk);  // it went in before
  EXPECT_EQ(state(), State::kOpen);
}

TEST_F(Fence, ABatchFailsIfNothingOfItSucceeds) {
  std::vector<ObjectTier::ReadRequest> reads(3);
  auto unavailable = absl::UnavailableError("");
  inner_->answers = {absl::OkStatus(), unavailable, unavailable};
  for (int i = 0; i < 20; ++i) fence_->Read(reads);
  EXPECT_EQ(state(), State::kClosed);
  inner_->answers = {absl::NotFoundError(""), unavailable, absl::NotFoundError("")};
  for (int i = 0; i < 3; ++i) fence_->Read(reads);
  EXPECT_EQ(state(), State::kOpen);
}

TEST_F(Fence, PassesFiguresThrough) {
  EXPECT_EQ(fence_->kind(), Tier::kDisk);
  EXPECT_FALSE(fence_->shared());
  EXPECT_EQ(fence_->capacity_bytes(), 7u);
  EXPECT_EQ(fence_->used_bytes(), 5u);
  EXPECT_EQ(fence_->Charge({}), 3u);
}

TEST_F(Fence, PredictsFromTheReadsThatItSaw) {
  EXPECT_EQ(fence_->PredictUs(0), 300u);
  EXPECT_NEAR(fence_->PredictUs(1 << 20), 300 + 1048.6, 1);
  std::vector<uint8_t> memory(1 << 20);
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    size_t bytes = random() % memory.size();
    ObjectTier::ReadRequest read;
    read.out = MutableBytes(memory).first(bytes);
    // 2000 µs and 100 bytes a µs.
    inner_->during = [&] { now_ += std::chrono::microseconds(2000 + bytes / 100); };
    fence_->Read({&read, 1});
  }
  EXPECT_NEAR(fence_->PredictUs(500'000), 7000, 50);
  EXPECT_NEAR(fence_->PredictUs(0), 2000, 50);
  // A failing read's time is no measure.
  inner_->answer = absl::NotFoundError("");
  ObjectTier::ReadRequest read;
  read.out = memory;
  inner_->during = [&] { now_ += std::chrono::seconds(100); };
  fence_->Read({&read, 1});
  EXPECT_NEAR(fence_->PredictUs(500'000), 7000, 50);
}

TEST(FetchModel, OfEqualSizesItKnowsNoLatencyAndPromisesNothingFaster) {
  FetchModel model(300, 1000);
  for (int i = 0; i < 400; ++i) model.Observe(2'000'000, 4000);
  EXPECT_NEAR(model.PredictUs(2'000'000), 4000, 5);
  EXPECT_NEAR(model.PredictUs(4'000'000), 8000, 10);
  EXPECT_NEAR(model.PredictUs(1000), 4000, 5);
}

TEST(FetchModel, FollowsAMediumThatChanges) {
  FetchModel model(300, 1000);
  std::mt19937 random(2);
  auto feed = [&](double latency, double rate) {
    for (int i = 0; i < 300; ++i) {
      double bytes = random() % 4'000'000;
      model.Observe(static_cast<uint64_t>(bytes), latency + bytes / rate);
    }
  };
  feed(100, 2000);
  EXPECT_NEAR(model.PredictUs(2'000'000), 1100, 10);
  feed(5000, 50);
  EXPECT_NEAR(model.PredictUs(2'000'000), 45000, 500);
  for (int i = 0; i < 300; ++i) model.Observe(0, 0);  // absurd, and still a number
  EXPECT_LT(model.PredictUs(UINT64_MAX), UINT64_MAX);
}

TEST(FenceThreads, OneProbeAtATimeAmongManyThreads) {
  auto inner = std::make_shared<ScriptedTier>();
  std::atomic<int64_t> ms{0};
  FenceOptions options;
  options.consecutive_failures = 1;
  options.first_backoff = milliseconds(1);
  options.max_backoff = milliseconds(1);
  options.now = [&] { return FenceOptions::Clock::time_point(milliseconds(ms.load())); };
  FencedTier fence(inner, options);
  inner->answer = absl::UnavailableError("");
  EXPECT_FALSE(fence.Flush().ok());  // open from here on: only probes reach the tier
  std::atomic<int> inside{0}, most{0};
  inner->during = [&] {
    int n = ++inside;
    if (n > most) most = n;
    --inside;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        ms += 1;
        EXPECT_FALSE(fence.Flush().ok());
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(fence.stats().opened, static_cast<uint64_t>(inner->calls));
}

}  // namespace
}  // namespace quire::store
