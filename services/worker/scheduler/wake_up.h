// What the scheduler thread sleeps on. Whatever may give it work signals it; signals that come while it works
// are not lost.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace quire::worker {

// Thread-safe. Held by shared_ptr, so that a reader of a finished generation may outlive the scheduler.
class WakeUp {
 public:
  using Clock = std::chrono::steady_clock;

  void Signal() {
    {
      std::lock_guard lock(mutex_);
      signalled_ = true;
    }
    changed_.notify_one();
  }
  // Returns at once if a signal came since the last wait, else at the next one or at `until`. One waiter at a
  // time.
  void WaitUntil(Clock::time_point until) {
    std::unique_lock lock(mutex_);
    if (until == Clock::time_point::max()) {
      changed_.wait(lock, [&] { return signalled_; });
    } else {
      changed_.wait_until(lock, until, [&] { return signalled_; });
    }
    signalled_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool signalled_ = false;
};

}  // namespace quire::worker
