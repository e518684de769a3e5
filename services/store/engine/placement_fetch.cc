// What is brought back: from the tiers below the arena, verified on the way, once for all who wait for it.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/placement.h"

namespace quire::store {
namespace {

// Room outside the arena, for an object that was fetched while all of the arena was in use. It lives as long
// as its readers.
class DetachedRoom : public TierObject {
 public:
  DetachedRoom(uint64_t bytes, std::shared_ptr<std::atomic<uint64_t>> account)
      : bytes_(bytes),
        data_(std::make_unique_for_overwrite<uint8_t[]>(bytes)),
        account_(std::move(account)) {}
  ~DetachedRoom() override { account_->fetch_sub(bytes_, std::memory_order_relaxed); }

  uint64_t bytes() const override { return bytes_; }
  uint64_t charged() const override { return bytes_; }
  absl::Status Write(uint64_t offset, Bytes data) override {
    if (offset > bytes_ || data.size() > bytes_ - offset) {
      return absl::OutOfRangeError(
          absl::StrCat("write of ", data.size(), " bytes at ", offset, " into an object of ", bytes_));
    }
    std::memcpy(data_.get() + offset, data.data(), data.size());
    return absl::OkStatus();
  }
  absl::StatusOr<PinnedBytes> Read() override { return PinnedBytes{nullptr, {data_.get(), bytes_}}; }
  MutableBytes Fill() override { return {data_.get(), bytes_}; }
  void Seal() override {}
  void Shrink(uint64_t) override {}  // never in the index, so never cut

 private:
  const uint64_t bytes_;
  std::unique_ptr<uint8_t[]> data_;
  std::shared_ptr<std::atomic<uint64_t>> account_;
};

// What was found of a block in a tier that others write to, that serves a reader: the smallest that covers.
const std::pair<Part, ObjectRecord>* Serving(const ObjectTier::FindRequest& request,
                                             const Digest& fingerprint, const Part& part,
                                             int64_t now_unix_ms) {
  const std::pair<Part, ObjectRecord>* best = nullptr;
  for (const auto& found : request.found) {
    const ObjectRecord& record = found.second;
    if (!found.first.Covers(part) || record.fingerprint != fingerprint) continue;
    if (record.expires_ms != 0 && record.expires_ms <= now_unix_ms) continue;
    if (best == nullptr || record.bytes() < best->second.bytes()) best = &found;
  }
  return best;
}

}  // namespace

absl::Status Placement::VerifyBytes(const KnownLayout& layout, const BlockIdentity& identity,
                                    const Part& part, Bytes bytes) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, layout.Codec(part));
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(std::move(codec), identity, bytes));
  return reader.Verify();
}

struct Placement::Flight {
  std::mutex mu;
  std::condition_variable landed;
  std::optional<absl::StatusOr<StoredObjectPtr>> result;  // guarded by mu
};

absl::StatusOr<StoredObjectPtr> Placement::Fly(const BlockName& name, const Part& part, Tier to,
                                               absl::FunctionRef<absl::StatusOr<StoredObjectPtr>()> fetch) {
  std::shared_ptr<Flight> flight;
  bool first = false;
  {
    std::lock_guard lock(flights_mu_);
    std::shared_ptr<Flight>& slot = flights_[{name, {part, to}}];
    if (first = slot == nullptr; first) slot = std::make_shared<Flight>();
    flight = slot;
  }
  if (!first) {
    counters_.FetchShared();
    std::unique_lock lock(flight->mu);
    flight->landed.wait(lock, [&] { return flight->result.has_value(); });
    return *flight->result;
  }
  absl::StatusOr<StoredObjectPtr> result = fetch();
  {
    std::lock_guard lock(flights_mu_);
    flights_.erase({name, {part, to}});
  }
  std::lock_guard lock(flight->mu);
  flight->result = result;
  flight->landed.notify_all();
  return result;
}

absl::StatusOr<std::shared_ptr<TierObject>> Placement::RoomToFetch(uint32_t tenant, uint64_t bytes) {
  while (true) {
    absl::StatusOr<std::shared_ptr<TierObject>> room = arena_->Stage(bytes);
    if (room.ok()) return room;
    if (bytes <= arena_->capacity_bytes() && FreeSome(arena_->kind(), tenant)) continue;
    if (detached_bytes_->fetch_add(bytes, std::memory_order_relaxed) + bytes <= options_.max_detached_bytes) {
      return std::make_shared<DetachedRoom>(bytes, detached_bytes_);
    }
    detached_bytes_->fetch_sub(bytes, std::memory_order_relaxed);
    return absl::ResourceExhaustedError(
        absl::StrCat("no room to read ", bytes, " bytes into: the arena is in use and ",
                     options_.max_detached_bytes, " bytes beside it as well"));
  }
}

