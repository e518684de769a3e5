#include "cuda/attention_schedule.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

namespace quire::cuda {
namespace {

// What starting and ending a segment takes, in bytes that could have been read meanwhile: about 6 µs of one
// block's share of the memory.
constexpr uint64_t kSegmentCost = 128 << 10;
// A share of fewer items leaves warps without any; only worth it where there are blocks without any.
constexpr uint32_t kLeastItems = 4;

// Part `part` of `parts` of one pair: items [begin, end) of the sequence.
struct Share {
  uint32_t sequence, head, part, parts, first_slot;
  uint64_t cost;
  uint32_t begin = 0, end = 0;
};

struct Candidate {
  std::vector<Share> shares;
  std::vector<uint32_t> block_of;
  uint64_t end = UINT64_MAX;  // when the busiest block is done
};

// Costs of a sequence's first 0, 1, … items.
using Prefix = std::vector<uint64_t>;

uint32_t ItemsOf(const AttentionWork& w) { return w.coded + w.raw; }

uint32_t PartsOf(const AttentionWork& w, uint64_t cost, uint64_t share) {
  uint32_t most = std::clamp(ItemsOf(w) / kLeastItems, 1u, uint32_t{UINT16_MAX});
  return static_cast<uint32_t>(std::clamp<uint64_t>((cost + share - 1) / share, 1, most));
}

// The smallest share that gives no more segments than blocks; 0 if there is none.
uint64_t ShareForOneEach(std::span<const AttentionWork> work, std::span<const Prefix> prefixes,
                         uint32_t heads, uint32_t blocks) {
  if (work.size() * heads > blocks) return 0;
  uint64_t low = 1, high = 1;
  for (const Prefix& prefix : prefixes) high = std::max(high, prefix.back());
  while (low < high) {
    uint64_t middle = (low + high) / 2, segments = 0;
    for (size_t s = 0; s < work.size(); ++s)
      segments += uint64_t{heads} * PartsOf(work[s], prefixes[s].back(), middle);
    segments <= blocks ? high = middle : low = middle + 1;
  }
  return low;
}

// Where each of `parts` shares of a sequence's items begins: [parts + 1], each at least one item.
std::vector<uint32_t> CutsOf(const Prefix& prefix, uint32_t parts) {
  auto items = static_cast<uint32_t>(prefix.size() - 1);
  std::vector<uint32_t> cuts{0};
  for (uint32_t i = 1; i < items && cuts.size() < parts; ++i) {
    // The cut falls where the item's middle passes the share's end; what is left must do for the others.
    bool over = (prefix[i] + prefix[i + 1]) * parts >= 2 * prefix.back() * cuts.size();
    if (over || items - i <= parts - cuts.size()) cuts.push_back(i);
  }
  cuts.push_back(items);
  return cuts;
}

// Every pair in equal parts of about `share`; the largest are given out first, each to the block with the
// least to do.
Candidate EqualParts(std::span<const AttentionWork> work, std::span<const Prefix> prefixes, uint32_t heads,
                     uint32_t blocks, uint64_t share) {
  Candidate out;
  uint32_t slot = 0;
  for (uint32_t s = 0; s < work.size(); ++s) {
    uint32_t parts = PartsOf(work[s], prefixes[s].back(), share);
    std::vector<uint32_t> cuts = CutsOf(prefixes[s], parts);
    for (uint32_t h = 0; h < heads; ++h, slot += parts) {
      for (uint32_t p = 0; p < parts; ++p) {
        uint64_t cost = prefixes[s][cuts[p + 1]] - prefixes[s][cuts[p]];
        out.shares.push_back({s, h, p, parts, slot, cost, cuts[p], cuts[p + 1]});
      }
    }
  }
  std::stable_sort(out.shares.begin(), out.shares.end(),
                   [](const Share& a, const Share& b) { return a.cost > b.cost; });
  using Load = std::pair<uint64_t, uint32_t>;
  std::vector<Load> loads;
  for (uint32_t b = 0; b < blocks; ++b) loads.push_back({0, b});
  std::priority_queue<Load, std::vector<Load>, std::greater<>> queue(std::greater<>(), std::move(loads));
  out.end = 0;
  for (const Share& each : out.shares) {
    auto [load, block] = queue.top();
    queue.pop();
    load += each.cost + kSegmentCost;
    out.end = std::max(out.end, load);
    out.block_of.push_back(block);
    queue.push({load, block});
  }
  return out;
}

// All pairs end to end, every block the same length of it, but where that would leave a sliver of a pair.
Candidate EndToEnd(std::span<const AttentionWork> work, std::span<const Prefix> prefixes, uint32_t heads,
                   uint32_t blocks, uint64_t total) {
  Candidate out;
  const uint64_t each = (total + blocks - 1) / blocks, sliver = each / 8;
  std::vector<uint64_t> loads(blocks, 0);
  uint64_t before = 0;  // of this pair
  uint32_t block = 0;
  for (uint32_t s = 0; s < work.size(); ++s) {
    const Prefix& prefix = prefixes[s];
    const uint32_t items = ItemsOf(work[s]);
    for (uint32_t h = 0; h < heads; ++h, before += prefix.back()) {
      const size_t first = out.shares.size();
      uint32_t begin = 0;
      auto take = [&](uint32_t end) {
        uint64_t cost = prefix[end] - prefix[begin];
        out.shares.push_back({s, h, static_cast<uint32_t>(out.shares.size() - first), 0,
                              static_cast<uint32_t>(first), cost, begin, end});
        out.block_of.push_back(block);
        loads[block] += cost + kSegmentCost;
        begin = end;
      };
      while (begin < items) {
        uint64_t limit = (block + 1) * each;
        bool rest = before + prefix.back() <= limit + sliver || items - begin < 2 || block + 1 == blocks;
        if (rest) {
          take(items);
          if (before + prefix.back() + sliver < limit) break;
        } else if (limit > before + prefix[begin] + sliver) {
          auto cut = std::lower_bound(prefix.begin(), prefix.end(), limit - before) - prefix.begin();
          take(std::clamp(static_cast<uint32_t>(cut), begin + 1, items - 1));
        }
        block = std::min(block + 1, blocks - 1);
      }
      for (size_t i = first; i < out.shares.size(); ++i)
        out.shares[i].parts = static_cast<uint32_t>(out.shares.size() - first);
    }
  }
  out.end = *std::max_element(loads.begin(), loads.end());
  return out;
}

AttentionSegment SegmentOf(const AttentionWork& w, const Prefix& prefix, const Share& share, uint32_t heads) {
  AttentionSegment segment;
  uint32_t coded_end = std::clamp(w.coded, share.begin, share.end);
  segment.first_coded = w.first_item + share.begin;
  segment.coded = coded_end - share.begin;
  segment.first_raw = w.first_item + coded_end;
  segment.raw = share.end - coded_end;
  segment.raw_share = static_cast<uint32_t>((prefix[share.end] - prefix[coded_end]) * 256 / share.cost);
  segment.pair = share.sequence * heads + share.head;
  segment.first_slot = share.first_slot;
  segment.part = static_cast<uint16_t>(share.part);
  segment.parts = static_cast<uint16_t>(share.parts);
  return segment;
}

}  // namespace

void MakeSchedule(std::span<const AttentionWork> work, std::span<const uint32_t> costs, uint32_t heads,
                  uint32_t blocks, AttentionSchedule* out) {
  std::vector<Prefix> prefixes;
  uint64_t total = 0;
  for (const AttentionWork& w : work) {
    Prefix& prefix = prefixes.emplace_back(1, 0);
    for (uint32_t i = 0; i < ItemsOf(w); ++i) prefix.push_back(prefix.back() + costs[w.first_item + i]);
    total += prefix.back() * heads;
  }

  Candidate best = EndToEnd(work, prefixes, heads, blocks, total);
  std::vector<uint64_t> tried;
  if (uint64_t share = ShareForOneEach(work, prefixes, heads, blocks); share > 0) tried.push_back(share);
  for (uint32_t k = 1; k <= kSegmentsPerBlock; ++k) tried.push_back((total + blocks * k - 1) / (blocks * k));
  for (uint64_t share : tried) {
    Candidate candidate = EqualParts(work, prefixes, heads, blocks, share);
    if (candidate.end < best.end) best = std::move(candidate);
  }

  std::vector<uint32_t> count(blocks, 0);
  for (uint32_t block : best.block_of) ++count[block];
  out->first.assign(1, blocks);
  for (uint32_t n : count) out->first.push_back(out->first.back() + (n > 0 ? n - 1 : 0));
  out->segments.assign(out->first.back(), {});
  std::vector<uint32_t> next(out->first.begin(), out->first.end() - 1);
  for (size_t i = 0; i < best.shares.size(); ++i) {
    const Share& share = best.shares[i];
    uint32_t block = best.block_of[i], at = out->segments[block].parts == 0 ? block : next[block]++;
    out->segments[at] = SegmentOf(work[share.sequence], prefixes[share.sequence], share, heads);
  }
}

}  // namespace quire::cuda
