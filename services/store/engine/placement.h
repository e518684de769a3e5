// Where objects are kept: room in the arenas, copies in the tiers below them, what is given up for room, and
// what is brought back.
//
//   a commit      → host arena  → (in the background, or before it is acknowledged) disk, Redis
//   a fetch       disk, Redis   → host arena, verified on the way, once for all who wait for it
//   with a device tier (placement_device.cc), above the host arena:
//   a commit      → device      → (in the background) host arena → disk, Redis
//   a reader on the device      → its copy there, brought up from the host arena, verified before
//   a reader on the host        → its copy in the host arena, brought down from the device, verified
//   before it leaves the device the only copy comes down to the host arena.
//   under pressure a tier drops the last level of its coldest blocks where it holds their only copy, then
//   evicts; what a slower tier holds is evicted at once, for nothing is lost.
//
// Lock order: a stripe of object names (held over a change of one object in a tier that outlives the process,
// so that the index and that tier agree) → an index shard → a ledger → a policy.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/store/engine/counters.h"
#include "services/store/engine/device_tier.h"
#include "services/store/engine/index.h"
#include "services/store/engine/layouts.h"
#include "services/store/engine/mover.h"
#include "services/store/engine/tenants.h"
#include "services/store/engine/tier.h"
#include "services/store/engine/tier_ledger.h"
#include "services/store/tier/faults.h"
#include "services/store/tier/fenced_tier.h"

namespace quire::store {

struct PlacementOptions {
  PolicyKind policy = PolicyKind::kLru;
  double hot_share = 0.2;      // of a tenant's bytes in a tier: what was used last and keeps its bits
  uint64_t default_share = 0;  // see TierLedger
  bool write_through = false;  // a commit is acknowledged when the disk has it
  MoverOptions mover;
  // How long a put waits for the mover before it finds no room, or no place in the mover's queue.
  std::chrono::milliseconds patience{2000};
  uint64_t max_detached_bytes = uint64_t{256} << 20;  // fetched objects that found no room in the arena
  std::function<int64_t()> now_ms;                    // a steady clock
  std::function<int64_t()> now_unix_ms;
  std::shared_ptr<FaultPoints> faults;
};

// Thread-safe.
class Placement {
 public:
  // `device`: null where there is none. `lower`: tiers that outlive the process, at most one of a kind. All
  // but the tiers are borrowed.
  Placement(PlacementOptions options, std::shared_ptr<StorageTier> arena, std::shared_ptr<DeviceTier> device,
            std::vector<std::shared_ptr<FencedTier>> lower, Tenants& tenants, LayoutRegistry& layouts,
            StoreCounters& counters);
  ~Placement();

  BlockIndex& index() { return *index_; }
  UseClock& clock() { return clock_; }

  // Takes what the lower tiers hold from an earlier life into the index.
  absl::Status Recover();

  // Room in the arena, made at the expense of whoever the ledger names. RESOURCE_EXHAUSTED if everything left
  // is in use, leased, pinned or being written.
  absl::StatusOr<std::shared_ptr<TierObject>> Stage(uint32_t tenant, uint64_t bytes) {
    return StageIn(*arena_, tenant, bytes);
  }
  // The same on the device. REQUIRES: there is one.
  absl::StatusOr<std::shared_ptr<TierObject>> StageOnDevice(uint32_t tenant, uint64_t bytes) {
    return StageIn(*device_, tenant, bytes);
  }
  DeviceTier* device() const { return device_.get(); }
  // Takes bytes from a tenant's quota, evicting its own blocks if need be; RESOURCE_EXHAUSTED naming the
  // quota.
  absl::Status Reserve(uint32_t tenant, uint64_t bytes);

  // Before an object is visible: removes what was stored under its name and has expired; with write-through,
  // writes it to the disk.
  absl::Status BeforeCommit(const BlockName& name, const StoredObjectPtr& object);
  // After it is: sees to it that slower tiers get it.
  void AfterCommit(const BlockName& name, const StoredObjectPtr& object);

  // A copy whose bytes the host has at hand, of a block whose fastest copy is `object`: itself if it is in
  // the arena, else brought there and verified. NOT_FOUND if it vanished; DATA_LOSS if its bytes were wrong
  // (it was dropped).
  absl::StatusOr<StoredObjectPtr> AtHand(const BlockName& name, const BlockIdentity& identity,
                                         const KnownLayout& layout, const Part& part, StoredObjectPtr object);
  // The same for a reader on the device: a copy there. RESOURCE_EXHAUSTED if no room can be made there.
  // REQUIRES: there is a device.
  absl::StatusOr<StoredObjectPtr> OnDevice(const BlockName& name, const BlockIdentity& identity,
                                           const KnownLayout& layout, const Part& part,
                                           StoredObjectPtr object);
  // A block that the index does not know, from a tier that other stores write to as well. NOT_FOUND.
  absl::StatusOr<StoredObjectPtr> FetchShared(const BlockName& name, const BlockIdentity& identity,
                                              const KnownLayout& layout, const Part& part);
  // States of such blocks, up to and including the first that is no hit unless `all`.
  void LookShared(uint32_t tenant, const Digest& fingerprint, const Part& part, std::span<const Digest> keys,
                  bool all, std::vector<BlockState>* states);
  bool has_shared() const { return shared_ != nullptr; }
  bool has_lower() const { return !lower_.empty(); }
  // Brings a block to the arena, or to the device, in the background. False if it is there, not stored, or
  // the queue is full.
  bool FetchLater(const BlockName& name, std::shared_ptr<const KnownLayout> layout);
  bool PromoteLater(const BlockName& name, std::shared_ptr<const KnownLayout> layout);

