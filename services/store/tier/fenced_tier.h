// A tier behind a circuit breaker, so that a failing medium costs its callers nothing but misses, and with
// its speed measured, so that fetch times can be predicted.
//
//   closed     calls pass. It opens after `consecutive_failures` in a row, or when of the last `window` calls
//              the share `failure_rate` failed.
//   open       every call answers UNAVAILABLE at once, until the back-off is over;
//   half-open  then one call passes as a probe and the others are refused. If it succeeds, the fence closes;
//              if it fails, it opens again for twice as long, at most max_backoff.
//
// A failure is UNAVAILABLE, DEADLINE_EXCEEDED or DATA_LOSS: one wrong object is nothing, several in a row are
// a medium that has gone wrong. NOT_FOUND and RESOURCE_EXHAUSTED are a working medium's answers. A batch is
// one call: failed if one of its requests failed and none succeeded.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "services/store/tier/fetch_model.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

struct FenceOptions {
  using Clock = std::chrono::steady_clock;

  int consecutive_failures = 5;  // ≥ 1
  double failure_rate = 0.5;     // of a full window; above 1: never
  int window = 32;               // calls, 1…64
  std::chrono::milliseconds first_backoff{500};
  std::chrono::milliseconds max_backoff{60'000};
  // What PredictUs believes before it has seen reads.
  double latency_us = 300;
  double bytes_per_us = 1000;  // = MB/s
  std::function<Clock::time_point()> now = Clock::now;
};

// Thread-safe. The tier's own calls run outside the fence's lock.
class FencedTier : public ObjectTier {
 public:
  enum class State : uint8_t { kClosed = 0, kOpen = 1, kHalfOpen = 2 };
  struct Stats {
    State state = State::kClosed;
    uint64_t opened = 0;    // times that the fence opened
    uint64_t failures = 0;  // failed calls
    uint64_t refused = 0;   // calls refused while open or half-open
  };

  FencedTier(std::shared_ptr<ObjectTier> tier, FenceOptions options);

  Stats stats() const;
  // Whether a call now would reach the tier (as a probe, perhaps).
  bool admits() const;
  // Of one Read of so many bytes; meaningful while the fence is closed.
  uint64_t PredictUs(uint64_t bytes) const { return model_.PredictUs(bytes); }
  FetchModel::Fit measured() const { return model_.fit(); }
  ObjectTier& tier() { return *tier_; }

  Tier kind() const override { return tier_->kind(); }
  bool shared() const override { return tier_->shared(); }
  absl::Status Write(const ObjectName& name, const ObjectRecord& record, Bytes object) override;
  void Read(std::span<ReadRequest> requests) override;
  void Find(std::span<FindRequest> requests) override;
  absl::Status DropLevels(const ObjectName& name, const ObjectRecord& record) override;
  absl::Status Remove(std::span<const ObjectName> names) override;
  absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) override;
  absl::Status Flush() override;
  uint64_t capacity_bytes() const override { return tier_->capacity_bytes(); }
  uint64_t used_bytes() const override { return tier_->used_bytes(); }
  uint64_t Charge(const ObjectRecord& record) const override { return tier_->Charge(record); }

 private:
  // What a call was let in with. Answers from before the fence last changed are not counted again.
  struct Ticket {
    absl::Status refused;  // OK: go on
    uint64_t epoch = 0;
  };
  Ticket Enter();
  void Leave(const Ticket& ticket, bool failed);
  absl::Status Call(absl::FunctionRef<absl::Status()> call);
  template <typename Request>
  void CallBatch(std::span<Request> requests, absl::FunctionRef<void()> call);
  // REQUIRE: mu_ is held.
  void Open(FenceOptions::Clock::time_point now);
  bool TooManyFailures() const;

  const std::shared_ptr<ObjectTier> tier_;
  const FenceOptions options_;
  FetchModel model_;

  mutable std::mutex mu_;  // guards all below
  State state_ = State::kClosed;
  uint64_t epoch_ = 0;  // grows with every change of state
  int consecutive_ = 0;
  uint64_t recent_ = 0;  // one bit a call, the last call lowest, 1: failed
  int seen_ = 0;         // calls in recent_, at most the window
  std::chrono::milliseconds backoff_{0};
  FenceOptions::Clock::time_point open_until_{};
  Stats stats_;
};

}  // namespace quire::store
