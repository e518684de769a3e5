// A store in a process of its own under an hour's load with faults of all kinds, as fast as it goes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace quire::bench {

struct Soak {
  // An hour at 8 prompts a second, each a lookup, a get of what is stored, a put of what is not and, for one
  // in three, another call: 3.2 calls on average.
  static constexpr uint64_t kHourCalls = 8 * 3600 * 16 / 5;

  uint64_t calls = kHourCalls;
  double seconds = 1200;  // it ends then, however many calls are left
  uint32_t clients = 4;
  uint32_t chains = 40;        // of 6 blocks, of each of 4 tenants
  uint64_t fault_every = 150;  // calls between one fault and the next
  std::string store_binary;    // empty: quire-store beside this binary
};

// FAILED_PRECONDITION, saying what, if a byte was wrong, a call did not end or ended in a way it must not,
// memory grew, or calls took too long.
absl::Status RunSoak(const Soak& soak, Report& report);

}  // namespace quire::bench
