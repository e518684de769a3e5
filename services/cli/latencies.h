// Every latency that was measured, and exact percentiles of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace quire::cli {

class Latencies {
 public:
  void Add(double seconds) { seconds_.push_back(seconds); }
  void Add(const Latencies& other) {
    seconds_.insert(seconds_.end(), other.seconds_.begin(), other.seconds_.end());
    sorted_ = false;
  }
  size_t count() const { return seconds_.size(); }
  double sum() const {
    double sum = 0;
    for (double s : seconds_) sum += s;
    return sum;
  }
  // The least latency that at least `share` (0…1) of all are no longer than; 0 where there are none.
  double Percentile(double share) {
    if (seconds_.empty()) return 0;
    if (!sorted_) std::sort(seconds_.begin(), seconds_.end());
    sorted_ = true;
    double rank = std::ceil(share * static_cast<double>(seconds_.size()));
    return seconds_[std::min(seconds_.size() - 1, static_cast<size_t>(std::max(rank - 1, 0.0)))];
  }

 private:
  std::vector<double> seconds_;
  bool sorted_ = false;
};

}  // namespace quire::cli
