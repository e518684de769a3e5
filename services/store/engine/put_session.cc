#include "services/store/engine/put_session.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {
namespace {

// Of a Write's bytes: few enough to be checked while a cache has them.
constexpr size_t kCheckedAtOnce = 128 << 10;

}  // namespace

LocalPutSession::LocalPutSession(std::shared_ptr<LocalStore> store, LocalStore::View view, PutTerms terms,
                                 std::shared_ptr<const BlockCodec> codec, std::vector<BlockAnnounce> blocks,
                                 std::vector<uint32_t> wanted)
    : store_(std::move(store)),
      view_(std::move(view)),
      terms_(std::move(terms)),
      codec_(std::move(codec)),
      progress_(blocks, wanted),
      slots_(blocks.size()),
      wanted_(std::move(wanted)) {
  for (size_t i = 0; i < blocks.size(); ++i) slots_[i].announced = blocks[i];
  for (uint32_t i : wanted_) slots_[i].state = Slot::kOpen;
  store_->counters_.SessionOpened();
}

LocalPutSession::~LocalPutSession() {
  for (uint32_t i : wanted_) {
    if (slots_[i].state == Slot::kOpen) Close(slots_[i], Slot::kFailed);
  }
  store_->counters_.SessionClosed();
  store_->counters_.PublishTiers(store_->placement_->Stats());
  std::lock_guard lock(store_->budget_mu_);
  if (--store_->sessions_ == 0) store_->sessions_ended_.notify_all();
}

void LocalPutSession::ReleaseRaw(Slot& slot) {
  if (slot.raw.empty()) return;
  std::lock_guard lock(store_->budget_mu_);
  store_->staged_raw_bytes_ -= slot.raw.size();
  slot.raw = {};
}

void LocalPutSession::Close(Slot& slot, Slot::State state) {
  slot.state = state;
  slot.check.reset();
  slot.pinned = {};
  slot.room.reset();
  ReleaseRaw(slot);
  if (slot.reserved > 0) store_->tenants_.Unreserve(*view_.tenant, slot.reserved);
  slot.reserved = 0;
  if (slot.holds_parent) store_->index_.ReleaseParent(NameOf(slot.announced.identity.parent));
  slot.holds_parent = false;
  store_->index_.Unannounce(NameOf(slot.announced.identity.key));
  std::lock_guard lock(store_->budget_mu_);
  if (!terms_.encode) store_->announced_bytes_ -= slot.announced.bytes;
  --store_->announced_blocks_;
}

absl::Status LocalPutSession::HoldParent(Slot& slot) {
  if (slot.announced.identity.index == 0 || slot.holds_parent) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(store_->index_.HoldParent(NameOf(slot.announced.identity.parent)));
  slot.holds_parent = true;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<TierObject>> LocalPutSession::Stage(Slot& slot, uint64_t bytes) {
  QUIRE_RETURN_IF_ERROR(store_->placement_->Reserve(*view_.tenant, bytes));
  slot.reserved = bytes;
  return store_->placement_->Stage(*view_.tenant, bytes);
}

absl::Status LocalPutSession::TakeCodes(Slot& slot, uint64_t offset, Bytes data) {
  if (slot.check == nullptr) {
    QUIRE_ASSIGN_OR_RETURN(slot.pinned, slot.room->Read());
    slot.check = std::make_unique<ArrivalCheck>(codec_, slot.announced.identity, slot.pinned.bytes);
  }
  while (!data.empty()) {
    Bytes some = data.first(std::min(data.size(), kCheckedAtOnce));
    QUIRE_RETURN_IF_ERROR(slot.room->Write(offset, some));
    offset += some.size();
    slot.check->Arrived(offset);
    data = data.subspan(some.size());
  }
  return absl::OkStatus();
}

absl::Status LocalPutSession::Begin(Slot& slot) {
  // The parent must not go while room is made for its child. If it is not there yet (written in this session,
  // out of order), Commit asks again.
  (void)HoldParent(slot);
  if (!terms_.encode) {
    QUIRE_ASSIGN_OR_RETURN(slot.room, Stage(slot, slot.announced.bytes));
    return absl::OkStatus();
  }
  std::lock_guard lock(store_->budget_mu_);
  if (store_->staged_raw_bytes_ + slot.announced.bytes > store_->options_.max_staged_raw_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "raw KV waiting to be encoded: ", store_->staged_raw_bytes_, " bytes and ", slot.announced.bytes,
        " more would pass the limit of ", store_->options_.max_staged_raw_bytes));
  }
  slot.raw.resize(slot.announced.bytes);
  store_->staged_raw_bytes_ += slot.announced.bytes;
  return absl::OkStatus();
}

absl::Status LocalPutSession::Write(uint32_t block, uint64_t offset, Bytes data) {
  QUIRE_RETURN_IF_ERROR(progress_.Advance(block, offset, data.size()));
  Slot& slot = slots_[block];
  if (data.empty() || slot.state == Slot::kFailed)
    return absl::OkStatus();  // of a failed block, Commit tells why
  if (offset == 0) {
    if (slot.failure = Begin(slot); !slot.failure.ok()) {
      Close(slot, Slot::kFailed);
      return absl::OkStatus();
    }
    store_->options_.faults->CrashHere(Fault::kCrashAfterRoom);
  }
  if (terms_.encode) {
    std::copy(data.begin(), data.end(), slot.raw.begin() + static_cast<ptrdiff_t>(offset));
  } else {
    QUIRE_RETURN_IF_ERROR(TakeCodes(slot, offset, data));
  }
  if (offset + data.size() < slot.announced.bytes) store_->options_.faults->CrashHere(Fault::kCrashAmidBytes);
  return absl::OkStatus();
}

