#include "services/store/engine/tier_ledger.h"

#include <algorithm>

namespace quire::store {

TierLedger::Tenant& TierLedger::Get(uint32_t tenant) {
  std::unique_ptr<Tenant>& slot = tenants_[tenant];
  if (slot == nullptr) {
    slot = std::make_unique<Tenant>();
    slot->share = options_.default_share;
    slot->evictable = NewEvictionPolicy(options_.policy);
    slot->coldest = NewEvictionPolicy(PolicyKind::kLru);
    ranks_.emplace(0.0, tenant);
  }
  return *slot;
}

double TierLedger::RankOf(const Tenant& tenant) const {
  uint64_t share = tenant.share == 0 ? options_.capacity_bytes : tenant.share;
  return static_cast<double>(tenant.used) / static_cast<double>(std::max<uint64_t>(share, 1));
}

void TierLedger::Update(TierEntry* entry, uint32_t tenant, const Standing& standing) {
  std::lock_guard lock(mu_);
  Tenant& t = Get(tenant);
  if (standing.bytes != entry->bytes) {
    ranks_.erase({RankOf(t), tenant});
    t.used += standing.bytes - entry->bytes;
    ranks_.emplace(RankOf(t), tenant);
    entry->bytes = standing.bytes;
  }
  objects_ += uint64_t{standing.objects} - uint64_t{entry->objects};
  entry->objects = standing.objects;
  t.degradable -= entry->degradable_bytes;
  entry->degradable_bytes = standing.degradable ? standing.bytes : 0;
  t.degradable += entry->degradable_bytes;
  standing.evictable ? t.evictable->Add(&entry->evict) : t.evictable->Remove(&entry->evict);
  standing.degradable ? t.coldest->Add(&entry->degrade) : t.coldest->Remove(&entry->degrade);
}

void TierLedger::Park(TierEntry* entry, uint32_t tenant, int64_t until_ms) {
  std::lock_guard lock(mu_);
  Get(tenant).evictable->Park(&entry->evict, until_ms);
}

void TierLedger::ParkDegrade(TierEntry* entry, uint32_t tenant, int64_t until_ms) {
  std::lock_guard lock(mu_);
  Get(tenant).coldest->Park(&entry->degrade, until_ms);
}

std::optional<TierLedger::Victim> TierLedger::PopFrom(Tenant& tenant, uint64_t before, int64_t now_ms) {
  bool bits_first =
      static_cast<double>(tenant.degradable) > options_.hot_share * static_cast<double>(tenant.used);
  for (bool bits : {bits_first, !bits_first}) {
    EvictionPolicy& policy = bits ? *tenant.coldest : *tenant.evictable;
    if (std::optional<BlockName> name = policy.PopVictim(before, now_ms)) {
      return Victim{*name, bits ? Victim::kDegrade : Victim::kEvict};
    }
  }
  return std::nullopt;
}

std::optional<TierLedger::Victim> TierLedger::PopVictim(uint32_t requester, uint64_t before, int64_t now_ms) {
  std::lock_guard lock(mu_);
  double least = RankOf(Get(requester));
  for (auto it = ranks_.rbegin(); it != ranks_.rend() && (it->first >= least || it->second == requester);
       ++it) {
    if (std::optional<Victim> victim = PopFrom(*tenants_.at(it->second), before, now_ms)) return victim;
  }
  return std::nullopt;
}

std::optional<TierLedger::Victim> TierLedger::PopVictimOf(uint32_t tenant, uint64_t before, int64_t now_ms) {
  std::lock_guard lock(mu_);
  return PopFrom(Get(tenant), before, now_ms);
}

void TierLedger::SetShare(uint32_t tenant, uint64_t bytes) {
  std::lock_guard lock(mu_);
  Tenant& t = Get(tenant);
  ranks_.erase({RankOf(t), tenant});
  t.share = bytes;
  ranks_.emplace(RankOf(t), tenant);
}

uint64_t TierLedger::used_bytes(uint32_t tenant) const {
  std::lock_guard lock(mu_);
  auto it = tenants_.find(tenant);
  return it == tenants_.end() ? 0 : it->second->used;
}

uint64_t TierLedger::objects() const {
  std::lock_guard lock(mu_);
  return objects_;
}

}  // namespace quire::store
