#include "services/store/engine/placement.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {

using std::chrono::steady_clock;

Placement::Placement(PlacementOptions options, std::shared_ptr<StorageTier> arena,
                     std::shared_ptr<DeviceTier> device, std::vector<std::shared_ptr<FencedTier>> lower,
                     Tenants& tenants, LayoutRegistry& layouts, StoreCounters& counters)
    : options_(std::move(options)),
      tenants_(tenants),
      layouts_(layouts),
      counters_(counters),
      arena_(std::move(arena)),
      device_(std::move(device)),
      arena_model_(/*latency_us=*/1, /*bytes_per_us=*/4000),
      device_model_(/*latency_us=*/20, /*bytes_per_us=*/20'000) {
  auto add_ledger = [&](Tier tier, uint64_t capacity) {
    ledgers_[SlotOf(tier)] = std::make_unique<TierLedger>(
        LedgerOptions{options_.policy, options_.hot_share, capacity, options_.default_share});
  };
  if (device_ != nullptr) add_ledger(device_->kind(), device_->capacity_bytes());
  add_ledger(arena_->kind(), arena_->capacity_bytes());
  std::sort(lower.begin(), lower.end(), [](const auto& a, const auto& b) { return a->kind() < b->kind(); });
  for (std::shared_ptr<FencedTier>& tier : lower) {
    add_ledger(tier->kind(), tier->capacity_bytes());
    if (tier->shared()) shared_ = tier.get();
    lower_.push_back({std::move(tier)});
  }
  IndexOptions index;
  for (size_t slot = 0; slot < kTiers; ++slot) index.ledgers[slot] = ledgers_[slot].get();
  index.floor_levels = [this](uint32_t tenant) { return tenants_.FloorLevels(tenant); };
  index.stored = [this](uint32_t tenant, int64_t delta) { tenants_.AddStored(tenant, delta); };
  index_ = std::make_unique<BlockIndex>(std::move(index));
  mover_ = std::make_unique<Mover>(options_.mover);
}

Placement::~Placement() { mover_.reset(); }

ObjectName Placement::Named(const BlockName& name, const Part& part) const {
  return {tenants_.StorageName(name.tenant), name.key, part};
}

Placement::Lower* Placement::LowerOf(Tier tier) {
  for (Lower& lower : lower_) {
    if (lower.tier->kind() == tier) return &lower;
  }
  return nullptr;
}

absl::Status Placement::Recover() {
  for (Lower& lower : lower_) {
    if (lower.tier->shared()) continue;
    uint64_t taken = 0, refused = 0;
    absl::Status scanned = lower.tier->Scan([&](const ObjectName& object, const ObjectRecord& record) {
      absl::StatusOr<uint32_t> tenant = tenants_.AddStorageName(object.tenant);
      absl::StatusOr<uint32_t> layout = layouts_.NumberOf(record.fingerprint);
      auto copy = std::make_shared<StoredObject>();
      copy->part = object.part;
      copy->tier = lower.tier->kind();
      copy->record = record;
      copy->charged = lower.tier->Charge(record);
      if (!tenant.ok() || !layout.ok()) {
        ++refused;
        return;
      }
      BlockName name{*tenant, *layout, object.key};
      BlockIdentity identity{record.parent, object.key, record.index};
      if (!index_->Adopt(name, identity, std::move(copy), clock_.Ticks(1)).ok()) {
        ++refused;
        return;
      }
      NoteExpiry(name, record.expires_ms);
      ++taken;
    });
    QUIRE_RETURN_IF_ERROR(scanned);
    spdlog::info("store: the disk tier holds {} objects of an earlier life ({} could not be taken)", taken,
                 refused);
  }
  return absl::OkStatus();
}

