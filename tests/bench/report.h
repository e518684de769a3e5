// What a benchmark prints: one measured thing with its baseline from the same process and the ratio of the
// two.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace quire::bench {

struct Measurement {
  std::string name;
  double value = 0;
  std::string unit;
  std::string baseline;  // what it is compared with
  double baseline_value = 0;
  std::optional<double> goal;  // for the ratio, where an issue sets one
  std::string context;         // sizes and settings
};

// Prints lines of JSON or an aligned table row, as chosen once at start.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  void Add(const Measurement& m);

 private:
  bool json_;
  bool header_printed_ = false;
};

// Median seconds of one call of `work`, over at least `min_runs` runs and `min_seconds`, after one warm-up.
double MedianSeconds(const std::function<void()>& work, int min_runs = 7, double min_seconds = 0.3);

}  // namespace quire::bench
