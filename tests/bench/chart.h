// A line chart.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace quire::bench {

struct ChartLine {
  std::string label;
  std::vector<std::pair<double, double>> points;  // x, y
  bool dashed = false;
};

// Writes a PNG, replacing the file; y begins at 0. UNAVAILABLE naming the path if it cannot be written.
// REQUIRES: some line has a point.
absl::Status WriteChart(const std::string& path, const std::string& title, const std::string& x_label,
                        const std::string& y_label, const std::vector<ChartLine>& lines);

}  // namespace quire::bench
