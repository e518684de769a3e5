// A two-phase write into a LocalStore.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/codec/spec.h"
#include "services/store/api/put_progress.h"
#include "services/store/engine/arrival_check.h"
#include "services/store/engine/local_store.h"

namespace quire::store {

// What a put asks for beside its blocks.
struct PutTerms {
  std::optional<CodecSpec> encode;  // the data is raw KV
  int32_t priority = 0;
  int64_t expires_ms = 0;  // Unix time; 0: never
};

class LocalPutSession : public PutSession {
 public:
  // `wanted`: indices into `blocks`. The session takes over the wanted blocks' announcements in the index and
  // the budget taken for them.
  LocalPutSession(std::shared_ptr<LocalStore> store, LocalStore::View view, PutTerms terms,
                  std::shared_ptr<const BlockCodec> codec, std::vector<BlockAnnounce> blocks,
                  std::vector<uint32_t> wanted);
  ~LocalPutSession() override;

  const std::vector<uint32_t>& wanted() const override { return wanted_; }
  absl::Status Write(uint32_t block, uint64_t offset, Bytes data) override;
  absl::StatusOr<uint64_t> Commit(uint32_t block) override;

  // Blocks that lie whole in memory of the store's device: takes them from there and commits them, as Write
  // and Commit would, all at once. Parents first. REQUIRES: the store has a device.
  struct DeviceSource {
    uint32_t block = 0;
    const uint8_t* data = nullptr;  // on the device, 16-byte aligned: as many bytes as were announced
    absl::StatusOr<uint64_t> stored = absl::UnknownError("not asked");  // out
  };
  void CommitFromDevice(std::span<DeviceSource> sources);

 private:
  struct Slot {
    BlockAnnounce announced;
    enum State { kNotWanted, kOpen, kCommitted, kFailed } state = kNotWanted;
    uint64_t stored_bytes = 0;  // once committed
    absl::Status failure;       // why it failed
    bool holds_parent = false;
    uint64_t reserved = 0;                // of the tenant's quota
    std::shared_ptr<TierObject> room;     // codes, from the first Write on
    PinnedBytes pinned;                   // the room's
    std::unique_ptr<ArrivalCheck> check;  // of those
    std::vector<uint8_t> raw;             // raw KV to encode, from the first Write on
  };

  BlockName NameOf(const Digest& key) const { return {*view_.tenant, view_.layout->id, key}; }
  absl::Status HoldParent(Slot& slot);
  absl::StatusOr<std::shared_ptr<TierObject>> Stage(Slot& slot, uint64_t bytes);  // within the tenant's quota
  absl::StatusOr<std::shared_ptr<TierObject>> StageOnDevice(Slot& slot, uint64_t bytes);
  absl::Status Begin(Slot& slot);                                   // takes room for the block
  absl::Status TakeCodes(Slot& slot, uint64_t offset, Bytes data);  // → room, checked on the way
  absl::Status Encode(Slot& slot);                                  // raw → room
  // Raw KV → objects in device memory, all at once; what cannot be encoded there (a codec, no room) is left
  // alone. put_device.cc
  struct DeviceEncode {
    Slot* slot = nullptr;
    const uint8_t* raw = nullptr;
    bool on_device = false;
    std::shared_ptr<StoredObject> object;  // out; null: not encoded
    absl::Status status;                   // out; not OK: it cannot be stored at all
  };
  void EncodeOnDevice(std::span<DeviceEncode> blocks);
  // Brings bytes from the device to where Write would have put them.
  absl::Status TakeToHost(Slot& slot, const uint8_t* data);
  absl::StatusOr<std::shared_ptr<StoredObject>> Verified(Slot& slot);
  std::shared_ptr<StoredObject> Described(Slot& slot, const BlockHeader& header, int levels);
  absl::StatusOr<uint64_t> Publish(Slot& slot);
  // Makes an object visible that is whole and verified. REQUIRES: the parent is held.
  absl::StatusOr<uint64_t> Insert(Slot& slot, const std::shared_ptr<StoredObject>& object);
  // What Commit answers, now and when asked again.
  absl::StatusOr<uint64_t> Settle(uint32_t block, absl::StatusOr<uint64_t> stored);
  // Gives back all that an open slot holds.
  void Close(Slot& slot, Slot::State state);
  void ReleaseRaw(Slot& slot);

  std::shared_ptr<LocalStore> store_;
  LocalStore::View view_;
  PutTerms terms_;
  std::shared_ptr<const BlockCodec> codec_;
  PutProgress progress_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> wanted_;
};

}  // namespace quire::store
