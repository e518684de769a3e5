// A trace of requests by the ids of their prefix blocks, and what caches that know the future reach on it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::bench {

struct TraceRequest {
  int64_t timestamp_ms = 0;
  // Equal ids are equal prefixes: an id's predecessor is the same wherever it comes.
  std::vector<uint32_t> ids;
};

struct Trace {
  static constexpr uint32_t kTokensAnId = 512;

  std::vector<TraceRequest> requests;
  uint64_t accesses = 0;  // ids of all requests
  uint64_t distinct = 0;

  // Reads lines {"timestamp": ms, "hash_ids": [id, …]}. NOT_FOUND if there is no such file; INVALID_ARGUMENT
  // naming the line, also where an id has two predecessors.
  static absl::StatusOr<Trace> Read(const std::string& path);
  // Of requests made up.
  static Trace Of(std::vector<TraceRequest> requests);

  // The share of accesses that are to an id seen before: what a cache without limits hits.
  double RepeatedShare() const;
};

// Hits of a cache of `capacity` ids that evicts the one whose next use is farthest, and keeps nothing whose
// own next use is farther: no policy hits more (Belady).
uint64_t ClairvoyantHits(const Trace& trace, uint64_t capacity);

}  // namespace quire::bench
