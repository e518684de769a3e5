// What the CUDA benchmarks share: ending at the first failure, timing by events, and a line of JSON a figure.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cuda/stream.h"

namespace quire::cuda {

[[noreturn]] inline void Fail(const std::string& what) {
  std::cerr << "quire-cuda-bench: " << what << "\n";
  std::exit(1);
}
inline void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString());
}
template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(value.status().ToString());
  return *std::move(value);
}

struct Line {
  std::string name, unit, baseline, context;
  double value = 0, baseline_value = 0, ratio = 0, goal = 0;
};

inline void Print(const Line& line) {
  std::printf(
      "{\"name\":\"%s\",\"value\":%.5g,\"unit\":\"%s\",\"baseline\":\"%s\",\"baseline_value\":%.5g,\"ratio\":"
      "%.4f",
      line.name.c_str(), line.value, line.unit.c_str(), line.baseline.c_str(), line.baseline_value,
      line.ratio);
  if (line.goal > 0) std::printf(",\"goal\":%.3f", line.goal);
  std::printf(",\"context\":\"%s\"}\n", line.context.c_str());
  std::fflush(stdout);
}

// Median milliseconds of one call's work on the stream, by events.
inline double Milliseconds(const Stream& stream, int repeats, const std::function<void(int)>& enqueue) {
  Event start = Check(Event::Create(true)), end = Check(Event::Create(true));
  std::vector<double> times;
  for (int i = 0; i < repeats + 3; ++i) {
    Check(start.Record(stream.ref()));
    enqueue(i);
    Check(end.Record(stream.ref()));
    Check(end.Synchronize());
    if (i >= 3) times.push_back(Check(end.MillisecondsSince(start)));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace quire::cuda
