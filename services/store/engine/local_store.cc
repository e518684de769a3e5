#include "services/store/engine/local_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/host_tier.h"
#include "services/store/engine/levels.h"
#include "services/store/engine/put_session.h"

namespace quire::store {
namespace {

int64_t SteadyMs() {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch())
      .count();
}

int64_t UnixMs() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(system_clock::now().time_since_epoch())
      .count();
}

LocalStoreOptions WithDefaults(LocalStoreOptions options) {
  if (options.max_announced_bytes == 0) options.max_announced_bytes = options.host_bytes;
  if (!options.now_ms) options.now_ms = SteadyMs;
  if (!options.now_unix_ms) options.now_unix_ms = UnixMs;
  if (!options.registry) options.registry = runtime::NewRegistry();
  if (!options.faults) options.faults = std::make_shared<FaultPoints>();
  options.placement.now_ms = options.now_ms;
  options.placement.now_unix_ms = options.now_unix_ms;
  options.placement.faults = options.faults;
  options.placement.default_share = options.default_quota_bytes;
  return options;
}

std::vector<std::shared_ptr<FencedTier>> Fenced(const LocalStoreOptions& options) {
  std::vector<std::shared_ptr<FencedTier>> fenced;
  for (const std::shared_ptr<ObjectTier>& tier : options.lower) {
    fenced.push_back(std::make_shared<FencedTier>(tier, options.fence));
  }
  return fenced;
}

}  // namespace

absl::StatusOr<std::shared_ptr<LocalStore>> LocalStore::Create(LocalStoreOptions options) {
  if (options.floor_levels < 1 || options.floor_levels > kMaxLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("floor of ", options.floor_levels, " levels: 1…", kMaxLevels));
  }
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<HostTier> arena,
                         HostTier::Create(options.host_bytes, options.host_prefault));
  if (options.gpu != nullptr) {
    // Without it all works, at half of the link's speed or less.
    if (absl::Status pinned = arena->PinFor(options.gpu->device()); !pinned.ok())
      spdlog::warn("store: the host tier is not page-locked: {}", std::string(pinned.message()));
  }
  std::shared_ptr<LocalStore> store(new LocalStore(WithDefaults(std::move(options)), std::move(arena)));
  QUIRE_RETURN_IF_ERROR(store->placement_->Recover());
  store->scrubber_->Start();
  return store;
}

LocalStore::LocalStore(LocalStoreOptions options, std::shared_ptr<StorageTier> arena)
    : options_(std::move(options)),
      registry_(options_.registry),
      events_(options_.events),
      counters_(*registry_, events_),
      tenants_(options_.tenant_secret, options_.max_tenants,
               {options_.default_quota_bytes, options_.floor_levels}),
      arena_(std::move(arena)),
      placement_(std::make_unique<Placement>(options_.placement, arena_, options_.gpu, Fenced(options_),
                                             tenants_, layouts_, counters_)),
      index_(placement_->index()),
      scrubber_(std::make_unique<Scrubber>(
          options_.scrub, index_, counters_,
          [this](const BlockName& name, const StoredObjectPtr& copy) {
            return placement_->Check(name, copy);
          },
          [this] { return placement_->clock().next(); })) {}

absl::Status LocalStore::CheckCount(const char* what, size_t count, size_t limit) {
  if (count <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(count, " ", what, ": at most ", limit, " a request"));
}

absl::StatusOr<Digest> LocalStore::RegisterLayout(const Layout& layout) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const KnownLayout> known, layouts_.Register(layout));
  return known->fingerprint;
}

absl::StatusOr<LocalStore::View> LocalStore::Resolve(const Namespace& ns, const Part& part) const {
  if (ns.tenant.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tenant name of ", ns.tenant.size(), " bytes: at most ", kMaxTenantBytes));
  }
  View view;
  QUIRE_ASSIGN_OR_RETURN(view.layout, layouts_.Find(ns.fingerprint));
  QUIRE_ASSIGN_OR_RETURN(view.part, view.layout->Resolve(part));
  view.tenant = tenants_.Find(ns.tenant);
  view.tenant_name = ns.tenant;
  return view;
}

absl::StatusOr<uint32_t> LocalStore::AddTenant(const std::string& tenant) {
  if (std::optional<uint32_t> known = tenants_.Find(tenant)) return *known;
  return tenants_.Add(tenant);
}