absl::Status Placement::WriteTo(Lower& lower, const BlockName& name, const StoredObjectPtr& object,
                                bool visible) {
  if (index_->PeekIn(name, object->part, lower.tier->kind()) != nullptr) return absl::OkStatus();
  QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, object->room->Read());
  Bytes bytes = pinned.bytes.first(object->record.bytes());
  uint64_t charge = lower.tier->Charge(object->record);
  constexpr int kTries = 8;  // others may take the room that was made
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    while (lower.tier->capacity_bytes() != 0 &&
           lower.tier->used_bytes() + charge > lower.tier->capacity_bytes()) {
      if (!FreeSome(lower.tier->kind(), name.tenant)) {
        return absl::ResourceExhaustedError(
            absl::StrCat("no room for ", charge, " bytes: what is left is in use (", lower.tier->used_bytes(),
                         " of ", lower.tier->capacity_bytes(), " bytes)"));
      }
    }
    std::lock_guard stripe(StripeOf(name));
    if (visible && index_->Peek(name, object->part) == nullptr) return absl::OkStatus();  // deleted meanwhile
    status = lower.tier->Write(Named(name, object->part), object->record, bytes);
    if (status.ok()) {
      if (!visible) return status;
      auto copy = std::make_shared<StoredObject>(*object);
      copy->tier = lower.tier->kind();
      copy->charged = charge;
      copy->room = nullptr;
      copy->header = nullptr;
      if (index_->AddCopy(name, std::move(copy)) == nullptr) {
        ObjectName gone = Named(name, object->part);
        return lower.tier->Remove({&gone, 1});
      }
      counters_.Moved(name, lower.tier->kind(), object->record.levels);
      return status;
    }
    if (!absl::IsResourceExhausted(status) || !FreeSome(lower.tier->kind(), name.tenant)) break;
  }
  return status;
}

absl::Status Placement::BeforeCommit(const BlockName& name, const StoredObjectPtr& object) {
  // Of a block that was announced because its time was up nothing is to stay that would keep this from being
  // found.
  RemoveIfExpired(name);
  Lower* disk = LowerOf(Tier::kDisk);
  if (!options_.write_through || disk == nullptr) return absl::OkStatus();
  return WriteTo(*disk, name, object, /*visible=*/false);
}

void Placement::AfterCommit(const BlockName& name, const StoredObjectPtr& object) {
  NoteExpiry(name, object->record.expires_ms);
  if (object->tier == Tier::kGpu) return AfterDeviceCommit(name, object);
  for (Lower& lower : lower_) {
    if (options_.write_through && lower.tier->kind() == Tier::kDisk) {
      auto copy = std::make_shared<StoredObject>(*object);
      copy->tier = Tier::kDisk;
      copy->charged = lower.tier->Charge(object->record);
      copy->room = nullptr;
      index_->AddCopy(name, std::move(copy));
      continue;
    }
    auto work = [this, &lower, name, object] {
      if (absl::Status status = WriteTo(lower, name, object, /*visible=*/true); !status.ok()) {
        counters_.WriteFailed(lower.tier->kind());
        spdlog::debug("store: a block was not written to the {} tier: {}", TierName(lower.tier->kind()),
                      std::string(status.message()));
      }
    };
    if (!mover_->SubmitBy(Mover::kWrite, std::move(work), steady_clock::now() + options_.patience)) {
      counters_.WriteFailed(lower.tier->kind());
    }
  }
}

void Placement::Discard(const BlockName& name, const std::vector<StoredObjectPtr>& copies,
                        StoreCounters::Gone why) {
  if (copies.empty()) return;
  CountReleased(name, copies);
  for (const StoredObjectPtr& copy : copies) {
    if (Lower* lower = LowerOf(copy->tier)) {
      ObjectName object = Named(name, copy->part);
      std::lock_guard stripe(StripeOf(name));
      // Written anew meanwhile: then what is there is not what was taken out.
      if (index_->PeekIn(name, copy->part, copy->tier) != nullptr) continue;
      if (absl::Status status = lower->tier->Remove({&object, 1}); !status.ok()) {
        spdlog::debug("store: a block was not removed from the {} tier: {}", TierName(copy->tier),
                      std::string(status.message()));
      }
    }
  }
  counters_.Removed(name, *copies.front(), why);
}

