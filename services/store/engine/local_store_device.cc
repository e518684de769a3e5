// What a store with a device does on it.
#include <utility>

#include "core/base/status_macros.h"
#include "services/store/engine/local_store.h"

namespace quire::store {

absl::StatusOr<DeviceBlock> LocalStore::OpenOnDevice(const View& view, const BlockIdentity& identity) {
  QUIRE_ASSIGN_OR_RETURN(std::optional<uint32_t> tenant, ReaderOf(view));
  if (!tenant) return absl::NotFoundError("the block is not stored");
  BlockName name{*tenant, view.layout->id, identity.key};
  StoredObjectPtr object = index_.Open(name, identity, view.part, MarkAt(placement_->clock().Ticks(1)));
  if (object == nullptr) {
    QUIRE_ASSIGN_OR_RETURN(object, placement_->FetchShared(name, identity, *view.layout, view.part));
  }
  QUIRE_ASSIGN_OR_RETURN(object,
                         placement_->OnDevice(name, identity, *view.layout, view.part, std::move(object)));
  DeviceBlock block{std::move(object), nullptr};
  block.data = DeviceTier::Locate(*block.object->room);
  return block;
}

absl::Status LocalStore::EncodeOnDevice(const KnownLayout& layout, const Part& part, const CodecSpec& spec,
                                        DType dtype, const BlockIdentity& identity, Bytes raw,
                                        std::vector<uint8_t>* object) {
  const CodedForm form{&layout.layout, layout.fingerprint, part};
  QUIRE_ASSIGN_OR_RETURN(uint64_t bytes, device()->EncodedBytes(form, spec, dtype, identity.index == 0));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<TierObject> room, options_.gpu->Stage(bytes));
  std::shared_ptr<const uint8_t> held = DeviceTier::Locate(*room);
  Device::EncodeJob job{identity, raw.data(), false, const_cast<uint8_t*>(held.get()), {}, {}};
  device()->Encode(form, spec, dtype, {&job, 1});
  QUIRE_RETURN_IF_ERROR(job.status);
  object->resize(bytes);
  return options_.gpu->Download(*room, *object);
}

absl::Status LocalStore::DecodeOnDevice(const KnownLayout& layout, const Part& part,
                                        const BlockHeader& header, int levels, DType dtype, Bytes object,
                                        MutableBytes raw) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<TierObject> room, options_.gpu->Stage(object.size()));
  QUIRE_RETURN_IF_ERROR(room->Write(0, object));
  std::shared_ptr<const uint8_t> held = DeviceTier::Locate(*room);
  Device::DecodeJob job{&header, levels, held.get(), raw.data(), false, {}};
  device()->Decode({&layout.layout, layout.fingerprint, part}, 0, part.layers(), dtype, {&job, 1});
  return job.status;
}

}  // namespace quire::store
