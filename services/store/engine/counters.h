// What happens to a store's blocks: counted, for Stats and for /metrics alike, and told to who watches.
#pragma once

#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "absl/status/status.h"
#include "services/runtime/metrics.h"
#include "services/store/engine/event_log.h"
#include "services/store/engine/index.h"

namespace quire::store {

// Thread-safe.
class StoreCounters {
 public:
  // Registers all families in `registry`. `events` is borrowed.
  StoreCounters(prometheus::Registry& registry, EventLog& events);

  void Lookup(uint64_t hit_blocks, uint64_t miss_blocks);
  // A block became visible; one of an earlier life, or of another store, was taken in.
  void Stored(const BlockName& name, const StoredObject& object);
  void Adopted(const StoredObject& object);
  enum class Gone : uint8_t { kEvicted, kDeleted, kCorrupt, kExpired, kVanished };
  // Copies of a block were taken out, this one among them.
  void Removed(const BlockName& name, const StoredObject& object, Gone why);
  void Released(const StoredObject& object);  // no copy of the object is left
  void Degraded(const BlockName& name, Tier tier, uint32_t levels);
  void Moved(const BlockName& name, Tier to, uint32_t levels);
  void Fetched(Tier from, uint64_t bytes);
  void FetchShared();         // a reader waited for another's fetch
  void WriteFailed(Tier to);  // a block is missing there
  // A scrub checked a copy: OK, DATA_LOSS (it was dropped), or why it could not be read; how far through all
  // keys it has come; a round is done.
  void Scrubbed(Tier tier, uint64_t bytes, const absl::Status& checked);
  void ScrubAt(double share);
  void ScrubRoundEnded();
  void CorruptElsewhere();  // wrong bytes of a block that was not in the index
  void SessionOpened();
  void SessionClosed();
  void PublishTiers(std::span<const TierStats> tiers);

  std::atomic<uint64_t> lookups{0}, hit_tokens{0}, miss_tokens{0};
  std::atomic<uint64_t> blocks_stored{0}, blocks_evicted{0}, blocks_deleted{0}, checksum_failures{0};
  std::atomic<uint64_t> levels_dropped{0}, fetches{0}, fetches_shared{0}, writes_failed{0};
  std::atomic<uint64_t> blocks{0}, raw_bytes{0}, bf16_bytes{0};  // held now, each block once
  std::atomic<uint64_t> put_sessions{0};                         // open now

 private:
  void Tell(const BlockName& name, StoreEvent::Kind kind, Tier tier, uint32_t levels);
  void Hold(const StoredObject& object, int64_t sign);
  struct ScrubCounters {
    prometheus::Counter *blocks, *bytes, *corrupt, *unreadable;
  };
  struct TierGauges {
    prometheus::Gauge *blocks, *used_bytes, *capacity_bytes;
  };

  EventLog& events_;
  prometheus::Counter &lookups_, &hit_tokens_, &miss_tokens_, &stored_, &evicted_, &deleted_, &expired_,
      &checksum_failures_, &degraded_, &fetches_shared_;
  std::array<prometheus::Counter*, kTiers> moved_, fetched_bytes_, writes_failed_;
  std::array<ScrubCounters, kTiers> scrubs_;
  std::array<TierGauges, kTiers> tiers_;
  prometheus::Counter& scrub_rounds_;
  prometheus::Gauge& scrub_position_;
  prometheus::Gauge &raw_bytes_gauge_, &ratio_gauge_, &sessions_gauge_;
  std::mutex gauges_mu_;  // so that the gauges' last values are the latest ones
};

}  // namespace quire::store