absl::StatusOr<LookupResult> LocalStore::Lookup(const Namespace& ns, std::span<const Digest> keys,
                                                const LookupOptions& options) {
  QUIRE_RETURN_IF_ERROR(CheckCount("keys", keys.size(), kMaxKeys));
  if (options.lease.count() < 0 || options.lease.count() > kMaxLeaseMs) {
    return absl::InvalidArgumentError(
        absl::StrCat("lease of ", options.lease.count(), " ms: 0…", kMaxLeaseMs));
  }
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, options.part));
  // What other stores wrote for this tenant counts as its own.
  if (!view.tenant && placement_->has_shared()) {
    QUIRE_ASSIGN_OR_RETURN(view.tenant, AddTenant(ns.tenant));
  }
  LookupResult result;
  result.blocks.reserve(options.all ? keys.size() : std::min<size_t>(keys.size(), 1024));
  // Deeper blocks get earlier ticks, so that a chain loses its end first.
  uint64_t tick = placement_->clock().Ticks(keys.size() + 1) + keys.size();
  BlockIndex::Mark mark = MarkAt(tick);
  if (options.lease.count() > 0) {
    mark.leased_until = options_.now_ms() + options.lease.count();
    result.lease_id = next_lease_.fetch_add(1, std::memory_order_relaxed);
  }
  BlockState last;  // most blocks of a chain are of one size in one tier
  for (const Digest& key : keys) {
    BlockState state;
    mark.tick = tick--;
    if (view.tenant) state = index_.Look({*view.tenant, view.layout->id, key}, view.part, mark);
    if (state.state == BlockState::kHit) {
      bool alike = state.tier == last.tier && state.bytes == last.bytes;
      state.fetch_us = alike ? last.fetch_us : placement_->PredictUs(state.tier, state.bytes);
      last = state;
    }
    bool stop = state.state != BlockState::kHit && !options.all;
    result.blocks.push_back(std::move(state));
    if (stop) break;
  }
  if (placement_->has_shared()) LookElsewhere(view, keys, options.all, &result.blocks);
  uint64_t hits = 0;
  for (const BlockState& state : result.blocks) {
    if (state.state != BlockState::kHit) continue;
    if (result.prefix_blocks == hits && &state == &result.blocks[hits]) ++result.prefix_blocks;
    ++hits;
  }
  counters_.Lookup(hits, keys.size() - hits);
  return result;
}

void LocalStore::LookElsewhere(const View& view, std::span<const Digest> keys, bool all,
                               std::vector<BlockState>* blocks) {
  if (blocks->empty() || blocks->back().state == BlockState::kHit) {
    if (!all) return;
  }
  if (!all) {
    // From the first that is missing here; what is being written here will be here.
    if (blocks->back().state == BlockState::kPending) return;
    size_t known = blocks->size() - 1;
    blocks->pop_back();
    placement_->LookShared(*view.tenant, view.layout->fingerprint, view.part, keys.subspan(known), false,
                           blocks);
    return;
  }
  std::vector<Digest> missing;
  std::vector<size_t> places;
  for (size_t i = 0; i < blocks->size(); ++i) {
    if ((*blocks)[i].state != BlockState::kMiss) continue;
    missing.push_back(keys[i]);
    places.push_back(i);
  }
  std::vector<BlockState> states;
  placement_->LookShared(*view.tenant, view.layout->fingerprint, view.part, missing, true, &states);
  for (size_t i = 0; i < states.size(); ++i) (*blocks)[places[i]] = std::move(states[i]);
}

absl::StatusOr<BlockReader> LocalStore::Read(const View& view, const BlockIdentity& identity,
                                             const StoredObject& object, Bytes bytes) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, view.layout->Codec(object.part));
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(std::move(codec), identity, bytes));
  if (std::optional<uint64_t> offset = options_.faults->TakeParameter(Fault::kCorruptByte)) {
    uint64_t first = reader.slices().level(0).offset;
    uint64_t at = first + *offset % (bytes.size() - first);
    uint8_t flipped = bytes[at] ^ 0x10;
    QUIRE_RETURN_IF_ERROR(object.room->Write(at, {&flipped, 1}));
  }
  return reader;
}

