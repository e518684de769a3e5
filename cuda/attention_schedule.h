// Inside cuda/: who works on what: shares of (sequence, KV head) pairs for the thread blocks of one launch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/attention_task.h"

namespace quire::cuda {

// What one sequence's KV heads each have to do: items first … first + coded + raw − 1, with their costs
// (bytes).
struct AttentionWork {
  uint32_t first_item = 0, coded = 0, raw = 0;
};

// More segments with something to do than (sequences · heads + kSegmentsPerBlock · blocks) never come out.
inline constexpr uint32_t kSegmentsPerBlock = 4;

// Of the ways that were tried (pairs in equal parts of some size, or all pairs end to end in equal lengths)
// the one whose busiest block ends first. `costs`: by item. REQUIRES: every sequence has an item.
struct AttentionSchedule {
  // Block b's first segment is segments[b], which may have nothing to do; its others, of which most blocks
  // have none, are segments[first[b]] … segments[first[b + 1] − 1].
  std::vector<AttentionSegment> segments;
  std::vector<uint32_t> first;  // [blocks + 1]
};
void MakeSchedule(std::span<const AttentionWork> work, std::span<const uint32_t> costs, uint32_t heads,
                  uint32_t blocks, AttentionSchedule* out);

}  // namespace quire::cuda
