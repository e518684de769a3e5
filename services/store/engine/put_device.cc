// Puts whose blocks are encoded, or lie, on the store's device.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/put_session.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {

absl::StatusOr<std::shared_ptr<TierObject>> LocalPutSession::StageOnDevice(Slot& slot, uint64_t bytes) {
  QUIRE_RETURN_IF_ERROR(store_->placement_->Reserve(*view_.tenant, bytes));
  absl::StatusOr<std::shared_ptr<TierObject>> room = store_->placement_->StageOnDevice(*view_.tenant, bytes);
  if (room.ok()) {
    slot.reserved = bytes;
  } else {
    store_->tenants_.Unreserve(*view_.tenant, bytes);
  }
  return room;
}

void LocalPutSession::EncodeOnDevice(std::span<DeviceEncode> blocks) {
  Device& device = *store_->device();
  const CodedForm form{&view_.layout->layout, view_.layout->fingerprint, view_.part};
  const DType dtype = view_.layout->layout.dtype;
  std::vector<Device::EncodeJob> jobs;
  std::vector<DeviceEncode*> of_job;
  std::vector<std::shared_ptr<const uint8_t>> held;
  for (DeviceEncode& block : blocks) {
    const BlockIdentity& identity = block.slot->announced.identity;
    absl::StatusOr<uint64_t> bytes = device.EncodedBytes(form, *terms_.encode, dtype, identity.index == 0);
    if (!bytes.ok()) continue;
    // The parent must not go while room is made for its child.
    (void)HoldParent(*block.slot);
    absl::StatusOr<std::shared_ptr<TierObject>> room = StageOnDevice(*block.slot, *bytes);
    if (!room.ok()) continue;
    block.slot->room = *std::move(room);
    held.push_back(DeviceTier::Locate(*block.slot->room));
    jobs.push_back({identity, block.raw, block.on_device, const_cast<uint8_t*>(held.back().get()), {}, {}});
    of_job.push_back(&block);
  }
  device.Encode(form, *terms_.encode, dtype, jobs);
  for (size_t i = 0; i < jobs.size(); ++i) {
    DeviceEncode& block = *of_job[i];
    block.status = std::move(jobs[i].status);
    if (!block.status.ok()) continue;
    auto header = std::make_shared<BlockHeader>(std::move(jobs[i].header));
    header->checksums = {};
    block.object = Described(*block.slot, *header, static_cast<int>(header->levels.size()));
    block.object->tier = Tier::kGpu;
    block.object->header = std::move(header);
    ReleaseRaw(*block.slot);
  }
}

absl::Status LocalPutSession::TakeToHost(Slot& slot, const uint8_t* data) {
  QUIRE_RETURN_IF_ERROR(Begin(slot));
  uint8_t* to = terms_.encode ? slot.raw.data() : slot.room->Fill().data();
  Device::Copy down{data, to, slot.announced.bytes};
  QUIRE_RETURN_IF_ERROR(store_->device()->CopyAll({&down, 1}));
  if (terms_.encode) return absl::OkStatus();
  QUIRE_ASSIGN_OR_RETURN(slot.pinned, slot.room->Read());
  slot.check = std::make_unique<ArrivalCheck>(codec_, slot.announced.identity, slot.pinned.bytes);
  return absl::OkStatus();
}

void LocalPutSession::CommitFromDevice(std::span<DeviceSource> sources) {
  std::vector<DeviceEncode> encodes;
  std::vector<size_t> of_source(sources.size(), SIZE_MAX);
  for (size_t i = 0; i < sources.size(); ++i) {
    DeviceSource& source = sources[i];
    absl::Status status = progress_.CheckWanted(source.block);
    if (status.ok()) status = progress_.Advance(source.block, 0, slots_[source.block].announced.bytes);
    source.stored = status.ok() ? absl::StatusOr<uint64_t>(uint64_t{0}) : status;
    if (!status.ok() || !terms_.encode) continue;
    of_source[i] = encodes.size();
    encodes.push_back({&slots_[source.block], source.data, /*on_device=*/true});
  }
  EncodeOnDevice(encodes);
  for (size_t i = 0; i < sources.size(); ++i) {
    DeviceSource& source = sources[i];
    if (!source.stored.ok()) continue;
    Slot& slot = slots_[source.block];
    source.stored = Settle(source.block, [&]() -> absl::StatusOr<uint64_t> {
      if (of_source[i] != SIZE_MAX) {
        DeviceEncode& encode = encodes[of_source[i]];
        QUIRE_RETURN_IF_ERROR(encode.status);
        if (encode.object != nullptr) {
          QUIRE_RETURN_IF_ERROR(HoldParent(slot));
          return Insert(slot, encode.object);
        }
      }
      // Codes are verified on the host before anyone can see them; raw KV that the device does not encode is
      // encoded there.
      QUIRE_RETURN_IF_ERROR(TakeToHost(slot, source.data));
      return Publish(slot);
    }());
  }
}

}  // namespace quire::store
