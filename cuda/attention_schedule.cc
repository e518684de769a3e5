#include "cuda/attention_schedule.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

namespace quire::cuda {
namespace {

// What starting and ending a segment takes, in bytes that could have been read meanwhile: about 2 µs.
constexpr uint64_t kSegmentCost = 48 << 10;
// A share of fewer items leaves warps without any; only worth it where there are blocks without any.
constexpr uint32_t kLeastItems = 4;

struct Share {
  uint32_t sequence, head, part, parts, first_slot;
  uint64_t cost;
};

uint64_t CostOf(const AttentionWork& w, std::span<const uint32_t> costs) {
  uint64_t cost = 0;
  for (uint32_t i = 0; i < w.coded + w.raw; ++i) cost += costs[w.first_item + i];
  return cost;
}

uint32_t PartsOf(const AttentionWork& w, uint64_t cost, uint64_t share) {
  uint32_t most = std::clamp((w.coded + w.raw) / kLeastItems, 1u, uint32_t{UINT16_MAX});
  return static_cast<uint32_t>(std::clamp<uint64_t>((cost + share - 1) / share, 1, most));
}

// The smallest share that gives no more segments than blocks; 0 if there is none.
uint64_t ShareForOneEach(std::span<const AttentionWork> work, std::span<const uint64_t> cost, uint32_t heads,
                         uint32_t blocks) {
  if (work.size() * heads > blocks) return 0;
  uint64_t low = 1, high = *std::max_element(cost.begin(), cost.end());
  while (low < high) {
    uint64_t middle = (low + high) / 2, segments = 0;
    for (size_t s = 0; s < work.size(); ++s) segments += uint64_t{heads} * PartsOf(work[s], cost[s], middle);
    segments <= blocks ? high = middle : low = middle + 1;
  }
  return low;
}

// Gives shares, sorted from the largest, to blocks; returns when the busiest ends.
uint64_t Assign(std::span<const Share> shares, uint32_t blocks, std::vector<uint32_t>* block_of) {
  using Load = std::pair<uint64_t, uint32_t>;
  std::vector<Load> loads;
  for (uint32_t b = 0; b < blocks; ++b) loads.push_back({0, b});
  std::priority_queue<Load, std::vector<Load>, std::greater<>> queue(std::greater<>(), std::move(loads));
  uint64_t end = 0;
  block_of->clear();
  for (const Share& share : shares) {
    auto [load, block] = queue.top();
    queue.pop();
    load += share.cost + kSegmentCost;
    end = std::max(end, load);
    block_of->push_back(block);
    queue.push({load, block});
  }
  return end;
}

std::vector<Share> SharesOf(std::span<const AttentionWork> work, std::span<const uint64_t> cost,
                            uint32_t heads, uint64_t share) {
  std::vector<Share> shares;
  uint32_t slot = 0;
  for (uint32_t s = 0; s < work.size(); ++s) {
    uint32_t parts = PartsOf(work[s], cost[s], share);
    for (uint32_t h = 0; h < heads; ++h, slot += parts) {
      for (uint32_t p = 0; p < parts; ++p) shares.push_back({s, h, p, parts, slot, cost[s] / parts});
    }
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const Share& a, const Share& b) { return a.cost > b.cost; });
  return shares;
}

// Where each of `parts` shares of a sequence's items begins: [parts + 1], each at least one item.
std::vector<uint32_t> CutsOf(const AttentionWork& w, std::span<const uint32_t> costs, uint64_t cost,
                             uint32_t parts) {
  uint32_t items = w.coded + w.raw;
  std::vector<uint32_t> cuts{0};
  uint64_t before = 0;
  for (uint32_t i = 0; i < items && cuts.size() < parts; ++i) {
    uint64_t after = before + costs[w.first_item + i];
    // The cut falls where the item's middle passes the share's end; what is left must do for the others.
    bool over = (before + after) * parts >= 2 * cost * cuts.size() || items - i <= parts - cuts.size();
    if (over && i > cuts.back()) cuts.push_back(i);
    before = after;
  }
  cuts.push_back(items);
  return cuts;
}

AttentionSegment SegmentOf(const AttentionWork& w, std::span<const uint32_t> costs, uint32_t begin,
                           uint32_t end) {
  AttentionSegment segment;
  uint32_t coded_end = std::clamp(w.coded, begin, end);
  segment.first_coded = w.first_item + begin;
  segment.coded = coded_end - begin;
  segment.first_raw = w.first_item + coded_end;
  segment.raw = end - coded_end;
  auto at = costs.begin() + w.first_item;
  uint64_t all = std::accumulate(at + begin, at + end, uint64_t{0}),
           raw = std::accumulate(at + coded_end, at + end, uint64_t{0});
  segment.raw_share = static_cast<uint32_t>(raw * 256 / all);
  return segment;
}

}  // namespace

void MakeSchedule(std::span<const AttentionWork> work, std::span<const uint32_t> costs, uint32_t heads,
                  uint32_t blocks, AttentionSchedule* out) {
  std::vector<uint64_t> cost;
  for (const AttentionWork& w : work) cost.push_back(CostOf(w, costs));
  uint64_t total = std::accumulate(cost.begin(), cost.end(), uint64_t{0}) * heads;

  std::vector<uint64_t> candidates;
  if (uint64_t share = ShareForOneEach(work, cost, heads, blocks); share > 0) candidates.push_back(share);
  for (uint32_t k = 1; k <= kSegmentsPerBlock; ++k)
    candidates.push_back((total + blocks * k - 1) / (blocks * k));
  std::vector<Share> best;
  std::vector<uint32_t> best_block, block_of;
  uint64_t best_end = UINT64_MAX;
  for (uint64_t share : candidates) {
    std::vector<Share> shares = SharesOf(work, cost, heads, share);
    uint64_t end = Assign(shares, blocks, &block_of);
    if (end >= best_end) continue;
    best_end = end;
    best = std::move(shares);
    best_block = block_of;
  }

  std::vector<std::vector<uint32_t>> cuts(work.size());
  for (const Share& share : best) {
    auto& cut = cuts[share.sequence];
    if (cut.empty()) cut = CutsOf(work[share.sequence], costs, cost[share.sequence], share.parts);
  }
  // Shares come from the largest, so a block's first is its largest.
  std::vector<uint32_t> count(blocks, 0);
  for (uint32_t block : best_block) ++count[block];
  out->first.assign(1, blocks);
  for (uint32_t n : count) out->first.push_back(out->first.back() + (n > 0 ? n - 1 : 0));
  out->segments.assign(out->first.back(), {});
  std::vector<uint32_t> next(out->first.begin(), out->first.end() - 1);
  for (size_t i = 0; i < best.size(); ++i) {
    const Share& share = best[i];
    uint32_t block = best_block[i];
    AttentionSegment& segment = out->segments[out->segments[block].parts == 0 ? block : next[block]++];
    const auto& cut = cuts[share.sequence];
    segment = SegmentOf(work[share.sequence], costs, cut[share.part], cut[share.part + 1]);
    segment.pair = share.sequence * heads + share.head;
    segment.first_slot = share.first_slot;
    segment.part = static_cast<uint16_t>(share.part);
    segment.parts = static_cast<uint16_t>(share.parts);
  }
}

}  // namespace quire::cuda