absl::Status LocalStore::Corrupt(const BlockName& name, const StoredObjectPtr& object,
                                 const absl::Status& why) {
  placement_->DropCorrupt(name, object);
  // The reason names the block's key, which is for its client only.
  spdlog::error("store: block {} of a sequence failed verification in the host tier and was dropped",
                object->record.index);
  return absl::DataLossError(
      absl::StrCat("the stored block failed verification: ", std::string(why.message())));
}

absl::StatusOr<std::optional<uint32_t>> LocalStore::ReaderOf(const View& view) {
  if (view.tenant || !placement_->has_shared()) return view.tenant;
  return AddTenant(view.tenant_name);
}

absl::StatusOr<OpenedBlock> LocalStore::Open(const View& view, const BlockIdentity& identity) {
  QUIRE_ASSIGN_OR_RETURN(std::optional<uint32_t> tenant, ReaderOf(view));
  if (!tenant) return absl::NotFoundError("the block is not stored");
  BlockName name{*tenant, view.layout->id, identity.key};
  StoredObjectPtr object = index_.Open(name, identity, view.part, MarkAt(placement_->clock().Ticks(1)));
  if (object != nullptr) {
    QUIRE_ASSIGN_OR_RETURN(object,
                           placement_->AtHand(name, identity, *view.layout, view.part, std::move(object)));
  } else {
    QUIRE_ASSIGN_OR_RETURN(object, placement_->FetchShared(name, identity, *view.layout, view.part));
  }
  QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, object->room->Read());
  pinned.bytes = pinned.bytes.first(object->record.bytes());
  absl::StatusOr<BlockReader> reader = Read(view, identity, *object, pinned.bytes);
  if (!reader.ok()) return Corrupt(name, object, reader.status());
  return OpenedBlock{name, std::move(object), std::move(pinned), *std::move(reader)};
}

absl::Status LocalStore::Verify(const OpenedBlock& block, int level, uint32_t layer) {
  absl::Status status = block.reader.VerifySlices(level, layer, 0, block.reader.slices().heads());
  return status.ok() ? status : Corrupt(block.name, block.object, status);
}

absl::Status LocalStore::VerifyLevels(const OpenedBlock& block, int levels) {
  auto start = std::chrono::steady_clock::now();
  for (int level = 0; level < levels; ++level) {
    for (uint32_t layer = 0; layer < block.reader.slices().layers(); ++layer)
      QUIRE_RETURN_IF_ERROR(Verify(block, level, layer));
  }
  std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  ObserveRead(block.reader.slices().ObjectBytes(levels), took.count());
  return absl::OkStatus();
}

void LocalStore::ReadAhead(const View& view, std::span<const BlockIdentity> blocks, size_t at) {
  if (!view.tenant || !placement_->has_lower()) return;
  // The first call asks for all that lie ahead, each later one for the block that has come into reach.
  const size_t end = std::min(blocks.size(), at + kBlocksAhead + 1);
  for (size_t i = at == 0 ? 1 : at + kBlocksAhead; i < end; ++i)
    (void)placement_->FetchLater({*view.tenant, view.layout->id, blocks[i].key}, view.layout);
}

absl::Status LocalStore::Get(const Namespace& ns, std::span<const BlockIdentity> blocks,
                             const GetOptions& options, const GetSink& sink) {
  QUIRE_RETURN_IF_ERROR(CheckCount("blocks", blocks.size(), kMaxBlocks));
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, options.part));
  auto start = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    if (options.timeout.count() > 0 && std::chrono::steady_clock::now() - start > options.timeout) {
      return absl::DeadlineExceededError(
          absl::StrCat("Get took longer than ", options.timeout.count(), " ms"));
    }
    ReadAhead(view, blocks, i);
    absl::StatusOr<OpenedBlock> block = Open(view, blocks[i]);
    int levels = 0;
    absl::Status status = block.status();
    if (status.ok()) {
      levels = LevelsForBits(block->reader.header(), block->reader.levels(), options.max_bits);
      levels = std::min(
          levels, LevelsForError(block->reader.header(), block->reader.levels(), options.max_relative_error));
      status = VerifyLevels(*block, levels);
    }
    if (!status.ok()) {
      if (!absl::IsNotFound(status) && !absl::IsDataLoss(status)) return status;
      QUIRE_RETURN_IF_ERROR(sink.on_miss(i, status));
      continue;
    }
    QUIRE_RETURN_IF_ERROR(
        sink.on_block(i, block->pinned.bytes.first(block->reader.slices().ObjectBytes(levels))));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> LocalStore::Delete(const Namespace& ns, std::span<const Digest> keys, bool force) {
  int64_t now = options_.now_ms();
  absl::StatusOr<uint32_t> deleted = CountKeys(ns, keys, [&](const View&, const BlockName& name, size_t) {
    std::vector<StoredObjectPtr> copies = index_.Delete(name, force, now);
    placement_->Discard(name, copies, StoreCounters::Gone::kDeleted);
    return !copies.empty();
  });
  counters_.PublishTiers(placement_->Stats());
  return deleted;
}

