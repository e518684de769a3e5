// Which blocks are stored, and where: a sharded hash map from (tenant, layout, key) to the block's copies in
// the tiers and its place in its chain.
//
// A node is in the map as long as it has a copy, a stored child, a child being written (a hold), or a writer
// of its own.
//  - children: nodes whose parent this is and that were stored, plus holds. The last copy of a block with
//    children is never evicted, so children go before parents; a block that was deleted all the same stays as
//    a node without copies until its children are gone.
//  - linked: it was stored once, so it counts as a child of its parent (unless it is a chain's first block).
//  - A copy with more than one owner is being read or moved. Owners are only added under the shard's lock.
//  - A copy loses bits only where no slower tier has the block: there, evicting it loses nothing.
// Only one shard is locked at a time, nodes refer to each other by name, and a ledger's lock is taken under a
// shard's, never the other way round.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "services/store/api/kv_store.h"
#include "services/store/engine/eviction.h"
#include "services/store/engine/tier.h"
#include "services/store/engine/tier_ledger.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

inline constexpr size_t kTiers = 4;  // gpu, host, disk, redis: from the fastest
inline constexpr size_t SlotOf(Tier tier) { return static_cast<size_t>(tier) - 1; }
inline constexpr Tier TierOf(size_t slot) { return static_cast<Tier>(slot + 1); }

// A committed object in one tier. Immutable.
struct StoredObject {
  Part part;
  Tier tier = Tier::kNone;
  ObjectRecord record;  // what is present here
  uint64_t charged = 0;
  std::shared_ptr<TierObject> room;  // in arenas; null in tiers that outlive the process
  // In device memory: its header, for who decodes it there, without the checksums.
  std::shared_ptr<const BlockHeader> header;
};
using StoredObjectPtr = std::shared_ptr<const StoredObject>;

struct IndexOptions {
  // One a tier; null where there is no such tier.
  std::array<TierLedger*, kTiers> ledgers{};
  // The fewest levels a tenant's blocks may be cut down to; kMaxLevels: none is cut.
  std::function<uint32_t(uint32_t tenant)> floor_levels;
  // A tenant's stored bytes changed: each of its blocks counts once, with its largest copy.
  std::function<void(uint32_t tenant, int64_t delta)> stored;
};

// Thread-safe.
class BlockIndex {
 public:
  explicit BlockIndex(IndexOptions options) : options_(std::move(options)) {}

  // What a Lookup does to a block it finds.
  struct Mark {
    uint64_t tick = 0;
    int64_t leased_until = 0;  // ms; 0: no lease
    int64_t now_unix_ms = 0;   // expired blocks are not found, unless pinned or
    int64_t now_ms = 0;        // leased beyond this
  };
  // Fills state, tier, levels, codec and bytes of the copy a reader would get; marks the block if it is
  // there.
  BlockState Look(const BlockName& name, const Part& part, const Mark& mark);
  // That copy, the block marked as used; null if it is not stored, or not with this parent and index.
  StoredObjectPtr Open(const BlockName& name, const BlockIdentity& identity, const Part& part,
                       const Mark& mark);
  // The copy of the fastest tier whose part covers this one; null: none. Marks nothing.
  StoredObjectPtr Peek(const BlockName& name, const Part& part) const;
  StoredObjectPtr PeekAny(const BlockName& name) const;  // whatever its part
  StoredObjectPtr PeekIn(const BlockName& name, const Part& part, Tier tier) const;

  // Says whether a block's part is wanted, and if so counts a writer until Unannounce. A part already stored
  // is marked as used. INVALID_ARGUMENT if it is stored with another parent or index.
  absl::StatusOr<bool> Announce(const BlockName& name, const BlockIdentity& identity, const Part& part,
                                const Mark& mark);
  void Unannounce(const BlockName& name);

  // The index of a stored block; NOT_FOUND.
  absl::StatusOr<uint32_t> StoredIndex(const BlockName& name);
  // Keeps a stored block until ReleaseParent (or until an Insert takes the hold over). FAILED_PRECONDITION if
  // it is not stored.
  absl::Status HoldParent(const BlockName& name);
  void ReleaseParent(const BlockName& name);

  // Makes an object visible. Takes over the caller's hold on its parent, whatever comes of it. Returns the
  // object that is stored afterwards: the given one (`count` is called just before anyone can see it), or one
  // that was there before and covers it.
  absl::StatusOr<StoredObjectPtr> Insert(const BlockName& name, const BlockIdentity& identity,
                                         StoredObjectPtr object, uint64_t tick,
                                         absl::FunctionRef<void()> count);
  // The same for an object that another process or another life of this one stored: its parent need not be
  // here, and may come later.
  absl::StatusOr<StoredObjectPtr> Adopt(const BlockName& name, const BlockIdentity& identity,
                                        StoredObjectPtr object, uint64_t tick);
  // A copy more of a stored object, in another tier. Returns what that tier holds afterwards (the given one,
  // or one that covers it); null if the block is gone meanwhile.
  StoredObjectPtr AddCopy(const BlockName& name, StoredObjectPtr object);

