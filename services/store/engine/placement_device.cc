// Between the device and the host arena.
#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/placement.h"

namespace quire::store {
namespace {

using std::chrono::steady_clock;

BlockIdentity IdentityOf(const BlockName& name, const StoredObject& object) {
  return {object.record.parent, name.key, object.record.index};
}

}  // namespace

absl::StatusOr<StoredObjectPtr> Placement::CopyDown(const BlockIdentity& identity, const KnownLayout& layout,
                                                    const StoredObject& from,
                                                    std::shared_ptr<TierObject> room) {
  auto object = std::make_shared<StoredObject>();
  object->part = from.part;
  object->tier = arena_->kind();
  object->record = from.record;
  object->room = std::move(room);
  MutableBytes to = object->room->Fill().first(from.record.bytes());
  auto start = steady_clock::now();
  QUIRE_RETURN_IF_ERROR(device_->Download(*from.room, to));
  device_model_.Observe(to.size(),
                        std::chrono::duration<double, std::micro>(steady_clock::now() - start).count());
  if (absl::Status verified = VerifyBytes(layout, identity, from.part, to); !verified.ok()) {
    return absl::DataLossError(
        absl::StrCat("the stored block failed verification: ", std::string(verified.message())));
  }
  object->charged = object->room->charged();
  object->room->Seal();
  counters_.Fetched(Tier::kGpu, from.record.bytes());
  return object;
}

absl::StatusOr<StoredObjectPtr> Placement::CopyUp(const BlockName& name, const BlockIdentity& identity,
                                                  const KnownLayout& layout, const StoredObjectPtr& from) {
  QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, from->room->Read());
  Bytes bytes = pinned.bytes.first(from->record.bytes());
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, layout.Codec(from->part));
  absl::StatusOr<BlockReader> reader = BlockReader::Open(std::move(codec), identity, bytes);
  absl::Status verified = reader.ok() ? reader->Verify() : reader.status();
  if (!verified.ok()) {
    DropCorrupt(name, from);
    return absl::DataLossError(
        absl::StrCat("the stored block failed verification: ", std::string(verified.message())));
  }
  auto object = std::make_shared<StoredObject>();
  object->part = from->part;
  object->tier = Tier::kGpu;
  object->record = from->record;
  auto header = std::make_shared<BlockHeader>(reader->header());
  header->checksums = {};
  object->header = std::move(header);
  QUIRE_ASSIGN_OR_RETURN(object->room, StageNow(*device_, name.tenant, bytes.size()));
  QUIRE_RETURN_IF_ERROR(object->room->Write(0, bytes));
  object->charged = object->room->charged();
  object->room->Seal();
  StoredObjectPtr kept = index_->AddCopy(name, object);
  if (kept == object) counters_.Moved(name, Tier::kGpu, object->record.levels);
  return kept != nullptr ? kept : object;
}

absl::StatusOr<StoredObjectPtr> Placement::OnDevice(const BlockName& name, const BlockIdentity& identity,
                                                    const KnownLayout& layout, const Part& part,
                                                    StoredObjectPtr object) {
  if (object->tier == Tier::kGpu) return object;
  return Fly(name, object->part, Tier::kGpu, [&]() -> absl::StatusOr<StoredObjectPtr> {
    // It may have come there since this reader looked.
    if (StoredObjectPtr now = index_->PeekIn(name, part, Tier::kGpu)) return now;
    QUIRE_ASSIGN_OR_RETURN(StoredObjectPtr here, AtHand(name, identity, layout, part, std::move(object)));
    return CopyUp(name, identity, layout, here);
  });
}

bool Placement::PromoteLater(const BlockName& name, std::shared_ptr<const KnownLayout> layout) {
  StoredObjectPtr object = index_->PeekAny(name);
  if (device_ == nullptr || object == nullptr || object->tier == Tier::kGpu) return false;
  return mover_->Submit(Mover::kFetch, [this, name, layout = std::move(layout), object = std::move(object)] {
    // A later Get asks again and tells why.
    (void)OnDevice(name, IdentityOf(name, *object), *layout, object->part, object);
  });
}

bool Placement::KeepBelow(const BlockName& name, bool make_room) {
  std::shared_ptr<const KnownLayout> layout = layouts_.ByNumber(name.layout);
  std::vector<StoredObjectPtr> only = index_->OnlyIn(name, Tier::kGpu);
  if (layout == nullptr) return false;
  for (StoredObjectPtr& object : only) {
    absl::StatusOr<StoredObjectPtr> copy = [&]() -> absl::StatusOr<StoredObjectPtr> {
      const uint64_t bytes = object->record.bytes();
      QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<TierObject> room,
                             make_room ? StageNow(*arena_, name.tenant, bytes) : arena_->Stage(bytes));
      return CopyDown(IdentityOf(name, *object), *layout, *object, std::move(room));
    }();
    if (absl::IsDataLoss(copy.status())) {
      spdlog::error("store: a block of layout {} failed verification in the gpu tier and was dropped",
                    layout->fingerprint.Hex().substr(0, 16));
      DropCorrupt(name, object);
    }
    if (!copy.ok() || index_->AddCopy(name, *copy) == nullptr) return false;
    counters_.Moved(name, (*copy)->tier, (*copy)->record.levels);
  }
  return true;
}

void Placement::AfterDeviceCommit(const BlockName& name, const StoredObjectPtr& object) {
  auto work = [this, name, part = object->part] {
    (void)KeepBelow(name, /*make_room=*/false);
    for (Lower& lower : lower_) {
      StoredObjectPtr here = index_->PeekIn(name, part, arena_->kind());
      if (here == nullptr) here = index_->PeekIn(name, part, Tier::kGpu);
      if (here == nullptr) return;  // gone meanwhile
      if (absl::Status status = WriteTo(lower, name, here, /*visible=*/true); !status.ok()) {
        counters_.WriteFailed(lower.tier->kind());
        spdlog::debug("store: a block was not written to the {} tier: {}", TierName(lower.tier->kind()),
                      std::string(status.message()));
      }
    }
  };
  if (lower_.empty()) {
    // Nothing is lost where the mover is busy: what the device gives up comes down then.
    (void)mover_->Submit(Mover::kWrite, std::move(work));
    return;
  }
  if (options_.write_through && LowerOf(Tier::kDisk) != nullptr) {
    Lower& disk = *LowerOf(Tier::kDisk);
    auto copy = std::make_shared<StoredObject>(*object);
    copy->tier = Tier::kDisk;
    copy->charged = disk.tier->Charge(object->record);
    copy->room = nullptr;
    copy->header = nullptr;
    index_->AddCopy(name, std::move(copy));
  }
  if (!mover_->SubmitBy(Mover::kWrite, std::move(work), steady_clock::now() + options_.patience)) {
    for (Lower& lower : lower_) counters_.WriteFailed(lower.tier->kind());
  }
}

}  // namespace quire::store
