// A trace of real conversations through the real store: hit rates of codecs, floors and policies beside what
// a policy that knows the future reaches on raw blocks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

struct TraceBench {
  std::string file = "../shared/traces/conversation.jsonl";
  std::vector<double> percents = {2, 5, 10};  // of the trace's distinct bytes, raw
  std::string only;                           // a part of the names of those that are replayed; empty: all
  std::string chart = "trace.png";            // empty: none
  int threads = 2;                            // replays at a time
};

// Without a file it says so and is done.
absl::Status RunTraceBench(const TraceBench& bench, Report& report);

}  // namespace quire::bench
