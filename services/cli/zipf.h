// Numbers 0…n−1 of which number i comes with a probability proportional to 1/(i+1)^s.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace quire::cli {

class Zipf {
 public:
  // REQUIRES: n ≥ 1, s ≥ 0; s = 0: all alike.
  Zipf(size_t n, double s) : cumulated_(n) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) cumulated_[i] = sum += std::pow(static_cast<double>(i + 1), -s);
    for (double& c : cumulated_) c /= sum;
  }
  // The number for a uniform u of [0, 1).
  size_t At(double u) const {
    auto it = std::upper_bound(cumulated_.begin(), cumulated_.end(), u);
    return std::min(static_cast<size_t>(it - cumulated_.begin()), cumulated_.size() - 1);
  }

 private:
  std::vector<double> cumulated_;
};

}  // namespace quire::cli
