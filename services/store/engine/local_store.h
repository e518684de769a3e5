// The store in this process: a host-memory tier, an index, and the rules between them.
//
// An object is in one of three places in its life: a session's (staged: it takes room, nobody sees it), the
// index's (visible), and readers' (after removal: its room is free when the last of them lets go). All three
// hold it by shared ownership.
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "services/store/api/kv_store.h"
#include "services/store/engine/counters.h"
#include "services/store/engine/event_log.h"
#include "services/store/engine/eviction.h"
#include "services/store/engine/index.h"
#include "services/store/engine/layouts.h"
#include "services/store/engine/tier.h"

namespace quire::store {

struct LocalStoreOptions {
  uint64_t host_bytes = uint64_t{512} << 20;  // reserved at start
  bool host_prefault = false;                 // touch every page at start
  uint32_t max_put_sessions = 256;
  uint64_t max_announced_bytes = 0;         // of wanted coded blocks, over all open sessions; 0: host_bytes
  uint64_t max_announced_blocks = 1 << 18;  // likewise
  uint64_t max_staged_raw_bytes = uint64_t{256}
                                  << 20;  // raw KV received and not yet encoded, over all sessions
  uint32_t max_tenants = 65536;
  bool enable_faults = false;                      // InjectFault works
  std::shared_ptr<prometheus::Registry> registry;  // null: one of its own
  std::function<int64_t()> now_ms;                 // a steady clock; null: the machine's
};

// A verified object with its bytes, kept for as long as this lives. Do not keep it longer than needed: its
// room is not free before.
struct OpenedBlock {
  StoredObjectPtr object;
  PinnedBytes pinned;
  BlockReader reader;
};

class LocalStore : public KvStore, public std::enable_shared_from_this<LocalStore> {
 public:
  // RESOURCE_EXHAUSTED if the memory cannot be reserved.
  static absl::StatusOr<std::shared_ptr<LocalStore>> Create(LocalStoreOptions options);
  ~LocalStore() override = default;  // open sessions keep the store alive

  absl::StatusOr<Digest> RegisterLayout(const Layout& layout) override;
  absl::StatusOr<LookupResult> Lookup(const Namespace& ns, std::span<const Digest> keys,
                                      const LookupOptions& options) override;
  absl::StatusOr<std::unique_ptr<PutSession>> BeginPut(const Namespace& ns,
                                                       std::span<const BlockAnnounce> blocks,
                                                       const PutOptions& options) override;
  absl::Status Get(const Namespace& ns, std::span<const BlockIdentity> blocks, const GetOptions& options,
                   const GetSink& sink) override;
  absl::StatusOr<uint32_t> Delete(const Namespace& ns, std::span<const Digest> keys, bool force) override;
  absl::StatusOr<uint32_t> Pin(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Unpin(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Touch(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier tier) override;
  absl::StatusOr<StoreStats> Stats() override;

  // What Get is made of, for readers with an order of their own (the gRPC server).
  // A namespace and part, checked once for many blocks.
  struct View {
    std::optional<uint32_t> tenant;  // none: nothing of this tenant is stored
    std::shared_ptr<const KnownLayout> layout;
    Part part;
  };
  absl::StatusOr<View> Resolve(const Namespace& ns, const Part& part) const;
  // Finds a block, verifies all of it and keeps it. NOT_FOUND; DATA_LOSS: its bytes were wrong, it was
  // dropped and counted.
  absl::StatusOr<OpenedBlock> Open(const View& view, const BlockIdentity& identity);

  // Events of a tenant's blocks, for Watch. A tenant that has nothing yet is made known, so that one can wait
  // for its first event: RESOURCE_EXHAUSTED past options.max_tenants.
  absl::StatusOr<uint32_t> TenantToWatch(const std::string& tenant) { return AddTenant(tenant); }
  EventLog& events() { return events_; }
  // The layout of an event; null if there is no such.
  std::shared_ptr<const KnownLayout> LayoutOf(const StoreEvent& event) const {
    return layouts_.ById(event.layout);
  }

  // Arms a fault: "corrupt_byte" flips one byte in each of the next `count` objects that are read.
  // PERMISSION_DENIED unless options.enable_faults, NOT_FOUND for an unknown point.
  absl::Status InjectFault(const std::string& point, uint32_t count);

 private:
  friend class LocalPutSession;
  LocalStore(LocalStoreOptions options, std::shared_ptr<StorageTier> tier);

  // How many of a request's keys `each` (called with the block's name and its place in the list) says true
  // of.
  absl::StatusOr<uint32_t> CountKeys(const Namespace& ns, std::span<const Digest> keys,
                                     absl::FunctionRef<bool(const BlockName&, size_t)> each) const;
  absl::StatusOr<uint32_t> AddTenant(const std::string& tenant);
  absl::Status CheckAnnounced(const View& view, std::span<const BlockAnnounce> blocks, bool encode) const;
  absl::Status CheckChain(const View& view, std::span<const BlockAnnounce> blocks);
  absl::StatusOr<std::vector<uint32_t>> AnnounceAll(const View& view, std::span<const BlockAnnounce> blocks);
  absl::Status TakeBudget(std::span<const BlockAnnounce> blocks, std::span<const uint32_t> wanted,
                          bool encode);
  // Room for `bytes`, evicting as needed. RESOURCE_EXHAUSTED if everything left is in use, leased or being
  // written.
  absl::StatusOr<std::shared_ptr<TierObject>> StageWithEviction(uint64_t bytes);
  absl::StatusOr<BlockReader> Verified(const View& view, const BlockIdentity& identity,
                                       const StoredObject& object, Bytes bytes);
  bool TakeFault();
  // Counts an object that has been taken out of the index, and tells who watches.
  void Removed(const BlockName& name, const StoredObject& object, StoreCounters::Gone why);
  bool EvictOne();

  const LocalStoreOptions options_;
  std::shared_ptr<prometheus::Registry> registry_;
  StoreCounters counters_;
  LayoutRegistry layouts_;
  EventLog events_;
  std::shared_ptr<StorageTier> tier_;
  std::unique_ptr<EvictionPolicy> policy_;
  BlockIndex index_;

  mutable std::shared_mutex tenants_mu_;  // guards tenants_
  absl::flat_hash_map<std::string, uint32_t> tenants_;

  std::mutex budget_mu_;  // guards what open sessions hold of their limits:
  uint32_t sessions_ = 0;
  uint64_t announced_bytes_ = 0;
  uint64_t announced_blocks_ = 0;
  uint64_t staged_raw_bytes_ = 0;

  std::atomic<uint64_t> next_lease_{1};
  std::atomic<int64_t> corrupt_next_{0};
  std::atomic<double> read_us_per_byte_{1.0 / 4000};  // of verified reads, a moving average; at first 4 GB/s
};

}  // namespace quire::store