absl::StatusOr<uint32_t> LocalStore::CountKeys(
    const Namespace& ns, std::span<const Digest> keys,
    absl::FunctionRef<bool(const View&, const BlockName&, size_t)> each) const {
  QUIRE_RETURN_IF_ERROR(CheckCount("keys", keys.size(), kMaxKeys));
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, Part{}));
  uint32_t count = 0;
  if (!view.tenant) return count;
  for (size_t i = 0; i < keys.size(); ++i) {
    count += each(view, {*view.tenant, view.layout->id, keys[i]}, i) ? 1 : 0;
  }
  return count;
}

absl::StatusOr<uint32_t> LocalStore::Pin(const Namespace& ns, std::span<const Digest> keys) {
  return CountKeys(ns, keys, [&](const View&, const BlockName& name, size_t) { return index_.Pin(name); });
}

absl::StatusOr<uint32_t> LocalStore::Unpin(const Namespace& ns, std::span<const Digest> keys) {
  return CountKeys(ns, keys, [&](const View&, const BlockName& name, size_t) { return index_.Unpin(name); });
}

absl::StatusOr<uint32_t> LocalStore::Touch(const Namespace& ns, std::span<const Digest> keys) {
  uint64_t last = placement_->clock().Ticks(keys.size() + 1) + keys.size();
  return CountKeys(
      ns, keys, [&](const View&, const BlockName& name, size_t i) { return index_.Touch(name, last - i); });
}

absl::StatusOr<uint32_t> LocalStore::Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier tier) {
  return CountKeys(ns, keys, [&](const View& view, const BlockName& name, size_t) {
    StoredObjectPtr object = index_.PeekAny(name);
    if (object == nullptr || (tier != Tier::kNone && object->tier <= tier)) return false;
    bool up = placement_->device() != nullptr && (tier == Tier::kNone || tier == Tier::kGpu);
    return up ? placement_->PromoteLater(name, view.layout) : placement_->FetchLater(name, view.layout);
  });
}

absl::StatusOr<StoreStats> LocalStore::Stats() {
  constexpr auto kOrder = std::memory_order_relaxed;
  StoreStats stats;
  stats.tiers = placement_->Stats();
  stats.tiers.front().raw_bytes = counters_.raw_bytes.load(kOrder);
  stats.lookups = counters_.lookups.load(kOrder);
  stats.hit_tokens = counters_.hit_tokens.load(kOrder);
  stats.miss_tokens = counters_.miss_tokens.load(kOrder);
  stats.blocks_stored = counters_.blocks_stored.load(kOrder);
  stats.blocks_evicted = counters_.blocks_evicted.load(kOrder);
  stats.blocks_deleted = counters_.blocks_deleted.load(kOrder);
  stats.checksum_failures = counters_.checksum_failures.load(kOrder);
  stats.levels_dropped = counters_.levels_dropped.load(kOrder);
  stats.writes_failed = counters_.writes_failed.load(kOrder);
  stats.raw_bytes_stored = counters_.bf16_bytes.load(kOrder);
  stats.put_sessions = counters_.put_sessions.load(kOrder);
  stats.layouts = layouts_.size();
  counters_.PublishTiers(stats.tiers);
  return stats;
}

absl::Status LocalStore::InjectFault(const std::string& point, uint32_t count, uint64_t parameter) {
  if (!options_.enable_faults)
    return absl::PermissionDeniedError("faults are off: start the store with --enable-faults");
  return options_.faults->Arm(point, count, parameter);
}

}  // namespace quire::store
