// When to try again: pauses that double up to a longest, each taken times a random 0.5…1.5, while tries and
// time last.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/random/random.h"

namespace quire::store {

using Deadline = std::chrono::system_clock::time_point;

class Pauses {
 public:
  Pauses(int max_tries, std::chrono::milliseconds first, std::chrono::milliseconds longest)
      : tries_left_(max_tries - 1), next_(first), longest_(longest) {}

  // Sleeps; false, at once, where there is no further try before the deadline.
  bool Take(Deadline deadline) {
    if (tries_left_ <= 0) return false;
    std::chrono::milliseconds wait(
        static_cast<int64_t>(static_cast<double>(next_.count()) * absl::Uniform(random_, 0.5, 1.5)));
    if (std::chrono::system_clock::now() + wait >= deadline) return false;
    std::this_thread::sleep_for(wait);
    --tries_left_;
    next_ = std::min(2 * next_, longest_);
    return true;
  }

 private:
  int tries_left_;
  std::chrono::milliseconds next_;
  const std::chrono::milliseconds longest_;
  absl::BitGen random_;
};

}  // namespace quire::store
