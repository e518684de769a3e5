// A chart of divergence over bits.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace quire::worker {

struct PlotPoint {
  std::string label;
  double bits = 0;  // an element
  double kl = 0;    // nats; drawn on a logarithmic axis, 0 and less at its foot
};

// Points whose labels agree up to the first of ':', '@' and '(' have one colour, and a line through them from
// bits to bits; labels with an '@' are hollow.
std::string PlotFamily(const std::string& label);

// Writes a PNG, replacing the file. UNAVAILABLE naming path if it can't be written. REQUIRES: points is not
// empty.
absl::Status WritePlot(const std::string& path, const std::string& title,
                       const std::vector<PlotPoint>& points);

}  // namespace quire::worker
