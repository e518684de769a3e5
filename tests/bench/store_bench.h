#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// Put, Get and Lookup of coded blocks: in process and over gRPC on loopback, against memcpy of the same
// bytes.
absl::Status RunStoreBench(Report& report);

}  // namespace quire::bench