  // Ends copies that were taken out of the index: removes them where they outlive the process.
  void Discard(const BlockName& name, const std::vector<StoredObjectPtr>& copies, StoreCounters::Gone why);
  // Counts the parts among them of which no copy is left.
  void CountReleased(const BlockName& name, std::span<const StoredObjectPtr> copies);
  // Takes one copy out, whose bytes are wrong.
  void DropCorrupt(const BlockName& name, const StoredObjectPtr& copy);
  // Reads and checks one copy wherever it is; OK, or DATA_LOSS (it was dropped), NOT_FOUND (it has vanished
  // from its tier, and is forgotten), or why it could not be read. Of a layout that nobody has registered
  // since the restart, a tier's own checksums are all that is checked.
  absl::Status Check(const BlockName& name, const StoredObjectPtr& copy);
  // Removes blocks whose time is up, or one if its is.
  void SweepExpired();
  void RemoveIfExpired(const BlockName& name);
  void NoteExpiry(const BlockName& name, int64_t expires_ms);

  // Waits until the mover has nothing to do, then makes the lower tiers durable. DEADLINE_EXCEEDED.
  absl::Status Settle(std::chrono::milliseconds patience);

  uint64_t PredictUs(Tier tier, uint64_t bytes) const;
  void ObserveArenaRead(uint64_t bytes, double us) { arena_model_.Observe(bytes, us); }
  std::vector<TierStats> Stats() const;
  void SetShare(uint32_t tenant, uint64_t bytes);

 private:
  struct Lower {
    std::shared_ptr<FencedTier> tier;
    std::unique_ptr<TierLedger> ledger;
  };
  struct Flight;
  using FlightKey = std::pair<BlockName, std::pair<Part, Tier>>;  // where to
  static constexpr size_t kStripes = 256;

  ObjectName Named(const BlockName& name, const Part& part) const;
  std::mutex& StripeOf(const BlockName& name) { return stripes_[absl::Hash<BlockName>{}(name) % kStripes]; }
  TierLedger& LedgerOf(Tier tier) { return *ledgers_[SlotOf(tier)]; }
  Lower* LowerOf(Tier tier);

  // One step to more room in a tier: a level or a block less. False: nothing left that may go.
  bool FreeSome(Tier tier, uint32_t requester);
  bool GiveUp(Tier tier, const TierLedger::Victim& victim);
  bool EvictFrom(Tier tier, const BlockName& name);
  bool DegradeArena(const BlockName& name, const StoredObjectPtr& whole);
  bool DegradeLower(Lower& lower, const BlockName& name, const StoredObjectPtr& whole);
  bool EvictOwn(uint32_t tenant);

  absl::Status WriteTo(Lower& lower, const BlockName& name, const StoredObjectPtr& object, bool visible);
  absl::StatusOr<StoredObjectPtr> Fly(const BlockName& name, const Part& part, Tier to,
                                      absl::FunctionRef<absl::StatusOr<StoredObjectPtr>()> fetch);
  absl::StatusOr<StoredObjectPtr> FetchFrom(Lower& lower, const BlockName& name,
                                            const BlockIdentity& identity, const KnownLayout& layout,
                                            const Part& part, const ObjectRecord& record);
  absl::StatusOr<std::shared_ptr<TierObject>> StageIn(StorageTier& tier, uint32_t tenant, uint64_t bytes);
  // The same without waiting for anything.
  absl::StatusOr<std::shared_ptr<TierObject>> StageNow(StorageTier& tier, uint32_t tenant, uint64_t bytes);
  static absl::Status VerifyBytes(const KnownLayout& layout, const BlockIdentity& identity, const Part& part,
                                  Bytes bytes);
  // An object in `room`, in the arena, filled from the device and verified.
  absl::StatusOr<StoredObjectPtr> CopyDown(const BlockIdentity& identity, const KnownLayout& layout,
                                           const StoredObject& from, std::shared_ptr<TierObject> room);
  absl::StatusOr<StoredObjectPtr> CopyUp(const BlockName& name, const BlockIdentity& identity,
                                         const KnownLayout& layout, const StoredObjectPtr& from);
  // Sees to it that a slower tier has what only the device has of a block. False: it has not. `make_room`: at
  // the expense of what the arena has; not for a second copy of what is safe where it is.
  bool KeepBelow(const BlockName& name, bool make_room);
  void AfterDeviceCommit(const BlockName& name, const StoredObjectPtr& object);
  absl::StatusOr<std::shared_ptr<TierObject>> RoomToFetch(uint32_t tenant, uint64_t bytes);

  const PlacementOptions options_;
  Tenants& tenants_;
  LayoutRegistry& layouts_;
  StoreCounters& counters_;
  std::shared_ptr<StorageTier> arena_;
  std::shared_ptr<DeviceTier> device_;  // null: none
  FetchModel arena_model_, device_model_;
  UseClock clock_;
  std::array<std::unique_ptr<TierLedger>, kTiers> ledgers_;
  std::vector<Lower> lower_;  // from the fastest
  FencedTier* shared_ = nullptr;
  std::unique_ptr<BlockIndex> index_;

  std::array<std::mutex, kStripes> stripes_;
  std::mutex flights_mu_;  // guards flights_
  absl::flat_hash_map<FlightKey, std::shared_ptr<Flight>> flights_;
  std::shared_ptr<std::atomic<uint64_t>> detached_bytes_ = std::make_shared<std::atomic<uint64_t>>(0);

  std::mutex expiries_mu_;  // guards expiries_
  absl::btree_set<std::pair<int64_t, BlockName>> expiries_;
  std::atomic<int64_t> next_expiry_{INT64_MAX};

  std::unique_ptr<Mover> mover_;  // last: its threads use all above
};

}  // namespace quire::store
