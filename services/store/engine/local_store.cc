#include "services/store/engine/local_store.h"

#include <spdlog/spdlog.h>

#include <mutex>
#include <shared_mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/host_tier.h"
#include "services/store/engine/levels.h"
#include "services/store/engine/put_session.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {
namespace {

int64_t SteadyMs() {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch())
      .count();
}

LocalStoreOptions WithDefaults(LocalStoreOptions options) {
  if (options.max_announced_bytes == 0) options.max_announced_bytes = options.host_bytes;
  if (!options.now_ms) options.now_ms = SteadyMs;
  if (!options.registry) options.registry = runtime::NewRegistry();
  return options;
}

absl::Status CheckCount(const char* what, size_t count, size_t limit) {
  if (count <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(count, " ", what, ": at most ", limit, " a request"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<LocalStore>> LocalStore::Create(LocalStoreOptions options) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<HostTier> tier,
                         HostTier::Create(options.host_bytes, options.host_prefault));
  return std::shared_ptr<LocalStore>(new LocalStore(WithDefaults(std::move(options)), std::move(tier)));
}

LocalStore::LocalStore(LocalStoreOptions options, std::shared_ptr<StorageTier> tier)
    : options_(std::move(options)),
      registry_(options_.registry),
      counters_(*registry_),
      tier_(std::move(tier)),
      policy_(std::make_unique<LruPolicy>()),
      index_(policy_.get()) {}

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
  std::shared_lock lock(tenants_mu_);
  if (auto it = tenants_.find(ns.tenant); it != tenants_.end()) view.tenant = it->second;
  return view;
}

absl::StatusOr<uint32_t> LocalStore::AddTenant(const std::string& tenant) {
  std::lock_guard lock(tenants_mu_);
  if (auto it = tenants_.find(tenant); it != tenants_.end()) return it->second;
  if (tenants_.size() >= options_.max_tenants) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the store knows ", options_.max_tenants, " tenants, its limit"));
  }
  uint32_t id = static_cast<uint32_t>(tenants_.size());
  tenants_.emplace(tenant, id);
  return id;
}

absl::StatusOr<LookupResult> LocalStore::Lookup(const Namespace& ns, std::span<const Digest> keys,
                                                const LookupOptions& options) {
  QUIRE_RETURN_IF_ERROR(CheckCount("keys", keys.size(), kMaxKeys));
  if (options.lease.count() < 0 || options.lease.count() > kMaxLeaseMs) {
    return absl::InvalidArgumentError(
        absl::StrCat("lease of ", options.lease.count(), " ms: 0…", kMaxLeaseMs));
  }
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, options.part));
  LookupResult result;
  result.blocks.reserve(options.all ? keys.size() : std::min<size_t>(keys.size(), 1024));
  BlockIndex::Mark mark;
  if (options.lease.count() > 0) {
    mark.leased_until = options_.now_ms() + options.lease.count();
    result.lease_id = next_lease_.fetch_add(1, std::memory_order_relaxed);
  }
  // Deeper blocks get earlier ticks, so that a chain loses its end first.
  uint64_t tick = policy_->Ticks(keys.size() + 1) + keys.size();
  double us_per_byte = read_us_per_byte_.load(std::memory_order_relaxed);
  uint64_t hits = 0;
  for (const Digest& key : keys) {
    BlockState state;
    mark.tick = tick--;
    if (view.tenant) state = index_.Look({*view.tenant, view.layout->id, key}, view.part, mark);
    if (state.state == BlockState::kHit) {
      state.fetch_us = 1 + static_cast<uint64_t>(static_cast<double>(state.bytes) * us_per_byte);
      if (hits == result.blocks.size()) ++result.prefix_blocks;
      ++hits;
    }
    bool stop = state.state != BlockState::kHit && !options.all;
    result.blocks.push_back(std::move(state));
    if (stop) break;
  }
  counters_.Lookup(hits, keys.size() - hits);
  return result;
}

absl::Status LocalStore::CheckAnnounced(const View& view, std::span<const BlockAnnounce> blocks,
                                        bool encode) const {
  ObjectSizes sizes;
  if (encode) {
    sizes.least = sizes.most = RawFormBytes(view.layout->layout, view.part, view.layout->layout.dtype);
  } else {
    QUIRE_ASSIGN_OR_RETURN(sizes, PossibleObjectSizes(view.layout->layout, view.part));
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    uint64_t bytes = blocks[i].bytes;
    if (bytes < sizes.least || bytes > sizes.most) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", i, ": ", bytes, " bytes announced; ", encode ? "raw KV" : "an object",
                       " of this layout and part has ", sizes.least, "…", sizes.most));
    }
    if (!encode && bytes > tier_->capacity_bytes()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "block ", i, ": ", bytes, " bytes can never fit the host tier of ", tier_->capacity_bytes()));
    }
  }
  return absl::OkStatus();
}

