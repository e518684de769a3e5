#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// Encode and decode of blocks beside memcpy of the same bf16 bytes in the same rounds: one core, two and all
// of them, every common head size and bit count, one block's latency, and the kernels beside a scalar codec.
absl::Status RunCodecBench(Report& report);

}  // namespace quire::bench