absl::StatusOr<StoredObjectPtr> Placement::FetchFrom(Lower& lower, const BlockName& name,
                                                     const BlockIdentity& identity, const KnownLayout& layout,
                                                     const Part& part, const ObjectRecord& record) {
  auto object = std::make_shared<StoredObject>();
  object->part = part;
  object->tier = arena_->kind();
  object->record = record;
  QUIRE_ASSIGN_OR_RETURN(object->room, RoomToFetch(name.tenant, record.bytes()));
  ObjectTier::ReadRequest request{
      Named(name, part), static_cast<int>(record.levels), object->room->Fill(), {}};
  lower.tier->Read({&request, 1});
  QUIRE_RETURN_IF_ERROR(request.status);
  if (absl::Status verified = VerifyBytes(layout, identity, part, request.out); !verified.ok()) {
    return absl::DataLossError(
        absl::StrCat("the stored block failed verification: ", std::string(verified.message())));
  }
  object->charged = object->room->charged();
  object->room->Seal();
  counters_.Fetched(lower.tier->kind(), record.bytes());
  return object;
}

absl::StatusOr<StoredObjectPtr> Placement::AtHand(const BlockName& name, const BlockIdentity& identity,
                                                  const KnownLayout& layout, const Part& part,
                                                  StoredObjectPtr object) {
  constexpr int kLooks = 8;  // copies that vanish or change under our hands
  for (int look = 0; look < kLooks && object != nullptr; ++look) {
    const Tier here = arena_->kind();
    if (object->tier == here) return object;
    absl::StatusOr<StoredObjectPtr> fetched =
        Fly(name, object->part, here, [&]() -> absl::StatusOr<StoredObjectPtr> {
          // It may be in the arena too, or have come there since this reader looked.
          if (StoredObjectPtr now = index_->PeekIn(name, part, here)) return now;
          StoredObjectPtr copy;
          if (Lower* lower = LowerOf(object->tier)) {
            QUIRE_ASSIGN_OR_RETURN(copy,
                                   FetchFrom(*lower, name, identity, layout, object->part, object->record));
          } else {
            QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<TierObject> room,
                                   RoomToFetch(name.tenant, object->record.bytes()));
            QUIRE_ASSIGN_OR_RETURN(copy, CopyDown(identity, layout, *object, std::move(room)));
          }
          if (dynamic_cast<DetachedRoom*>(copy->room.get()) != nullptr) return copy;
          StoredObjectPtr kept = index_->AddCopy(name, copy);
          if (kept == copy) counters_.Moved(name, copy->tier, copy->record.levels);
          return kept != nullptr ? kept : copy;
        });
    if (fetched.ok()) return fetched;
    StoredObjectPtr now = index_->PeekIn(name, object->part, object->tier);
    if (now == object) {  // not merely cut or evicted meanwhile
      if (absl::IsDataLoss(fetched.status())) {
        spdlog::error(
            "store: block {} of a sequence of layout {} failed verification in the {} tier and was dropped",
            identity.index, layout.fingerprint.Hex().substr(0, 16), TierName(object->tier));
        DropCorrupt(name, object);
        return fetched.status();
      }
      if (absl::IsNotFound(fetched.status())) {
        if (index_->Drop(name, object)) Discard(name, {object}, StoreCounters::Gone::kVanished);
      } else {
        return absl::NotFoundError(absl::StrCat("the block cannot be read from the ", TierName(object->tier),
                                                " tier now: ", std::string(fetched.status().message())));
      }
    }
    object = index_->Peek(name, part);
  }
  return absl::NotFoundError("the block is not stored");
}

