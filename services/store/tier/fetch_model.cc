#include "services/store/tier/fetch_model.h"

#include <algorithm>
#include <cmath>

namespace quire::store {
namespace {

constexpr double kDecay = 0.97;          // half of the weight lies on the last 23 calls
constexpr double kPriorBytes = 1 << 20;  // the belief is two calls: an empty one and one of this size
constexpr double kPriorWeight = 1;
// Below this spread of sizes (deviation over mean) a line through them is noise.
constexpr double kMinSpread = 0.1;

}  // namespace

FetchModel::FetchModel(double latency_us, double bytes_per_us) {
  double us = latency_us + kPriorBytes / bytes_per_us;
  weight_ = 2 * kPriorWeight;
  x_ = kPriorWeight * kPriorBytes;
  y_ = kPriorWeight * (latency_us + us);
  xx_ = kPriorWeight * kPriorBytes * kPriorBytes;
  xy_ = kPriorWeight * kPriorBytes * us;
}

void FetchModel::Observe(uint64_t bytes, double us) {
  auto x = static_cast<double>(bytes);
  std::lock_guard lock(mu_);
  weight_ = kDecay * weight_ + 1;
  x_ = kDecay * x_ + x;
  y_ = kDecay * y_ + us;
  xx_ = kDecay * xx_ + x * x;
  xy_ = kDecay * xy_ + x * us;
}

FetchModel::Fit FetchModel::fit() const {
  std::lock_guard lock(mu_);
  double mean_x = x_ / weight_, mean_y = y_ / weight_;
  double variance = std::max(0.0, xx_ / weight_ - mean_x * mean_x);
  if (mean_x <= 0) return {mean_y, 0, 0};
  if (std::sqrt(variance) < kMinSpread * mean_x) {
    // All about the same size: what they took, in proportion for larger ones, and no less for smaller ones.
    return {0, mean_y / mean_x, mean_y};
  }
  double slope = std::max(0.0, (xy_ / weight_ - mean_x * mean_y) / variance);
  double latency = mean_y - slope * mean_x;
  if (latency < 0) return {0, mean_y / mean_x, 0};
  return {latency, slope, 0};
}

uint64_t FetchModel::PredictUs(uint64_t bytes) const {
  Fit f = fit();
  double us = f.latency_us + f.us_per_byte * static_cast<double>(bytes);
  return static_cast<uint64_t>(std::llround(std::max(us, f.floor_us)));
}

}  // namespace quire::store
