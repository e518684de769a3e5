#include "services/store/engine/counters.h"

#include <mutex>

namespace quire::store {

using runtime::AddCounter;
using runtime::AddGauge;

StoreCounters::StoreCounters(prometheus::Registry& r, EventLog& events)
    : events_(events),
      lookups_(AddCounter(r, "quire_store_lookups_total", "Lookup calls")),
      hit_tokens_(
          AddCounter(r, "quire_store_hit_tokens_total", "Tokens of looked-up blocks that were stored")),
      miss_tokens_(
          AddCounter(r, "quire_store_miss_tokens_total", "Tokens of looked-up blocks that were not stored")),
      stored_(AddCounter(r, "quire_store_blocks_stored_total", "Objects committed")),
      evicted_(AddCounter(r, "quire_store_blocks_evicted_total", "Copies evicted for room")),
      deleted_(AddCounter(r, "quire_store_blocks_deleted_total", "Objects removed on request")),
      expired_(
          AddCounter(r, "quire_store_blocks_expired_total", "Objects removed because their time was up")),
      checksum_failures_(AddCounter(r, "quire_store_checksum_failures_total",
                                    "Objects dropped because stored bytes were wrong")),
      degraded_(AddCounter(r, "quire_store_levels_dropped_total", "Levels that blocks lost for room")),
      fetches_shared_(
          AddCounter(r, "quire_store_fetches_shared_total", "Readers that waited for another's fetch")),
      scrub_rounds_(
          AddCounter(r, "quire_store_scrub_rounds_total", "Times that the scrub has been through all")),
      scrub_position_(AddGauge(r, "quire_store_scrub_position", "How far through a round the scrub is, 0…1")),
      raw_bytes_gauge_(AddGauge(r, "quire_store_raw_bytes", "Blocks held, each once, as bf16")),
      ratio_gauge_(AddGauge(
          r, "quire_store_compression_ratio",
          "bf16 bytes of the blocks held over the bytes of all their copies; 0 while nothing is held")),
      sessions_gauge_(AddGauge(r, "quire_store_put_sessions", "Put sessions open")) {
  for (size_t slot = 0; slot < kTiers; ++slot) {
    prometheus::Labels labels = {{"tier", TierName(TierOf(slot))}};
    moved_[slot] =
        &AddCounter(r, "quire_store_blocks_moved_total", "Copies made, by the tier they went to", labels);
    fetched_bytes_[slot] = &AddCounter(r, "quire_store_fetched_bytes_total",
                                       "Bytes brought back, by the tier they came from", labels);
    writes_failed_[slot] =
        &AddCounter(r, "quire_store_writes_failed_total", "Copies that a tier did not take", labels);
    scrubs_[slot] = {
        &AddCounter(r, "quire_store_scrub_blocks_total", "Copies that the scrub has looked at", labels),
        &AddCounter(r, "quire_store_scrub_bytes_total", "Bytes of these copies", labels),
        &AddCounter(r, "quire_store_scrub_corrupt_total", "Copies dropped: their bytes were wrong", labels),
        &AddCounter(r, "quire_store_scrub_unreadable_total", "Copies that could not be read then", labels)};
    tiers_[slot] = {
        &AddGauge(r, "quire_store_blocks", "Objects held", labels),
        &AddGauge(r, "quire_store_stored_bytes", "Bytes of the objects held, as charged", labels),
        &AddGauge(r, "quire_store_tier_capacity_bytes", "Size of the tier; 0: no such tier", labels)};
  }
}

void StoreCounters::Lookup(uint64_t hit_blocks, uint64_t miss_blocks) {
  lookups.fetch_add(1, std::memory_order_relaxed);
  hit_tokens.fetch_add(hit_blocks * kBlockTokens, std::memory_order_relaxed);
  miss_tokens.fetch_add(miss_blocks * kBlockTokens, std::memory_order_relaxed);
  lookups_.Increment();
  hit_tokens_.Increment(static_cast<double>(hit_blocks * kBlockTokens));
  miss_tokens_.Increment(static_cast<double>(miss_blocks * kBlockTokens));
}

void StoreCounters::Tell(const BlockName& name, StoreEvent::Kind kind, Tier tier, uint32_t levels) {
  events_.Append(name.tenant, {name.key, name.layout, kind, tier, static_cast<uint8_t>(levels)});
}

void StoreCounters::Hold(const StoredObject& object, int64_t sign) {
  auto add = [&](std::atomic<uint64_t>& to, uint64_t amount) {
    to.fetch_add(static_cast<uint64_t>(sign) * amount, std::memory_order_relaxed);
  };
  add(blocks, 1);
  add(raw_bytes, object.record.raw_bytes);
  add(bf16_bytes, object.record.bf16_bytes);
}

void StoreCounters::Stored(const BlockName& name, const StoredObject& object) {
  blocks_stored.fetch_add(1, std::memory_order_relaxed);
  stored_.Increment();
  Hold(object, 1);
  Tell(name, StoreEvent::Kind::kStored, object.tier, object.record.levels);
}

void StoreCounters::Adopted(const StoredObject& object) { Hold(object, 1); }

void StoreCounters::Removed(const BlockName& name, const StoredObject& object, Gone why) {
  switch (why) {
    case Gone::kEvicted:
      blocks_evicted.fetch_add(1, std::memory_order_relaxed);
      evicted_.Increment();
      break;
    case Gone::kDeleted:
      blocks_deleted.fetch_add(1, std::memory_order_relaxed);
      deleted_.Increment();
      break;
    case Gone::kCorrupt:
      checksum_failures.fetch_add(1, std::memory_order_relaxed);
      checksum_failures_.Increment();
      break;
    case Gone::kExpired:
      expired_.Increment();
      break;
    case Gone::kVanished:
      break;
  }
  Tell(name, StoreEvent::Kind::kRemoved, object.tier, 0);
}

void StoreCounters::Released(const StoredObject& object) { Hold(object, -1); }

void StoreCounters::Degraded(const BlockName& name, Tier tier, uint32_t levels) {
  levels_dropped.fetch_add(1, std::memory_order_relaxed);
  degraded_.Increment();
  Tell(name, StoreEvent::Kind::kDegraded, tier, levels);
}

void StoreCounters::Moved(const BlockName& name, Tier to, uint32_t levels) {
  moved_[SlotOf(to)]->Increment();
  Tell(name, StoreEvent::Kind::kMoved, to, levels);
}

void StoreCounters::Fetched(Tier from, uint64_t bytes) {
  fetches.fetch_add(1, std::memory_order_relaxed);
  fetched_bytes_[SlotOf(from)]->Increment(static_cast<double>(bytes));
}

void StoreCounters::FetchShared() {
  fetches_shared.fetch_add(1, std::memory_order_relaxed);
  fetches_shared_.Increment();
}

void StoreCounters::WriteFailed(Tier to) {
  writes_failed.fetch_add(1, std::memory_order_relaxed);
  writes_failed_[SlotOf(to)]->Increment();
}

void StoreCounters::Scrubbed(Tier tier, uint64_t bytes, const absl::Status& checked) {
  const ScrubCounters& scrub = scrubs_[SlotOf(tier)];
  scrub.blocks->Increment();
  scrub.bytes->Increment(static_cast<double>(bytes));
  if (absl::IsDataLoss(checked)) {
    scrub.corrupt->Increment();
  } else if (!checked.ok()) {
    scrub.unreadable->Increment();
  }
}

void StoreCounters::ScrubAt(double share) { scrub_position_.Set(share); }

void StoreCounters::ScrubRoundEnded() {
  scrub_rounds_.Increment();
  scrub_position_.Set(0);
}

void StoreCounters::CorruptElsewhere() {
  checksum_failures.fetch_add(1, std::memory_order_relaxed);
  checksum_failures_.Increment();
}

void StoreCounters::PublishTiers(std::span<const TierStats> tiers) {
  std::lock_guard lock(gauges_mu_);
  double used = 0;
  for (const TierStats& tier : tiers) {
    const TierGauges& gauges = tiers_[SlotOf(tier.tier)];
    gauges.blocks->Set(static_cast<double>(tier.blocks));
    gauges.used_bytes->Set(static_cast<double>(tier.used_bytes));
    gauges.capacity_bytes->Set(static_cast<double>(tier.capacity_bytes));
    used += static_cast<double>(tier.used_bytes);
  }
  auto raw = static_cast<double>(bf16_bytes.load(std::memory_order_relaxed));
  raw_bytes_gauge_.Set(raw);
  ratio_gauge_.Set(used > 0 ? raw / used : 0);
}

void StoreCounters::SessionOpened() {
  put_sessions.fetch_add(1, std::memory_order_relaxed);
  sessions_gauge_.Increment();
}

void StoreCounters::SessionClosed() {
  put_sessions.fetch_sub(1, std::memory_order_relaxed);
  sessions_gauge_.Decrement();
}

}  // namespace quire::store
