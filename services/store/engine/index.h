// Which blocks are stored: a sharded hash map from (tenant, layout, key) to the block's stored parts and its
// place in its chain.
//
// A node is in the map as long as it has a stored part, a stored child, a child being written (a hold), or a
// writer of its own.
//  - children: nodes whose parent this is and that were stored, plus holds. A node with children is never
//  evicted, so children
//    go before parents; one that was deleted all the same stays as a node without parts until its children
//    are gone.
//  - linked: it was stored once, so it counts as a child of its parent (unless it is a chain's first block).
//  - An object with more than one owner is being read. Owners are only added under the shard's lock.
// Only one shard is locked at a time, nodes refer to each other by name, and a policy's lock is taken under a
// shard's, never the other way round.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "services/store/api/kv_store.h"
#include "services/store/engine/eviction.h"
#include "services/store/engine/tier.h"

namespace quire::store {

// One committed object. Immutable.
struct StoredObject {
  Part part;
  uint32_t levels = 0;
  std::string codec;        // canonical spec of its first layer
  uint64_t bytes = 0;       // of all levels present
  uint64_t raw_bytes = 0;   // of the same part at the layout's dtype
  uint64_t bf16_bytes = 0;  // of the same part as bf16
  Tier tier = Tier::kNone;
  std::shared_ptr<TierObject> room;
};
using StoredObjectPtr = std::shared_ptr<const StoredObject>;

// Thread-safe.
class BlockIndex {
 public:
  explicit BlockIndex(EvictionPolicy* policy) : policy_(policy) {}

  // What a Lookup does to a block it finds.
  struct Mark {
    uint64_t tick = 0;
    int64_t leased_until = 0;  // ms; 0: no lease
  };
  // Fills state, tier, levels, codec and bytes of the smallest stored part that covers `part`; marks it if it
  // is there.
  BlockState Look(const BlockName& name, const Part& part, const Mark& mark);
  // The object itself, marked as used; null if it is not stored, or not with this parent and index.
  StoredObjectPtr Open(const BlockName& name, const BlockIdentity& identity, const Part& part, uint64_t tick);

  // Says whether a block's part is wanted, and if so counts a writer until Unannounce. A part already stored
  // is marked as used. INVALID_ARGUMENT if it is stored with another parent or index.
  absl::StatusOr<bool> Announce(const BlockName& name, const BlockIdentity& identity, const Part& part,
                                uint64_t tick);
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

  // Takes a block out if nobody reads, leases or descends from it; otherwise sees to it that it is asked
  // about again in time. Returns its objects, for the caller to count and let go of.
  std::vector<StoredObjectPtr> Evict(const BlockName& name, int64_t now_ms);
  // Takes a block out, whoever descends from it or reads it; a leased one only if `force`.
  std::vector<StoredObjectPtr> Delete(const BlockName& name, bool force, int64_t now_ms);
  // Marks a stored block as used; false if it is not stored.
  bool Touch(const BlockName& name, uint64_t tick);
  // Keeps a stored block until as many Unpins; false if it is not stored, or was not pinned.
  bool Pin(const BlockName& name);
  bool Unpin(const BlockName& name);
  // Takes one object out (its bytes are wrong). False if it was gone.
  bool Drop(const BlockName& name, const StoredObjectPtr& object);

  // Number of nodes, for tests.
  size_t nodes() const;

 private:
  struct Node : EvictionEntry {
    Digest parent;
    uint32_t index = 0;
    bool linked = false;
    uint32_t children = 0;
    uint32_t writers = 0;
    uint32_t pins = 0;
    std::atomic<int64_t> leased_until{0};
    absl::InlinedVector<StoredObjectPtr, 1> parts;

    bool is(const BlockIdentity& i) const { return !linked || (parent == i.parent && index == i.index); }
    const StoredObjectPtr* Covering(const Part& part) const;
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
  // REQUIRES: shard.mu is held. What a change of a node's counts brings with it: a candidate for eviction, or
  // the node's end; then the parent to release is returned.
  std::optional<BlockName> Settle(Shard& shard, Node* node);

  EvictionPolicy* const policy_;
  std::array<Shard, kShards> shards_;
};

}  // namespace quire::store
