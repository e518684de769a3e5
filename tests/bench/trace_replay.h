// A trace played through the real store, an id as one small block, as a worker would: look the prompt up,
// fetch what is there, store the rest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "services/store/engine/local_store.h"
#include "tests/bench/trace.h"

namespace quire::bench {

struct ReplayOptions {
  std::string codec = "tq:k4v4";
  store::PolicyKind policy = store::PolicyKind::kLru;
  uint32_t floor_levels = kMaxLevels;  // blocks are cut down to so many levels before they are evicted
  uint64_t host_bytes = 0;
};

struct ReplayResult {
  uint64_t hits = 0;                             // ids
  std::array<uint64_t, kMaxLevels> by_levels{};  // hits by the levels they were served with
  uint64_t stored = 0, refused = 0;              // blocks that were put, or found no room
  double seconds = 0;
  double used = 0;  // share of the arena that holds blocks at the end

  double HitRate(const Trace& trace) const {
    return static_cast<double>(hits) / static_cast<double>(trace.accesses);
  }
};

// The blocks' layout: one head of 256, whose codes with k4v4 are 3.79 times smaller than raw, and half of
// that their first level, as are those of an 8B model (32 layers, 8 heads of 128: 3.77 times).
Layout ReplayLayout();

// The store's statuses, but for puts that find no room: these are counted.
absl::StatusOr<ReplayResult> Replay(const Trace& trace, const ReplayOptions& options);

}  // namespace quire::bench
