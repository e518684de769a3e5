#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// Encode and decode of whole blocks against memcpy of the same bf16 bytes, one thread.
absl::Status RunCodecBench(Report& report);

}  // namespace quire::bench
