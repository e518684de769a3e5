// Put, Get and Lookup over gRPC: bytes beside what the same streams carry of a constant buffer, lookups by
// how long each of many clients waits.
#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

absl::Status RunGrpcBench(Report& report);

}  // namespace quire::bench