// A parent is earlier in the list, or stored, or (of index 0 only) the chain's root, which is neither.
absl::Status LocalStore::CheckChain(const View& view, std::span<const BlockAnnounce> blocks) {
  absl::flat_hash_map<Digest, uint32_t> earlier;  // key → index within the sequence
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BlockIdentity& identity = blocks[i].identity;
    std::optional<uint32_t> parent_index;
    if (auto it = earlier.find(identity.parent); it != earlier.end()) {
      parent_index = it->second;
    } else if (auto stored = index_.StoredIndex({*view.tenant, view.layout->id, identity.parent});
               stored.ok()) {
      parent_index = *stored;
    }
    if (!parent_index && identity.index > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("block ", i, " (index ", identity.index,
                       "): its parent is neither stored nor earlier in the list"));
    }
    if (parent_index && (identity.index == 0 || *parent_index != identity.index - 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", i, ": index ", identity.index, " under a parent of index ", *parent_index));
    }
    if (!earlier.emplace(identity.key, identity.index).second) {
      return absl::InvalidArgumentError(absl::StrCat("block ", i, ": its key is in the list twice"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> LocalStore::AnnounceAll(const View& view,
                                                              std::span<const BlockAnnounce> blocks) {
  std::vector<uint32_t> wanted;
  uint64_t tick = policy_->Ticks(blocks.size()) + blocks.size();
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    BlockName name{*view.tenant, view.layout->id, blocks[i].identity.key};
    absl::StatusOr<bool> is_wanted = index_.Announce(name, blocks[i].identity, view.part, --tick);
    if (!is_wanted.ok()) {
      for (uint32_t w : wanted) index_.Unannounce({*view.tenant, view.layout->id, blocks[w].identity.key});
      return absl::Status(is_wanted.status().code(),
                          absl::StrCat("block ", i, ": ", std::string(is_wanted.status().message())));
    }
    if (*is_wanted) wanted.push_back(i);
  }
  return wanted;
}

absl::Status LocalStore::TakeBudget(std::span<const BlockAnnounce> blocks, std::span<const uint32_t> wanted,
                                    bool encode) {
  uint64_t bytes = 0;
  if (!encode) {
    for (uint32_t i : wanted) bytes += blocks[i].bytes;
  }
  std::lock_guard lock(budget_mu_);
  if (sessions_ >= options_.max_put_sessions) {
    return absl::ResourceExhaustedError(absl::StrCat(sessions_, " put sessions are open, the limit"));
  }
  if (announced_bytes_ + bytes > options_.max_announced_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("open put sessions have announced ", announced_bytes_,
                                                     " bytes; ", bytes, " more would pass the limit of ",
                                                     options_.max_announced_bytes));
  }
  if (announced_blocks_ + wanted.size() > options_.max_announced_blocks) {
    return absl::ResourceExhaustedError(
        absl::StrCat("open put sessions have announced ", announced_blocks_, " blocks; ", wanted.size(),
                     " more would pass the limit of ", options_.max_announced_blocks));
  }
  ++sessions_;
  announced_bytes_ += bytes;
  announced_blocks_ += wanted.size();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PutSession>> LocalStore::BeginPut(const Namespace& ns,
                                                                 std::span<const BlockAnnounce> blocks,
                                                                 const PutOptions& options) {
  QUIRE_RETURN_IF_ERROR(CheckCount("blocks", blocks.size(), kMaxBlocks));
  if (blocks.empty()) return absl::InvalidArgumentError("no block is announced");
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, options.part));
  std::optional<CodecSpec> encode;
  if (!options.encode.empty()) {
    QUIRE_ASSIGN_OR_RETURN(encode, CodecSpec::Parse(options.encode));
    if (encode->last_named_layer() >= static_cast<int64_t>(view.layout->layout.layers.size())) {
      return absl::InvalidArgumentError(absl::StrCat("codec ", options.encode, " names layer ",
                                                     encode->last_named_layer(), "; the layout has ",
                                                     view.layout->layout.layers.size()));
    }
  }
  QUIRE_RETURN_IF_ERROR(CheckAnnounced(view, blocks, encode.has_value()));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, view.layout->Codec(view.part));
  if (!view.tenant) {
    QUIRE_ASSIGN_OR_RETURN(view.tenant, AddTenant(ns.tenant));
  }
  QUIRE_RETURN_IF_ERROR(CheckChain(view, blocks));
  QUIRE_ASSIGN_OR_RETURN(std::vector<uint32_t> wanted, AnnounceAll(view, blocks));
  if (absl::Status budget = TakeBudget(blocks, wanted, encode.has_value()); !budget.ok()) {
    for (uint32_t i : wanted) index_.Unannounce({*view.tenant, view.layout->id, blocks[i].identity.key});
    return budget;
  }
  return std::make_unique<LocalPutSession>(
      shared_from_this(), std::move(view), std::move(encode), std::move(codec),
      std::vector<BlockAnnounce>(blocks.begin(), blocks.end()), std::move(wanted));
}