  // Takes a block's copies out of one tier if nobody reads them, leases the block, or needs them to find its
  // children. Returns them, for the caller to let go of; where there are none, the caller is to Reconsider
  // the block when it looks for victims no more (a leased one comes back by itself).
  std::vector<StoredObjectPtr> Evict(const BlockName& name, Tier tier, int64_t now_ms);
  // The same out of all tiers.
  std::vector<StoredObjectPtr> EvictWhole(const BlockName& name, int64_t now_ms);
  // Copies of this block and tier that may lose their last level now; none: as with Evict.
  std::vector<StoredObjectPtr> Degradable(const BlockName& name, Tier tier, int64_t now_ms);
  // Copies of this block in one tier whose part no slower tier covers.
  std::vector<StoredObjectPtr> OnlyIn(const BlockName& name, Tier tier) const;
  // Puts `cut`, the same object with fewer levels, in the place of `whole`; false if that is gone, may keep
  // its bits now, or (with `unread_by_others`) has more owners than the index and the caller.
  // `before_visible` runs under the lock.
  bool Replace(const BlockName& name, const StoredObjectPtr& whole, StoredObjectPtr cut,
               bool unread_by_others, absl::FunctionRef<void()> before_visible);
  // Takes a block out, whoever descends from it or reads it; a leased or pinned one only if `force`.
  std::vector<StoredObjectPtr> Delete(const BlockName& name, bool force, int64_t now_ms);
  // Marks a stored block as used; false if it is not stored.
  bool Touch(const BlockName& name, uint64_t tick);
  // Keeps a stored block until as many Unpins; false if it is not stored, or was not pinned.
  bool Pin(const BlockName& name);
  bool Unpin(const BlockName& name);
  // A block that a ledger named and that stayed: it is a candidate again, if it may be.
  void Reconsider(const BlockName& name);
  // Takes a block out whose time is up; one that is leased or pinned stays, and is found until it is so no
  // more.
  std::vector<StoredObjectPtr> TakeExpired(const BlockName& name, int64_t now_unix_ms, int64_t now_ms);
  // Takes one copy out (its bytes are wrong). False if it was gone.
  bool Drop(const BlockName& name, const StoredObjectPtr& object);

  // The names of all blocks with a copy, of one tenant or (nullopt) all; a snapshot shard by shard.
  void ForEach(std::optional<uint32_t> tenant,
               absl::FunctionRef<void(const BlockName&, const std::vector<StoredObjectPtr>&)> visit) const;
  // The next `most` blocks with a copy after a place, in the order of keys, then tenants, then layouts.
  std::vector<BlockName> NamesAfter(const BlockName& place, size_t most) const;
  // What a block has copies of, and where.
  std::vector<std::pair<Part, Tier>> CopiesOf(const BlockName& name) const;
  // Number of nodes, for tests.
  size_t nodes() const;

 private:
  struct Node {
    BlockName name;
    Usage usage;
    Digest parent;
    uint32_t index = 0;
    bool linked = false;
    uint32_t children = 0;
    uint32_t writers = 0;
    uint32_t pins = 0;
    std::atomic<int64_t> leased_until{0};
    uint64_t stored_bytes = 0;  // as told to options.stored
    absl::InlinedVector<StoredObjectPtr, 2> copies;
    std::array<std::unique_ptr<TierEntry>, kTiers> entries;  // of tiers it has been in

    bool is(const BlockIdentity& i) const { return !linked || (parent == i.parent && index == i.index); }
    // The copy of the fastest tier that covers the part, the smallest where it has several.
    const StoredObjectPtr* Covering(const Part& part, std::optional<Tier> tier = {}) const;
    // All its copies' time is up, and nobody was promised that it stays.
    bool Expired(int64_t now_unix_ms, int64_t now_ms) const;
    bool HasCopyBelow(size_t slot) const;
  };
  struct Shard {
    mutable std::mutex mu;  // guards the map and what its nodes hold, but for their atomics
    absl::flat_hash_map<BlockName, std::unique_ptr<Node>> nodes;
    // REQUIRES: mu is held.
    Node* Find(const BlockName& name) const {
      auto it = nodes.find(name);
      return it == nodes.end() ? nullptr : it->second.get();
    }
    Node* FindOrAdd(const BlockName& name);
  };
  static constexpr size_t kShards = 64;
  static_assert(sizeof(size_t) == 8);

  // By the hash's top bits: the maps inside the shards use the low ones.
  Shard& ShardOf(const BlockName& name) { return shards_[absl::Hash<BlockName>{}(name) >> 58]; }
  const Shard& ShardOf(const BlockName& name) const { return shards_[absl::Hash<BlockName>{}(name) >> 58]; }
  // REQUIRE of all below: shard.mu is held.
  // What a change of a node's copies or counts brings with it: its standing in the ledgers, or its end; then
  // the parent to release is returned.
  std::optional<BlockName> Settle(Shard& shard, Node* node);
  void UpdateLedgers(Node* node);
  TierLedger::Standing StandingIn(const Node& node, size_t slot) const;
  TierEntry* EntryOf(Node* node, size_t slot);
  // Whether a copy in `slot` must stay now; a leased one is parked.
  bool MustStay(Node* node, size_t slot, int64_t now_ms, bool whole);
  absl::StatusOr<StoredObjectPtr> Link(const BlockName& name, const BlockIdentity& identity,
                                       StoredObjectPtr object, uint64_t tick, absl::FunctionRef<void()> count,
                                       bool* linked_now);
  std::vector<StoredObjectPtr> TakeCopies(const BlockName& name, absl::FunctionRef<bool(Node*)> may,
                                          std::optional<Tier> tier);

  const IndexOptions options_;
  std::array<Shard, kShards> shards_;
};

}  // namespace quire::store
