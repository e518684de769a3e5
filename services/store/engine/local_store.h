// The store in this process: an arena in host memory, tiers below it, an index, and the rules between them.
//
// An object is in one of three places in its life: a session's (staged: it takes room, nobody sees it), the
// index's (visible), and readers' (after removal: its room is free when the last of them lets go). All three
// hold it by shared ownership.
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "services/store/api/kv_store.h"
#include "services/store/engine/counters.h"
#include "services/store/engine/event_log.h"
#include "services/store/engine/eviction.h"
#include "services/store/engine/index.h"
#include "services/store/engine/layouts.h"
#include "services/store/engine/placement.h"
#include "services/store/engine/scrubber.h"
#include "services/store/engine/tenants.h"
#include "services/store/engine/tier.h"

namespace quire::store {

struct LocalStoreOptions {
  uint64_t host_bytes = uint64_t{512} << 20;  // reserved at start
  bool host_prefault = false;                 // touch every page at start
  std::shared_ptr<DeviceTier> gpu;            // above the arena, and codes for all; null: none
  // Tiers below the arena, at most one of a kind; each is put behind a fence.
  std::vector<std::shared_ptr<ObjectTier>> lower;
  FenceOptions fence;
  PlacementOptions placement;  // its clocks and faults are filled in
  ScrubOptions scrub;
  // The fewest levels a block is cut down to before it is evicted, unless its tenant's rules say otherwise; 1
  // is two bits, 2 three, 3 four; kMaxLevels: blocks are not cut.
  uint32_t floor_levels = 2;
  uint64_t default_quota_bytes = 0;  // of tenants without rules of their own; 0: no limit
  std::string tenant_secret;         // of the HMAC that makes tenants' names in storage
  uint32_t max_put_sessions = 256;
  uint64_t max_announced_bytes = 0;         // of wanted coded blocks, over all open sessions; 0: host_bytes
  uint64_t max_announced_blocks = 1 << 18;  // likewise
  uint64_t max_staged_raw_bytes = uint64_t{256}
                                  << 20;  // raw KV received and not yet encoded, over all sessions
  uint32_t max_tenants = 65536;
  EventLog::Options events;
  bool enable_faults = false;                      // InjectFault works
  std::shared_ptr<FaultPoints> faults;             // shared with the tiers; null: of its own
  std::shared_ptr<prometheus::Registry> registry;  // null: one of its own
  std::function<int64_t()> now_ms;                 // a steady clock; null: the machine's
  std::function<int64_t()> now_unix_ms;            // null: the machine's
};

// An object with its bytes, kept for as long as this lives. Do not keep it longer than needed: its room is
// not free before. The header was checked; of its slices, those that LocalStore::Verify was asked about.
struct OpenedBlock {
  BlockName name;
  StoredObjectPtr object;
  PinnedBytes pinned;
  BlockReader reader;
};

// A block in device memory, kept where it is for as long as this lives.
struct DeviceBlock {
  StoredObjectPtr object;               // its header is set
  std::shared_ptr<const uint8_t> data;  // on the device
};

class LocalPutSession;

class LocalStore : public KvStore, public std::enable_shared_from_this<LocalStore> {
 public:
  // RESOURCE_EXHAUSTED if the memory cannot be reserved; the lower tiers' errors where what they hold cannot
  // be listed.
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
    std::string tenant_name;
    std::shared_ptr<const KnownLayout> layout;
    Part part;
  };
  absl::StatusOr<View> Resolve(const Namespace& ns, const Part& part) const;
  // Finds a block, brings it to the arena if need be, and keeps it. NOT_FOUND; DATA_LOSS: its bytes were
  // wrong, it was dropped and counted.
  absl::StatusOr<OpenedBlock> Open(const View& view, const BlockIdentity& identity);
  // Checks one layer of a level (sinks included) of an opened block, right before the bytes are used: they
  // are then in a cache. DATA_LOSS as Open.
  absl::Status Verify(const OpenedBlock& block, int level, uint32_t layer);
  absl::Status VerifyLevels(const OpenedBlock& block, int levels);  // all layers of the first levels
  // Finds a block and keeps it on the device, brought there if need be. As Open, and RESOURCE_EXHAUSTED where
  // no room can be made there. REQUIRES: there is a device.
  absl::StatusOr<DeviceBlock> OpenOnDevice(const View& view, const BlockIdentity& identity);
  // BeginPut, for sources that only this store has.
  absl::StatusOr<std::unique_ptr<LocalPutSession>> BeginLocalPut(const Namespace& ns,
                                                                 std::span<const BlockAnnounce> blocks,
                                                                 const PutOptions& options);
  // Null: there is none.
  Device* device() const { return options_.gpu != nullptr ? &options_.gpu->device() : nullptr; }
  // What the Codec service asks of the device: a block's raw form becomes an object, and back, without being
  // stored. UNIMPLEMENTED for what it does not code, RESOURCE_EXHAUSTED where it has no room now: the host
  // codes as well. REQUIRES: there is a device.
  absl::Status EncodeOnDevice(const KnownLayout& layout, const Part& part, const CodecSpec& spec, DType dtype,
                              const BlockIdentity& identity, Bytes raw, std::vector<uint8_t>* object);
  absl::Status DecodeOnDevice(const KnownLayout& layout, const Part& part, const BlockHeader& header,
                              int levels, DType dtype, Bytes object, MutableBytes raw);

