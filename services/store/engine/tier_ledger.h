// Who takes how much of a tier, and what goes first there when room is needed.
//
// Tenants are ranked by what they hold over their share (their quota, or the whole tier for those without
// a quota). A put makes room at the expense of the tenant that ranks highest, and never of one that ranks
// below the put's own: so nobody loses blocks to a tenant that holds more of its share than they do.
//
// Within a tenant bits go before blocks: while more than `hot_share` of its bytes could still lose a level,
// the block used longest ago loses one, whatever hangs on it; then blocks are evicted as the policy says.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "services/store/engine/eviction.h"

namespace quire::store {

// A block's standing in one tier. Owned by the block.
struct TierEntry {
  EvictionEntry evict, degrade;
  uint64_t bytes = 0;    // charged to its tenant here
  uint32_t objects = 0;  // its parts here
  // Owned by the ledger, under its lock:
  uint64_t degradable_bytes = 0;
};

struct LedgerOptions {
  PolicyKind policy = PolicyKind::kLru;
  double hot_share = 0.2;  // 0…1
  uint64_t capacity_bytes = 0;
  uint64_t default_share = 0;  // of tenants without one of their own; 0: the whole tier
};

// Thread-safe. Its lock is taken under an index shard's, and a policy's under it.
class TierLedger {
 public:
  explicit TierLedger(const LedgerOptions& options) : options_(options) {}

  // A block's bytes here changed from entry->bytes to `bytes`, and with them what may happen to it. Bytes 0:
  // it is no longer here.
  struct Standing {
    uint64_t bytes = 0;
    uint32_t objects = 0;
    bool evictable = false;
    bool degradable = false;
  };
  void Update(TierEntry* entry, uint32_t tenant, const Standing& standing);

  // The block is leased: no candidate before that time.
  void Park(TierEntry* entry, uint32_t tenant, int64_t until_ms);
  void ParkDegrade(TierEntry* entry, uint32_t tenant, int64_t until_ms);

  struct Victim {
    BlockName name;
    enum Kind : uint8_t { kEvict, kDegrade } kind = kEvict;
  };
  // Takes the next victim off its queue; see EvictionPolicy::PopVictim. `requester`: whom room is made for.
  std::optional<Victim> PopVictim(uint32_t requester, uint64_t before, int64_t now_ms);
  // The same among one tenant's blocks only.
  std::optional<Victim> PopVictimOf(uint32_t tenant, uint64_t before, int64_t now_ms);

  void SetShare(uint32_t tenant, uint64_t bytes);  // 0: the whole tier
  uint64_t used_bytes(uint32_t tenant) const;
  uint64_t objects() const;
  const LedgerOptions& options() const { return options_; }

 private:
  struct Tenant {
    uint64_t used = 0;
    uint64_t share = 0;  // 0: the whole tier
    uint64_t degradable = 0;
    std::unique_ptr<EvictionPolicy> evictable, coldest;
  };
  // REQUIRE: mu_ is held.
  Tenant& Get(uint32_t tenant);
  double RankOf(const Tenant& tenant) const;
  std::optional<Victim> PopFrom(Tenant& tenant, uint64_t before, int64_t now_ms);

  const LedgerOptions options_;
  mutable std::mutex mu_;  // guards all below
  absl::flat_hash_map<uint32_t, std::unique_ptr<Tenant>> tenants_;
  absl::btree_set<std::pair<double, uint32_t>> ranks_;
  uint64_t objects_ = 0;
};

}  // namespace quire::store
