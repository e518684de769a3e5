#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

// Raw blocks through a redis-server of its own, pipelined GET and SET, as the baseline of codes through the
// store over gRPC; and codes through the Redis tier. NOT_FOUND if no redis-server is installed.
absl::Status RunRedisBench(Report& report);

}  // namespace quire::bench
