// Lets a store's writers in until it drains, and knows when the last of them has gone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire::store {

// Thread-safe.
class DrainGate {
 public:
  // One call that changes what is stored, or holds something of the store's, while it runs.
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }

   private:
    friend class DrainGate;
    explicit Pass(DrainGate* gate) : gate_(gate) {}
    DrainGate* gate_;
  };
  // UNAVAILABLE once the gate is closed.
  absl::StatusOr<Pass> Enter() {
    std::lock_guard lock(mu_);
    if (closed_) return Draining();
    ++inside_;
    return Pass(this);
  }
  static absl::Status Draining() { return absl::UnavailableError("the store is draining: go to another"); }

  void Close() {
    std::lock_guard lock(mu_);
    closed_ = true;
  }
  bool closed() const {
    std::lock_guard lock(mu_);
    return closed_;
  }
  // Nobody is inside any more, or they have had their time: what they used may go.
  void Finish() {
    std::lock_guard lock(mu_);
    closed_ = finished_ = true;
  }
  bool finished() const {
    std::lock_guard lock(mu_);
    return finished_;
  }
  // How many are still inside when all have left, or at `until`.
  uint64_t AwaitEmpty(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mu_);
    left_.wait_until(lock, until, [this] { return inside_ == 0; });
    return inside_;
  }

 private:
  void Leave() {
    std::lock_guard lock(mu_);
    if (--inside_ == 0) left_.notify_all();
  }

  mutable std::mutex mu_;  // guards all below
  std::condition_variable left_;
  bool closed_ = false, finished_ = false;
  uint64_t inside_ = 0;
};

}  // namespace quire::store