absl::Status LocalPutSession::Encode(Slot& slot) {
  std::vector<LayerView> views =
      RawFormViews(view_.layout->layout, view_.part, view_.layout->layout.dtype, slot.raw.data());
  std::vector<uint8_t> object;
  QUIRE_RETURN_IF_ERROR(codec_->Encode(*terms_.encode, slot.announced.identity, views, &object));
  QUIRE_ASSIGN_OR_RETURN(slot.room, Stage(slot, object.size()));
  ReleaseRaw(slot);
  return TakeCodes(slot, 0, object);
}

absl::StatusOr<std::shared_ptr<StoredObject>> LocalPutSession::Verified(Slot& slot) {
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, slot.check->Finish());
  slot.check.reset();
  slot.pinned = {};
  std::shared_ptr<StoredObject> object = Described(slot, reader.header(), reader.levels());
  object->tier = store_->arena_->kind();
  return object;
}

std::shared_ptr<StoredObject> LocalPutSession::Described(Slot& slot, const BlockHeader& header, int levels) {
  const BlockIdentity& identity = slot.announced.identity;
  const LayerCodec& first = header.codecs.front();
  auto object = std::make_shared<StoredObject>();
  object->part = view_.part;
  object->charged = slot.room->charged();
  object->room = slot.room;
  slot.room->Seal();
  ObjectRecord& record = object->record;
  record.fingerprint = view_.layout->fingerprint;
  record.parent = identity.parent;
  record.index = identity.index;
  record.levels = static_cast<uint32_t>(levels);
  for (size_t level = 0; level < header.levels.size(); ++level) {
    record.ends[level] = header.levels[level].end();
  }
  record.header_bytes = header.header_bytes;
  record.raw_bytes = RawFormBytes(view_.layout->layout, view_.part, view_.layout->layout.dtype);
  record.bf16_bytes = RawFormBytes(view_.layout->layout, view_.part, DType::kBf16);
  record.priority = terms_.priority;
  record.expires_ms = terms_.expires_ms;
  record.codec = std::string(Name(first.codec));
  if (first.k_bits > 0) absl::StrAppend(&record.codec, ":k", int{first.k_bits}, "v", int{first.v_bits});
  return object;
}

absl::StatusOr<uint64_t> LocalPutSession::Publish(Slot& slot) {
  QUIRE_RETURN_IF_ERROR(HoldParent(slot));
  std::shared_ptr<StoredObject> object;
  if (terms_.encode && store_->device() != nullptr) {
    DeviceEncode there{&slot, slot.raw.data()};
    EncodeOnDevice({&there, 1});
    QUIRE_RETURN_IF_ERROR(there.status);
    object = std::move(there.object);
  }
  if (terms_.encode && object == nullptr) QUIRE_RETURN_IF_ERROR(Encode(slot));
  store_->options_.faults->CrashHere(Fault::kCrashAfterStage);
  if (object == nullptr) {
    QUIRE_ASSIGN_OR_RETURN(object, Verified(slot));
  }
  store_->options_.faults->CrashHere(Fault::kCrashAfterVerify);
  return Insert(slot, object);
}

absl::StatusOr<uint64_t> LocalPutSession::Insert(Slot& slot, const std::shared_ptr<StoredObject>& object) {
  const BlockIdentity& identity = slot.announced.identity;
  BlockName name = NameOf(identity.key);
  QUIRE_RETURN_IF_ERROR(store_->placement_->BeforeCommit(name, object));

  slot.holds_parent = false;  // Insert takes it over
  QUIRE_ASSIGN_OR_RETURN(StoredObjectPtr stored,
                         store_->index_.Insert(name, identity, object, store_->placement_->clock().Ticks(1),
                                               [&] { store_->counters_.Stored(name, *object); }));
  store_->options_.faults->CrashHere(Fault::kCrashAfterIndex);
  if (stored == object) store_->placement_->AfterCommit(name, stored);
  return stored->record.bytes();
}

absl::StatusOr<uint64_t> LocalPutSession::Commit(uint32_t block) {
  QUIRE_RETURN_IF_ERROR(progress_.CheckComplete(block));
  Slot& slot = slots_[block];
  if (slot.state == Slot::kCommitted) return slot.stored_bytes;
  if (slot.state == Slot::kFailed) return slot.failure;
  return Settle(block, Publish(slot));
}

absl::StatusOr<uint64_t> LocalPutSession::Settle(uint32_t block, absl::StatusOr<uint64_t> stored) {
  Slot& slot = slots_[block];
  if (stored.ok()) {
    slot.stored_bytes = *stored;
  } else {
    slot.failure = absl::Status(stored.status().code(),
                                absl::StrCat("block ", block, ": ", std::string(stored.status().message())));
  }
  Close(slot, stored.ok() ? Slot::kCommitted : Slot::kFailed);
  if (!stored.ok()) return slot.failure;
  return stored;
}

}  // namespace quire::store
