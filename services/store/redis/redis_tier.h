// The tier that stores share: objects in a Redis or Valkey, single or Cluster.
//
// A block's records stand in one hash, a field for each part (16 bytes: the part's bounds, big-endian), and
// each level of each object is a string of its own. All keys of a block have one hash tag, hence one slot:
//
//   <prefix>:1:{<tenant hex>:<key hex>}                            hash: part → StoredRecord
//   <prefix>:1:{<tenant hex>:<key hex>}:<generation hex>:<level>   a level's bytes; level 0 begins with the
//   header
//
// Invariants:
//  · A record is set after all levels it names, and is gone before any of them: a reader of a record finds
//    whole levels or, after a crash, an eviction or an expiry, misses some; it then says NOT_FOUND and takes
//    the rest away.
//  · Levels of different writes have different names (the generation), so they never mix.
//  · Levels that no record names have a time to live (options.staging): what a writer leaves behind when it
//    or its connection dies goes away by itself.
//  · Every command names one key, so slots may migrate at any time.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "services/store/redis/client.h"
#include "services/store/redis/ledger.h"
#include "services/store/redis/options.h"
#include "services/store/redis/stored_record.h"
#include "services/store/tier/faults.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

// Thread-safe. Besides what ObjectTier says: statuses of a server that refuses us (wrong password, missing
// rights, unknown commands) are UNAVAILABLE. An OK Write is in Redis' memory; how durable that is, is Redis'
// setting. A Write that fails because the connection broke while it was being committed may have stored
// the whole object.
class RedisTier : public ObjectTier {
 public:
  struct Counters {
    redis::Client::Counters client;
    uint64_t wrong_records = 0;  // dropped because they did not parse or their HMAC was wrong
    uint64_t incomplete = 0;     // dropped because a level was missing
  };

  // INVALID_ARGUMENT for options that cannot work. Needs no server; see Check. `faults` is borrowed and may
  // be null.
  static absl::StatusOr<std::unique_ptr<RedisTier>> Create(const redis::TierOptions& options,
                                                           FaultPoints* faults = nullptr);
  ~RedisTier() override;

  // Whether the server answers and lets us in: UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE,
  // DEADLINE_EXCEEDED.
  absl::Status Check();
  Counters counters() const;

  Tier kind() const override { return Tier::kRedis; }
  bool shared() const override { return true; }
  // INVALID_ARGUMENT for an invalid record, an object of another size and a level of more than 512 MiB.
  absl::Status Write(const ObjectName& name, const ObjectRecord& record, Bytes object) override;
  void Read(std::span<ReadRequest> requests) override;
  void Find(std::span<FindRequest> requests) override;
  absl::Status DropLevels(const ObjectName& name, const ObjectRecord& record) override;
  absl::Status Remove(std::span<const ObjectName> names) override;
  absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) override;
  absl::Status Flush() override { return absl::OkStatus(); }
  uint64_t capacity_bytes() const override { return options_.capacity_bytes; }
  uint64_t used_bytes() const override;
  uint64_t Charge(const ObjectRecord& record) const override;

 private:
  // Where one object's things are, and its record as it was found.
  struct Place {
    ObjectName name;
    std::string hash_key, field;
    uint16_t slot = 0;
  };
  struct Found {
    Place place;
    std::string raw;  // empty: no record
  };

  // Held by calls that change objects, so that this process's changes of one name, and what the ledger says
  // of it, have one order. Names share kStripes locks.
  class NameLocks {
   public:
    NameLocks(RedisTier& tier, std::span<const ObjectName> names);

   private:
    std::vector<std::unique_lock<std::mutex>> locks_;
  };
  static constexpr size_t kStripes = 256;

  RedisTier(const redis::TierOptions& options, FaultPoints* faults, redis::Seal seal,
            std::unique_ptr<redis::Client> client);

  Place PlaceOf(const ObjectName& name) const;
  std::string HashKey(const Digest& tenant, const Digest& key) const;
  static std::string LevelKey(const Place& place, uint64_t generation, uint32_t level);
  redis::Request Single(const Place& place, const std::vector<std::string_view>& arguments) const;

  void Execute(std::span<redis::Request> requests);
  absl::Status StageLevels(Found& before, const redis::StoredRecord& stored, Bytes object);
  absl::Status CommitRecord(Found& before, const std::string& raw, int64_t ttl_ms);
  absl::Status KeepLevels(const Place& place, const redis::StoredRecord& stored, int64_t ttl_ms,
                          const std::string& replaced);
  absl::Status FetchRecords(std::span<Found> places, std::span<absl::Status> statuses);
  void ReadLevels(std::span<ReadRequest> requests, std::span<const Found> found,
                  const std::vector<std::optional<redis::StoredRecord>>& stored,
                  std::vector<ObjectName>& gone);
  void ForgetIfGone(std::span<const ObjectName> names);
  void VerifyLevels(ReadRequest& request, const redis::StoredRecord& stored);
  // Takes objects away whose records are still as found: levels get a time to live, then the records go, then
  // the levels. What was replaced meanwhile stays; of what was changed (DropLevels) nothing is left to read
  // soon.
  absl::Status Discard(std::span<const Found> objects);
  void KeepChanged(std::span<const Found> objects);
  // Until the record expires or the options' ttl is over, whichever comes first; 0: for ever. An expiry that
  // has passed is not looked at: what to do about it is the engine's.
  int64_t TtlMs(const ObjectRecord& record) const;

  const redis::TierOptions options_;
  FaultPoints* const faults_;
  const redis::Seal seal_;
  mutable redis::Ledger ledger_;
  std::array<std::mutex, kStripes> stripes_;
  std::atomic<uint64_t> wrong_records_{0}, incomplete_{0};
  std::unique_ptr<redis::Client> client_;
};

}  // namespace quire::store
