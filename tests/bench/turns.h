// Works that take turns, so that whatever else the machine does meets all of them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace quire::bench {

struct Work {
  std::string name;
  std::function<absl::Status()> run;
  std::vector<double> seconds;  // of each round

  double median();  // REQUIRES: TakeTurns was called
};

// Each once to warm up, then `rounds` times. An error names the work.
absl::Status TakeTurns(std::span<Work> works, int rounds);

}  // namespace quire::bench
