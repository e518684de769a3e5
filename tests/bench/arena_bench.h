#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// Put and Get of coded blocks through memory shared with the store, verified on both sides and committed,
// against memcpy of the same bytes by one thread between buffers of the same sizes.
absl::Status RunArenaBench(Report& report);

}  // namespace quire::bench