void Placement::CountReleased(const BlockName& name, std::span<const StoredObjectPtr> copies) {
  const std::vector<std::pair<Part, Tier>> left = index_->CopiesOf(name);
  for (size_t i = 0; i < copies.size(); ++i) {
    const Part& part = copies[i]->part;
    bool held = std::any_of(left.begin(), left.end(), [&](const auto& copy) { return copy.first == part; });
    bool counted = std::any_of(copies.begin(), copies.begin() + static_cast<ptrdiff_t>(i),
                               [&](const StoredObjectPtr& before) { return before->part == part; });
    if (!held && !counted) counters_.Released(*copies[i]);
  }
}

void Placement::DropCorrupt(const BlockName& name, const StoredObjectPtr& copy) {
  if (!index_->Drop(name, copy)) return;
  Discard(name, {copy}, StoreCounters::Gone::kCorrupt);
  counters_.PublishTiers(Stats());
}

void Placement::NoteExpiry(const BlockName& name, int64_t expires_ms) {
  if (expires_ms == 0) return;
  std::lock_guard lock(expiries_mu_);
  expiries_.emplace(expires_ms, name);
  next_expiry_.store(expiries_.begin()->first, std::memory_order_relaxed);
}

void Placement::SweepExpired() {
  int64_t now = options_.now_unix_ms();
  while (next_expiry_.load(std::memory_order_relaxed) <= now) {
    BlockName name;
    {
      std::lock_guard lock(expiries_mu_);
      if (expiries_.empty() || expiries_.begin()->first > now) return;
      name = expiries_.begin()->second;
      expiries_.erase(expiries_.begin());
      next_expiry_.store(expiries_.empty() ? INT64_MAX : expiries_.begin()->first, std::memory_order_relaxed);
    }
    RemoveIfExpired(name);
  }
}

void Placement::RemoveIfExpired(const BlockName& name) {
  std::vector<StoredObjectPtr> copies = index_->TakeExpired(name, options_.now_unix_ms(), options_.now_ms());
  Discard(name, copies, StoreCounters::Gone::kExpired);
}

absl::Status Placement::Settle(std::chrono::milliseconds patience) {
  if (!mover_->AwaitIdle(steady_clock::now() + patience)) {
    return absl::DeadlineExceededError(absl::StrCat("after ", patience.count(), " ms ",
                                                    mover_->waiting(Mover::kWrite),
                                                    " blocks still wait to be written"));
  }
  for (Lower& lower : lower_) QUIRE_RETURN_IF_ERROR(lower.tier->Flush());
  return absl::OkStatus();
}

uint64_t Placement::PredictUs(Tier tier, uint64_t bytes) const {
  for (const Lower& lower : lower_) {
    if (lower.tier->kind() == tier) return lower.tier->PredictUs(bytes) + arena_model_.PredictUs(bytes);
  }
  uint64_t us = arena_model_.PredictUs(bytes);
  if (tier == Tier::kGpu) us += device_model_.PredictUs(bytes);
  return std::max<uint64_t>(us, 1);
}

std::vector<TierStats> Placement::Stats() const {
  std::vector<TierStats> stats;
  for (const StorageTier* tier : std::initializer_list<const StorageTier*>{device_.get(), arena_.get()}) {
    if (tier == nullptr) continue;
    Tier kind = tier->kind();
    stats.push_back({kind, tier->capacity_bytes(), tier->used_bytes(), ledgers_[SlotOf(kind)]->objects(), 0});
  }
  for (const Lower& lower : lower_) {
    Tier kind = lower.tier->kind();
    stats.push_back(
        {kind, lower.tier->capacity_bytes(), lower.tier->used_bytes(), ledgers_[SlotOf(kind)]->objects(), 0});
  }
  return stats;
}

void Placement::SetShare(uint32_t tenant, uint64_t bytes) {
  for (const auto& ledger : ledgers_) {
    if (ledger != nullptr) ledger->SetShare(tenant, bytes);
  }
}

}  // namespace quire::store
