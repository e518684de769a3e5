// A store that works until told otherwise.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "services/store/api/kv_store.h"
#include "services/store/engine/local_store.h"
#include "tests/services/worker/scheduler/fake_engine.h"

namespace quire::worker {

class FaultyStore : public store::KvStore {
 public:
  enum Fault {
    kNone,
    kDown,              // every call UNAVAILABLE
    kHangLookup,        // Lookup waits for the gate
    kHangGet,           // Get waits for the gate before its first block
    kHangAfterTwo,      // Get waits for the gate after two blocks
    kDiesInGet,         // UNAVAILABLE after two blocks
    kCorrupt,           // one byte of the second block is another
    kOtherLayout,       // the second block is an object of another layout
    kSwapped,           // the second block comes first
    kMissesInGet,       // DATA_LOSS instead of the second block
    kForgets,           // NOT_FOUND until RegisterLayout, as after a restart
    kOtherFingerprint,  // RegisterLayout answers another one
    kHangPut,           // BeginPut waits for the gate
    kFull,              // Commit: RESOURCE_EXHAUSTED
    kDenied,            // PERMISSION_DENIED but for RegisterLayout
  };

  FaultyStore() : local_(MakeLocal()) {}

  std::atomic<Fault> fault = kNone;
  Gate gate;
  std::atomic<int> registers = 0, lookups = 0, gets = 0, puts = 0, writes = 0, deletes = 0;
  // The blocks that are there: starts over with an empty store.
  void Empty() {
    std::lock_guard lock(mutex_);
    local_ = MakeLocal();
  }
  std::shared_ptr<store::LocalStore> local() {
    std::lock_guard lock(mutex_);
    return local_;
  }

  absl::StatusOr<Digest> RegisterLayout(const Layout& layout) override {
    ++registers;
    if (fault == kDown) return Down();
    if (fault == kOtherFingerprint) return Digest{};
    if (fault == kForgets) fault = kNone;
    return local()->RegisterLayout(layout);
  }

  absl::StatusOr<store::LookupResult> Lookup(const store::Namespace& ns, std::span<const Digest> keys,
                                             const store::LookupOptions& options) override {
    ++lookups;
    if (fault == kDown) return Down();
    if (fault == kForgets) return absl::NotFoundError("unknown fingerprint");
    if (fault == kDenied) return absl::PermissionDeniedError("not your tenant");
    if (fault == kHangLookup) gate.Wait();
    return local()->Lookup(ns, keys, options);
  }

  absl::StatusOr<std::unique_ptr<store::PutSession>> BeginPut(const store::Namespace& ns,
                                                              std::span<const store::BlockAnnounce> blocks,
                                                              const store::PutOptions& options) override {
    ++puts;
    if (fault == kDown) return Down();
    if (fault == kForgets) return absl::NotFoundError("unknown fingerprint");
    if (fault == kDenied) return absl::PermissionDeniedError("not your tenant");
    if (fault == kHangPut) gate.Wait();
    auto session = local()->BeginPut(ns, blocks, options);
    if (!session.ok()) return session.status();
    return std::make_unique<Session>(*this, *std::move(session));
  }

  absl::Status Get(const store::Namespace& ns, std::span<const BlockIdentity> blocks,
                   const store::GetOptions& options, const store::GetSink& sink) override {
    ++gets;
    if (fault == kDown) return Down();
    if (fault == kHangGet) gate.Wait();
    absl::Status stop;
    store::GetSink faulty = sink;
    std::vector<uint8_t> first;
    faulty.on_block = [&](uint32_t block, Bytes object) -> absl::Status {
      std::vector<uint8_t> bytes(object.begin(), object.end());
      if (fault == kHangAfterTwo && block == 2) gate.Wait();
      if (fault == kDiesInGet && block == 2) return stop = Down();
      if (fault == kCorrupt && block == 1) bytes[bytes.size() / 2] ^= 1;
      if (fault == kOtherLayout && block == 1) bytes = OtherLayout(blocks[block]);
      if (fault == kMissesInGet && block == 1) return sink.on_miss(block, absl::DataLossError("checksum"));
      if (fault == kSwapped && block == 0) {
        first = bytes;
        return absl::OkStatus();
      }
      if (fault == kSwapped && block == 1) {
        if (absl::Status status = sink.on_block(1, bytes); !status.ok()) return status;
        return sink.on_block(0, first);
      }
      return sink.on_block(block, bytes);
    };
    absl::Status status = local()->Get(ns, blocks, options, faulty);
    return stop.ok() ? status : stop;
  }

  absl::StatusOr<uint32_t> Delete(const store::Namespace& ns, std::span<const Digest> keys,
                                  bool force) override {
    ++deletes;
    return local()->Delete(ns, keys, force);
  }
  absl::StatusOr<uint32_t> Pin(const store::Namespace& ns, std::span<const Digest> keys) override {
    if (fault == kDown) return Down();
    return local()->Pin(ns, keys);
  }
  absl::StatusOr<uint32_t> Unpin(const store::Namespace& ns, std::span<const Digest> keys) override {
    if (fault == kDown) return Down();
    return local()->Unpin(ns, keys);
  }
  absl::StatusOr<uint32_t> Touch(const store::Namespace& ns, std::span<const Digest> keys) override {
    if (fault == kDown) return Down();
    return local()->Touch(ns, keys);
  }
  absl::StatusOr<uint32_t> Prefetch(const store::Namespace& ns, std::span<const Digest> keys,
                                    store::Tier tier) override {
    if (fault == kDown) return Down();
    return local()->Prefetch(ns, keys, tier);
  }
  absl::StatusOr<store::StoreStats> Stats() override { return local()->Stats(); }

 private:
  class Session : public store::PutSession {
   public:
    Session(FaultyStore& store, std::unique_ptr<store::PutSession> inner)
        : store_(store), inner_(std::move(inner)) {}
    const std::vector<uint32_t>& wanted() const override { return inner_->wanted(); }
    absl::Status Write(uint32_t block, uint64_t offset, Bytes data) override {
      ++store_.writes;
      return inner_->Write(block, offset, data);
    }
    absl::StatusOr<uint64_t> Commit(uint32_t block) override {
      if (store_.fault == kFull) return absl::ResourceExhaustedError("no room");
      return inner_->Commit(block);
    }

   private:
    FaultyStore& store_;
    std::unique_ptr<store::PutSession> inner_;
  };

  static absl::Status Down() { return absl::UnavailableError("connection refused"); }
  static std::shared_ptr<store::LocalStore> MakeLocal() {
    store::LocalStoreOptions options;
    options.host_bytes = 32 << 20;
    return *store::LocalStore::Create(options);
  }
  // A correct object of that identity, in a layout that differs in the rotation's seed alone.
  static std::vector<uint8_t> OtherLayout(const BlockIdentity& identity) {
    FakeEngine other(4096, /*rotation_seed=*/99);
    std::vector<float> zeros(64 * 16);
    LayerView view{{zeros.data(), DType::kF32, 16, 16}, {zeros.data(), DType::kF32, 16, 16}};
    std::vector<uint8_t> object;
    (void)other.codec()->Encode(*CodecSpec::Parse("raw"), identity, std::span(&view, 1), &object);
    return object;
  }

  std::mutex mutex_;
  std::shared_ptr<store::LocalStore> local_;
};

}  // namespace quire::worker
