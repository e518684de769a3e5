// What is given up for room.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/store/engine/placement.h"

namespace quire::store {
namespace {

using std::chrono::steady_clock;

// A block used while a victim is sought is passed over; where everything is in use all the time, the next
// round takes one all the same.
constexpr int kRounds = 3;
constexpr int kTriesARound = 256;

}  // namespace

absl::StatusOr<std::shared_ptr<TierObject>> Placement::StageNow(StorageTier& tier, uint32_t tenant,
                                                                uint64_t bytes) {
  while (true) {
    absl::StatusOr<std::shared_ptr<TierObject>> room = tier.Stage(bytes);
    if (room.ok() || !absl::IsResourceExhausted(room.status())) return room;
    if (bytes > tier.capacity_bytes() || !FreeSome(tier.kind(), tenant)) return room;
  }
}

absl::StatusOr<std::shared_ptr<TierObject>> Placement::StageIn(StorageTier& tier, uint32_t tenant,
                                                               uint64_t bytes) {
  SweepExpired();
  auto deadline = steady_clock::now() + options_.patience;
  if (options_.faults->Take(Fault::kAllocationFailure)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for ", bytes, " bytes: allocation failure injected"));
  }
  while (true) {
    absl::StatusOr<std::shared_ptr<TierObject>> room = StageNow(tier, tenant, bytes);
    if (room.ok() || !absl::IsResourceExhausted(room.status())) return room;
    // What the mover still holds may go when it is done.
    if (mover_->AwaitProgress(deadline)) continue;
    return absl::ResourceExhaustedError(absl::StrCat("no room for ", bytes,
                                                     " bytes: what is left is in use (", tier.used_bytes(),
                                                     " of ", tier.capacity_bytes(), " bytes)"));
  }
}

bool Placement::FreeSome(Tier tier, uint32_t requester) {
  std::vector<BlockName> stayed;
  bool freed = false;
  for (int round = 0; round < kRounds && !freed; ++round) {
    uint64_t before = clock_.Ticks(1);
    int64_t now = options_.now_ms();
    for (int i = 0; i < kTriesARound && !freed; ++i) {
      std::optional<TierLedger::Victim> victim = LedgerOf(tier).PopVictim(requester, before, now);
      if (!victim) break;
      freed = GiveUp(tier, *victim);
      if (!freed) stayed.push_back(victim->name);
    }
  }
  for (const BlockName& name : stayed) index_->Reconsider(name);
  return freed;
}

bool Placement::GiveUp(Tier tier, const TierLedger::Victim& victim) {
  // What the device gives up goes on whole in the arena: it loses bits only where the arena cannot take it.
  bool kept = tier == Tier::kGpu && KeepBelow(victim.name, /*make_room=*/true);
  if (kept || victim.kind == TierLedger::Victim::kEvict) return EvictFrom(tier, victim.name);
  bool freed = false;
  for (StoredObjectPtr& whole : index_->Degradable(victim.name, tier, options_.now_ms())) {
    StoredObjectPtr only = std::exchange(whole, nullptr);  // whether others read it shows in its owners
    Lower* lower = LowerOf(tier);
    freed |= lower == nullptr ? DegradeArena(victim.name, only) : DegradeLower(*lower, victim.name, only);
  }
  return freed;
}

bool Placement::EvictFrom(Tier tier, const BlockName& name) {
  std::vector<StoredObjectPtr> copies = index_->Evict(name, tier, options_.now_ms());
  Discard(name, copies, StoreCounters::Gone::kEvicted);
  return !copies.empty();
}

bool Placement::DegradeArena(const BlockName& name, const StoredObjectPtr& whole) {
  auto cut = std::make_shared<StoredObject>(*whole);
  --cut->record.levels;
  StoredObject* visible = cut.get();
  bool done = index_->Replace(name, whole, std::move(cut), /*unread_by_others=*/true, [&] {
    visible->room->Shrink(visible->record.bytes());
    visible->charged = visible->room->charged();
  });
  if (done) counters_.Degraded(name, whole->tier, whole->record.levels - 1);
  return done;
}

bool Placement::DegradeLower(Lower& lower, const BlockName& name, const StoredObjectPtr& whole) {
  std::unique_lock stripe(StripeOf(name), std::try_to_lock);
  if (!stripe.owns_lock() || index_->PeekIn(name, whole->part, whole->tier) != whole) return false;
  auto cut = std::make_shared<StoredObject>(*whole);
  --cut->record.levels;
  cut->charged = lower.tier->Charge(cut->record);
  // The tier first: a reader that still asks for the level finds it gone and looks again.
  if (!lower.tier->DropLevels(Named(name, whole->part), cut->record).ok()) return false;
  bool done = index_->Replace(name, whole, std::move(cut), /*unread_by_others=*/false, [] {});
  if (done) counters_.Degraded(name, whole->tier, whole->record.levels - 1);
  return done;
}

bool Placement::EvictOwn(uint32_t tenant) {
  std::vector<BlockName> stayed;
  bool freed = false;
  // From the slowest tier: what only it holds is what the tenant misses least.
  for (size_t slot = kTiers; slot-- > 0 && !freed;) {
    if (ledgers_[slot] == nullptr) continue;
    uint64_t before = clock_.Ticks(1);
    int64_t now = options_.now_ms();
    for (int i = 0; i < kTriesARound && !freed; ++i) {
      std::optional<TierLedger::Victim> victim = ledgers_[slot]->PopVictimOf(tenant, before, now);
      if (!victim) break;
      if (victim->kind == TierLedger::Victim::kDegrade) {
        freed = GiveUp(TierOf(slot), *victim);
      } else {
        std::vector<StoredObjectPtr> copies = index_->EvictWhole(victim->name, now);
        Discard(victim->name, copies, StoreCounters::Gone::kEvicted);
        freed = !copies.empty();
      }
      if (!freed) stayed.push_back(victim->name);
    }
  }
  for (const BlockName& name : stayed) index_->Reconsider(name);
  return freed;
}

absl::Status Placement::Reserve(uint32_t tenant, uint64_t bytes) {
  while (!tenants_.Reserve(tenant, bytes)) {
    uint64_t quota = tenants_.Rules(tenant).quota_bytes;
    if (bytes > quota || !EvictOwn(tenant)) {
      return absl::ResourceExhaustedError(absl::StrCat("the tenant stores ", tenants_.stored(tenant),
                                                       " bytes; ", bytes, " more would pass its quota of ",
                                                       quota));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire::store
