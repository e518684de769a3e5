// How long a tier takes, learnt from what it took: time ≈ latency + bytes / bandwidth.
#pragma once

#include <cstdint>
#include <mutex>

namespace quire::store {

// Decayed least squares over the calls seen, old ones weighing ever less. Thread-safe.
class FetchModel {
 public:
  // What is believed before the first call; it fades as calls come.
  FetchModel(double latency_us, double bytes_per_us);

  void Observe(uint64_t bytes, double us);
  uint64_t PredictUs(uint64_t bytes) const;

  struct Fit {
    double latency_us = 0;   // ≥ 0
    double us_per_byte = 0;  // ≥ 0
    double floor_us = 0;     // no read is predicted to be faster
  };
  Fit fit() const;

 private:
  mutable std::mutex mu_;  // guards all below
  // Decayed sums: of weights, bytes, µs and their products. The weights stay below 1 / (1 − decay).
  double weight_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;
};

}  // namespace quire::store