void LocalStore::Removed(const BlockName& name, const StoredObject& object, StoreCounters::Gone why) {
  counters_.Removed(object, why);
  events_.Append(name.tenant, {name.key, name.layout, StoreEvent::Kind::kRemoved, object.tier, 0});
}

bool LocalStore::EvictOne() {
  // A block used while this looks for one is passed over; where everything is in use all the time, the next
  // round takes one all the same.
  constexpr int kRounds = 3;
  for (int round = 0; round < kRounds; ++round) {
    uint64_t before = policy_->Ticks(1);
    int64_t now = options_.now_ms();
    while (std::optional<BlockName> victim = policy_->PopVictim(before, now)) {
      std::vector<StoredObjectPtr> objects = index_.Evict(*victim, now);
      for (const StoredObjectPtr& object : objects) Removed(*victim, *object, StoreCounters::Gone::kEvicted);
      if (!objects.empty()) return true;
    }
  }
  return false;
}

absl::StatusOr<std::shared_ptr<TierObject>> LocalStore::StageWithEviction(uint64_t bytes) {
  while (true) {
    absl::StatusOr<std::shared_ptr<TierObject>> room = tier_->Stage(bytes);
    if (room.ok() || !absl::IsResourceExhausted(room.status())) return room;
    if (!EvictOne()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no room for ", bytes, " bytes: what is left is in use (", tier_->used_bytes(), " of ",
                       tier_->capacity_bytes(), " bytes)"));
    }
  }
}

bool LocalStore::TakeFault() {
  int64_t left = corrupt_next_.load(std::memory_order_relaxed);
  while (left > 0 && !corrupt_next_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
  }
  return left > 0;
}

absl::StatusOr<BlockReader> LocalStore::Verified(const View& view, const BlockIdentity& identity,
                                                 const StoredObject& object, Bytes bytes) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, view.layout->Codec(object.part));
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(std::move(codec), identity, bytes));
  if (TakeFault()) {
    uint64_t at = reader.slices().level(0).offset;
    uint8_t flipped = bytes[at] ^ 0x10;
    QUIRE_RETURN_IF_ERROR(object.room->Write(at, {&flipped, 1}));
  }
  QUIRE_RETURN_IF_ERROR(reader.Verify());
  return reader;
}

absl::StatusOr<OpenedBlock> LocalStore::Open(const View& view, const BlockIdentity& identity) {
  StoredObjectPtr object;
  BlockName name{view.tenant.value_or(0), view.layout->id, identity.key};
  if (view.tenant) object = index_.Open(name, identity, view.part, policy_->Ticks(1));
  if (object == nullptr) return absl::NotFoundError("the block is not stored");

  auto start = std::chrono::steady_clock::now();
  QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, object->room->Read());
  absl::StatusOr<BlockReader> reader = Verified(view, identity, *object, pinned.bytes);
  if (!reader.ok()) {
    if (index_.Drop(name, object)) Removed(name, *object, StoreCounters::Gone::kCorrupt);
    // The reason names the block's key, which is for its client only.
    spdlog::error(
        "store: block {} of a sequence of layout {} failed verification in the host tier and was dropped",
        identity.index, view.layout->fingerprint.Hex().substr(0, 16));
    return absl::DataLossError(
        absl::StrCat("the stored block failed verification: ", std::string(reader.status().message())));
  }
  std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  double seen = read_us_per_byte_.load(std::memory_order_relaxed);
  read_us_per_byte_.store(0.9 * seen + 0.1 * took.count() / static_cast<double>(object->bytes),
                          std::memory_order_relaxed);
  return OpenedBlock{std::move(object), std::move(pinned), *std::move(reader)};
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
    absl::StatusOr<OpenedBlock> block = Open(view, blocks[i]);
    if (!block.ok()) {
      if (!absl::IsNotFound(block.status()) && !absl::IsDataLoss(block.status())) return block.status();
      QUIRE_RETURN_IF_ERROR(sink.on_miss(i, block.status()));
      continue;
    }
    int levels = LevelsForBits(block->reader.header(), block->reader.levels(), options.max_bits);
    QUIRE_RETURN_IF_ERROR(
        sink.on_block(i, block->pinned.bytes.first(block->reader.slices().ObjectBytes(levels))));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> LocalStore::Delete(const Namespace& ns, std::span<const Digest> keys, bool force) {
  QUIRE_RETURN_IF_ERROR(CheckCount("keys", keys.size(), kMaxKeys));
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, Part{}));
  uint32_t deleted = 0;
  if (!view.tenant) return deleted;
  int64_t now = options_.now_ms();
  for (const Digest& key : keys) {
    BlockName name{*view.tenant, view.layout->id, key};
    std::vector<StoredObjectPtr> objects = index_.Delete(name, force, now);
    for (const StoredObjectPtr& object : objects) Removed(name, *object, StoreCounters::Gone::kDeleted);
    deleted += objects.empty() ? 0 : 1;
  }
  return deleted;
}

