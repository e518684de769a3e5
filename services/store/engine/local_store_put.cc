// What a Put has to pass before its blocks are wanted.
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/levels.h"
#include "services/store/engine/local_store.h"
#include "services/store/engine/put_session.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {

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
    if (!encode && bytes > arena_->capacity_bytes()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "block ", i, ": ", bytes, " bytes can never fit the host tier of ", arena_->capacity_bytes()));
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
  uint64_t tick = placement_->clock().Ticks(blocks.size()) + blocks.size();
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    BlockName name{*view.tenant, view.layout->id, blocks[i].identity.key};
    absl::StatusOr<bool> is_wanted = index_.Announce(name, blocks[i].identity, view.part, MarkAt(--tick));
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
  if (draining_) return absl::UnavailableError("the store is draining and takes no new blocks");
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
  return BeginLocalPut(ns, blocks, options);
}

absl::StatusOr<std::unique_ptr<LocalPutSession>> LocalStore::BeginLocalPut(
    const Namespace& ns, std::span<const BlockAnnounce> blocks, const PutOptions& options) {
  QUIRE_RETURN_IF_ERROR(CheckCount("blocks", blocks.size(), kMaxBlocks));
  if (blocks.empty()) return absl::InvalidArgumentError("no block is announced");
  if (options.priority < kMinPriority || options.priority > kMaxPriority) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority ", options.priority, ": ", kMinPriority, "…", kMaxPriority));
  }
  if (options.ttl.count() < 0 || static_cast<uint64_t>(options.ttl.count()) > kMaxTtlMs) {
    return absl::InvalidArgumentError(absl::StrCat("ttl of ", options.ttl.count(), " ms: 0…", kMaxTtlMs));
  }
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
  PutTerms terms{std::move(encode), options.priority, 0};
  if (options.ttl.count() > 0) terms.expires_ms = options_.now_unix_ms() + options.ttl.count();
  QUIRE_ASSIGN_OR_RETURN(std::vector<uint32_t> wanted, AnnounceAll(view, blocks));
  if (absl::Status budget = TakeBudget(blocks, wanted, terms.encode.has_value()); !budget.ok()) {
    for (uint32_t i : wanted) index_.Unannounce({*view.tenant, view.layout->id, blocks[i].identity.key});
    return budget;
  }
  options_.faults->CrashHere(Fault::kCrashAfterAnnounce);
  return std::make_unique<LocalPutSession>(
      shared_from_this(), std::move(view), std::move(terms), std::move(codec),
      std::vector<BlockAnnounce>(blocks.begin(), blocks.end()), std::move(wanted));
}

}  // namespace quire::store
