#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// The disk tier in a folder of its own where temporary files go (TMPDIR): reads of whole objects against
// plain large reads of the same files in the same cache state, bytes written to the device for a byte of
// objects, and the time of a restart.
absl::Status RunDiskBench(Report& report);

}  // namespace quire::bench