absl::StatusOr<StoredObjectPtr> Placement::FetchShared(const BlockName& name, const BlockIdentity& identity,
                                                       const KnownLayout& layout, const Part& part) {
  if (shared_ == nullptr) return absl::NotFoundError("the block is not stored");
  Lower* lower = LowerOf(shared_->kind());
  return Fly(name, part, arena_->kind(), [&]() -> absl::StatusOr<StoredObjectPtr> {
    ObjectTier::FindRequest request{tenants_.StorageName(name.tenant), name.key, {}, {}};
    shared_->Find({&request, 1});
    const auto* found =
        request.status.ok() ? Serving(request, layout.fingerprint, part, options_.now_unix_ms()) : nullptr;
    if (found == nullptr || found->second.parent != identity.parent ||
        found->second.index != identity.index) {
      return absl::NotFoundError("the block is not stored");
    }
    absl::StatusOr<StoredObjectPtr> copy =
        FetchFrom(*lower, name, identity, layout, found->first, found->second);
    if (absl::IsDataLoss(copy.status())) {
      counters_.CorruptElsewhere();
      ObjectName object = Named(name, found->first);
      (void)shared_->Remove({&object, 1});  // as good as gone: no reader takes it
      spdlog::error(
          "store: block {} of a sequence of layout {} failed verification in the redis tier and was dropped",
          identity.index, layout.fingerprint.Hex().substr(0, 16));
    }
    QUIRE_RETURN_IF_ERROR(copy.status());
    if (dynamic_cast<DetachedRoom*>((*copy)->room.get()) != nullptr) return copy;
    if (absl::Status reserved = Reserve(name.tenant, (*copy)->record.bytes()); !reserved.ok())
      return reserved;
    absl::StatusOr<StoredObjectPtr> kept = index_->Adopt(name, identity, *copy, clock_.Ticks(1));
    tenants_.Unreserve(name.tenant, (*copy)->record.bytes());
    QUIRE_RETURN_IF_ERROR(kept.status());
    NoteExpiry(name, (*copy)->record.expires_ms);
    return (*kept)->tier == arena_->kind() ? kept : copy;
  });
}

void Placement::LookShared(uint32_t tenant, const Digest& fingerprint, const Part& part,
                           std::span<const Digest> keys, bool all, std::vector<BlockState>* states) {
  constexpr size_t kMostAtOnce = 1024;
  size_t window = all ? kMostAtOnce : 16;
  Digest storage_name = tenants_.StorageName(tenant);
  for (size_t at = 0; at < keys.size(); at += window, window = std::min(2 * window, kMostAtOnce)) {
    std::vector<ObjectTier::FindRequest> requests;
    for (const Digest& key : keys.subspan(at, std::min(window, keys.size() - at))) {
      requests.push_back({storage_name, key, {}, {}});
    }
    shared_->Find(requests);
    for (const ObjectTier::FindRequest& request : requests) {
      BlockState state;
      const auto* found =
          request.status.ok() ? Serving(request, fingerprint, part, options_.now_unix_ms()) : nullptr;
      if (found != nullptr) {
        const ObjectRecord& record = found->second;
        state = {BlockState::kHit, shared_->kind(), record.levels,
                 record.codec,     record.bytes(),  PredictUs(shared_->kind(), record.bytes())};
      }
      states->push_back(std::move(state));
      if (found == nullptr && !all) return;
    }
  }
}

bool Placement::FetchLater(const BlockName& name, std::shared_ptr<const KnownLayout> layout) {
  StoredObjectPtr object = index_->PeekAny(name);
  if (object == nullptr || LowerOf(object->tier) == nullptr) return false;
  return mover_->Submit(Mover::kFetch, [this, name, layout = std::move(layout), object = std::move(object)] {
    BlockIdentity identity{object->record.parent, name.key, object->record.index};
    (void)AtHand(name, identity, *layout, object->part, object);  // a later Get asks again and tells why
  });
}

absl::Status Placement::Check(const BlockName& name, const StoredObjectPtr& copy) {
  BlockIdentity identity{copy->record.parent, name.key, copy->record.index};
  std::shared_ptr<const KnownLayout> layout = layouts_.ByNumber(name.layout);
  absl::Status verified;
  if (Lower* lower = LowerOf(copy->tier)) {
    std::vector<uint8_t> bytes(copy->record.bytes());
    ObjectTier::ReadRequest request{
        Named(name, copy->part), static_cast<int>(copy->record.levels), bytes, {}};
    lower->tier->Read({&request, 1});
    verified = request.status;
    if (verified.ok() && layout != nullptr) verified = VerifyBytes(*layout, identity, copy->part, bytes);
    if (absl::IsNotFound(request.status) && index_->Drop(name, copy))
      Discard(name, {copy}, StoreCounters::Gone::kVanished);
    if (!request.status.ok() && !absl::IsDataLoss(request.status)) return request.status;
  } else {
    QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, copy->room->Read());
    if (std::optional<uint64_t> offset = options_.faults->TakeParameter(Fault::kCorruptByte)) {
      uint64_t at = *offset % pinned.bytes.size();
      uint8_t flipped = pinned.bytes[at] ^ 0x10;
      QUIRE_RETURN_IF_ERROR(copy->room->Write(at, {&flipped, 1}));
      QUIRE_ASSIGN_OR_RETURN(pinned, copy->room->Read());  // of a device, these are copies
    }
    verified = VerifyBytes(*layout, identity, copy->part, pinned.bytes.first(copy->record.bytes()));
  }
  if (verified.ok()) return verified;
  DropCorrupt(name, copy);
  return absl::DataLossError(std::string(verified.message()));
}

}  // namespace quire::store
