#include "tests/bench/report.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

namespace quire::bench {

void Report::Add(const Measurement& m) {
  double ratio = m.baseline_value > 0 ? m.value / m.baseline_value : 0;
  if (json_) {
    nlohmann::ordered_json line = {{"name", m.name},
                                   {"value", m.value},
                                   {"unit", m.unit},
                                   {"baseline", m.baseline},
                                   {"baseline_value", m.baseline_value},
                                   {"ratio", ratio}};
    if (m.goal) line["goal"] = *m.goal;
    line["context"] = m.context;
    std::printf("%s\n", line.dump().c_str());
  } else {
    if (!header_printed_) {
      std::printf("%-34s %12s %-8s %8s %6s  %s\n", "name", "value", "unit", "ratio", "goal",
                  "of what, with what");
      header_printed_ = true;
    }
    std::string goal = m.goal ? std::to_string(*m.goal).substr(0, 5) : "";
    std::printf("%-34s %12.4g %-8s %8.3f %6s  %s (%.4g); %s\n", m.name.c_str(), m.value, m.unit.c_str(),
                ratio, goal.c_str(), m.baseline.c_str(), m.baseline_value, m.context.c_str());
  }
  std::fflush(stdout);
}

double MedianSeconds(const std::function<void()>& work, int min_runs, double min_seconds) {
  using Clock = std::chrono::steady_clock;
  work();
  std::vector<double> seconds;
  auto start = Clock::now();
  while (static_cast<int>(seconds.size()) < min_runs ||
         std::chrono::duration<double>(Clock::now() - start).count() < min_seconds) {
    auto begin = Clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace quire::bench
