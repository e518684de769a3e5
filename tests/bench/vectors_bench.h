// The codec on vectors from a file, so that another implementation can be timed and scored on the same ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

struct VectorsBench {
  // bf16, little-endian, [block][K, V][64 tokens][8 heads][dim]
  std::string file;
  uint32_t dim = 128;
  std::vector<std::string> specs;
  uint32_t threads = 1;
};

// For each spec: rates against memcpy, bits an element, relative error of K and of V.
absl::Status RunVectorsBench(const VectorsBench& bench, Report& report);

}  // namespace quire::bench