absl::StatusOr<uint32_t> LocalStore::CountKeys(const Namespace& ns, std::span<const Digest> keys,
                                               absl::FunctionRef<bool(const BlockName&, size_t)> each) const {
  QUIRE_RETURN_IF_ERROR(CheckCount("keys", keys.size(), kMaxKeys));
  QUIRE_ASSIGN_OR_RETURN(View view, Resolve(ns, Part{}));
  uint32_t count = 0;
  if (!view.tenant) return count;
  for (size_t i = 0; i < keys.size(); ++i) count += each({*view.tenant, view.layout->id, keys[i]}, i) ? 1 : 0;
  return count;
}

absl::StatusOr<uint32_t> LocalStore::Pin(const Namespace& ns, std::span<const Digest> keys) {
  return CountKeys(ns, keys, [&](const BlockName& name, size_t) { return index_.Pin(name); });
}

absl::StatusOr<uint32_t> LocalStore::Unpin(const Namespace& ns, std::span<const Digest> keys) {
  return CountKeys(ns, keys, [&](const BlockName& name, size_t) { return index_.Unpin(name); });
}

absl::StatusOr<uint32_t> LocalStore::Touch(const Namespace& ns, std::span<const Digest> keys) {
  uint64_t last = policy_->Ticks(keys.size() + 1) + keys.size();
  return CountKeys(ns, keys, [&](const BlockName& name, size_t i) { return index_.Touch(name, last - i); });
}

absl::StatusOr<uint32_t> LocalStore::Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier) {
  // There is one tier: all that is stored is in the fastest already.
  return CountKeys(ns, keys, [](const BlockName&, size_t) { return false; });
}

absl::StatusOr<StoreStats> LocalStore::Stats() {
  constexpr auto kOrder = std::memory_order_relaxed;
  StoreStats stats;
  stats.tiers.push_back({tier_->kind(), tier_->capacity_bytes(), tier_->used_bytes(),
                         counters_.blocks.load(kOrder), counters_.raw_bytes.load(kOrder)});
  stats.lookups = counters_.lookups.load(kOrder);
  stats.hit_tokens = counters_.hit_tokens.load(kOrder);
  stats.miss_tokens = counters_.miss_tokens.load(kOrder);
  stats.blocks_stored = counters_.blocks_stored.load(kOrder);
  stats.blocks_evicted = counters_.blocks_evicted.load(kOrder);
  stats.blocks_deleted = counters_.blocks_deleted.load(kOrder);
  stats.checksum_failures = counters_.checksum_failures.load(kOrder);
  stats.raw_bytes_stored = counters_.bf16_bytes.load(kOrder);
  stats.put_sessions = counters_.put_sessions.load(kOrder);
  stats.layouts = layouts_.size();
  return stats;
}

absl::Status LocalStore::InjectFault(const std::string& point, uint32_t count) {
  if (!options_.enable_faults)
    return absl::PermissionDeniedError("faults are off: start the store with --enable-faults");
  if (point != "corrupt_byte")
    return absl::NotFoundError(absl::StrCat("no fault point is called ", point, "; there is corrupt_byte"));
  corrupt_next_.store(count, std::memory_order_relaxed);
  return absl::OkStatus();
}

}  // namespace quire::store