  // Events of a tenant's blocks, for Watch. A tenant that has nothing yet is made known, so that one can wait
  // for its first event: RESOURCE_EXHAUSTED past options.max_tenants.
  absl::StatusOr<uint32_t> TenantToWatch(const std::string& tenant) { return AddTenant(tenant); }
  EventLog& events() { return events_; }
  // The layout of an event; null if there is no such.
  std::shared_ptr<const KnownLayout> LayoutOf(const StoreEvent& event) const {
    return layouts_.ByNumber(event.layout);
  }

  // For a reader that opens blocks one after the other and has come to blocks[at]: has those ahead of it
  // brought to the arena, as far as the mover's queue has places.
  void ReadAhead(const View& view, std::span<const BlockIdentity> blocks, size_t at);
  // What handing out bytes of the arena took, for the times that Lookup predicts.
  void ObserveRead(uint64_t bytes, double us) { placement_->ObserveArenaRead(bytes, us); }

  // Arms a fault point (services/store/tier/faults.h). PERMISSION_DENIED unless options.enable_faults.
  absl::Status InjectFault(const std::string& point, uint32_t count, uint64_t parameter = 0);
  FaultPoints& faults() { return *options_.faults; }

  // A tenant's limits; those of one that has stored nothing yet are kept for when it does.
  absl::StatusOr<TenantRules> Rules(const std::string& tenant);
  absl::Status SetRules(const std::string& tenant, const TenantRules& rules);
  absl::StatusOr<uint64_t> Quota(const std::string& tenant);
  absl::Status SetQuota(const std::string& tenant, uint64_t bytes);
  absl::StatusOr<uint64_t> StoredBytes(const std::string& tenant) const;
  // Removes every block of a tenant, leased and pinned ones too; how many.
  absl::StatusOr<uint64_t> DeleteTenant(const std::string& tenant);

  struct VerifyProgress {
    uint64_t blocks = 0, bytes = 0, failures = 0, unreadable = 0;
    double done = 0;  // 0…1
  };
  // Checks everything a tier (kNone: all) holds against its checksums, at most at so many bytes a second (0:
  // no limit), and drops what fails. `progress` is called now and then and at the end; false stops
  // (CANCELLED).
  absl::Status Verify(Tier tier, uint64_t bytes_per_second,
                      absl::FunctionRef<bool(const VerifyProgress&)> progress);

  // Refuses new puts (UNAVAILABLE) from now on; waits until sessions have ended and the lower tiers have,
  // durably, what they are to have. DEADLINE_EXCEEDED after so long.
  absl::Status Drain(std::chrono::milliseconds patience);
  // Waits until the mover has nothing to do. For tests and benchmarks.
  absl::Status AwaitMoved(std::chrono::milliseconds patience) { return placement_->Settle(patience); }
  uint64_t fetches() const { return counters_.fetches.load(std::memory_order_relaxed); }  // from slower tiers

 private:
  friend class LocalPutSession;
  static constexpr size_t kBlocksAhead = 16;
  LocalStore(LocalStoreOptions options, std::shared_ptr<StorageTier> arena);

  // How many of a request's keys `each` (called with the block's name and its place in the list) says true
  // of.
  absl::StatusOr<uint32_t> CountKeys(
      const Namespace& ns, std::span<const Digest> keys,
      absl::FunctionRef<bool(const View&, const BlockName&, size_t)> each) const;
  absl::StatusOr<uint32_t> AddTenant(const std::string& tenant);
  absl::Status CheckAnnounced(const View& view, std::span<const BlockAnnounce> blocks, bool encode) const;
  absl::Status CheckChain(const View& view, std::span<const BlockAnnounce> blocks);
  absl::StatusOr<std::vector<uint32_t>> AnnounceAll(const View& view, std::span<const BlockAnnounce> blocks);
  absl::Status TakeBudget(std::span<const BlockAnnounce> blocks, std::span<const uint32_t> wanted,
                          bool encode);
  static absl::Status CheckCount(const char* what, size_t count, size_t limit);  // of one request
  // Asks the tier that other stores write to about what is missing here.
  void LookElsewhere(const View& view, std::span<const Digest> keys, bool all,
                     std::vector<BlockState>* blocks);
  absl::StatusOr<BlockReader> Read(const View& view, const BlockIdentity& identity,
                                   const StoredObject& object, Bytes bytes);
  absl::Status Corrupt(const BlockName& name, const StoredObjectPtr& object, const absl::Status& why);
  // The tenant that a reader's blocks belong to, made known where other stores may have written for it; none:
  // it has nothing.
  absl::StatusOr<std::optional<uint32_t>> ReaderOf(const View& view);
  BlockIndex::Mark MarkAt(uint64_t tick) const {
    return {tick, 0, options_.now_unix_ms(), options_.now_ms()};
  }

  const LocalStoreOptions options_;
  std::shared_ptr<prometheus::Registry> registry_;
  EventLog events_;
  StoreCounters counters_;
  LayoutRegistry layouts_;
  Tenants tenants_;
  std::shared_ptr<StorageTier> arena_;
  std::unique_ptr<Placement> placement_;
  BlockIndex& index_;

  std::mutex budget_mu_;  // guards what open sessions hold of their limits:
  std::condition_variable sessions_ended_;
  uint32_t sessions_ = 0;
  uint64_t announced_bytes_ = 0;
  uint64_t announced_blocks_ = 0;
  uint64_t staged_raw_bytes_ = 0;
  bool draining_ = false;

  std::atomic<uint64_t> next_lease_{1};
  std::unique_ptr<Scrubber> scrubber_;  // last: its thread uses all above
};

}  // namespace quire::store
