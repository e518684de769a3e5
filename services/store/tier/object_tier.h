// Tiers that keep objects beyond this process's memory: a disk of its own, a Redis shared with other stores.
// Arenas (host, GPU) have the interface of engine/tier.h; what moves objects between the two kinds is the
// engine's.
//
// One value per (tenant, key, part, level), and an entry record a (tenant, key, part). The record is written
// last and removed first: an object without a record does not exist.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/base/digest.h"
#include "core/block/layout.h"
#include "core/block/object.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

// What an object is called wherever it outlives this process: nothing in it counts from this process's start.
struct ObjectName {
  Digest tenant;  // HMAC of the tenant's name
  Digest key;     // the block's; it stands for fingerprint, parent and tokens
  Part part;
  friend bool operator==(const ObjectName&, const ObjectName&) = default;
  friend auto operator<=>(const ObjectName&, const ObjectName&) = default;

  // As a storage key: tenant, key, then the part's four bounds big-endian, so that encoded names sort as
  // names do and the parts of one block stand together behind Prefix(tenant, key).
  static constexpr size_t kPrefixBytes = 64, kEncodedBytes = 80;
  std::string Encode() const;
  static std::string Prefix(const Digest& tenant, const Digest& key);
  static std::optional<ObjectName> Decode(Bytes bytes);  // exactly kEncodedBytes

  template <typename H>
  friend H AbslHashValue(H h, const ObjectName& n) {
    return H::combine(std::move(h), n.tenant, n.key, n.part);
  }
};

// What one value of a key-value store holds at most, in RocksDB's case; real objects are a thousandth of it.
inline constexpr uint64_t kMaxObjectBytes = UINT32_MAX;
inline constexpr size_t kMaxCodecBytes = 64;

// What a store must know of an object without reading it.
struct ObjectRecord {
  Digest fingerprint;
  Digest parent;
  uint32_t index = 0;   // block number within its sequence
  uint32_t levels = 0;  // present here, 1…kMaxLevels
  // Length of the object with so many levels less one: ends[0] is header and level 0. All that the encoder
  // made, increasing; entries past those are 0.
  std::array<uint64_t, kMaxLevels> ends{};
  uint32_t header_bytes = 0;
  uint64_t raw_bytes = 0;   // of the same part at the layout's dtype
  uint64_t bf16_bytes = 0;  // and as bf16
  int32_t priority = 0;
  int64_t expires_ms = 0;  // Unix time; 0: never
  std::string codec;       // canonical spec of its first layer, at most kMaxCodecBytes

  uint64_t bytes() const { return ends[levels - 1]; }  // of all levels present
  uint32_t made() const;                               // levels the encoder made, whether present or not
  // INVALID_ARGUMENT unless 1 ≤ levels ≤ made(), 0 < header_bytes < ends[0], ends are increasing, then 0, and
  // at most kMaxObjectBytes, and the codec is short enough. Tiers take only valid records.
  absl::Status Validate() const;
  // A self-checking form: version, fields, XXH3-64. Parse: DATA_LOSS for anything malformed, UNIMPLEMENTED
  // for a version it does not know. What it returns is valid.
  // REQUIRES of Serialize: Validate() is OK.
  std::string Serialize() const;
  static absl::StatusOr<ObjectRecord> Parse(Bytes bytes);
  friend bool operator==(const ObjectRecord&, const ObjectRecord&) = default;
};

// Thread-safe. Statuses of all calls: INVALID_ARGUMENT (a record that is not valid, or not of this object),
// NOT_FOUND (no such object, or no longer the one that was asked for: fewer levels, another size), DATA_LOSS
// (its bytes are wrong, as far as the tier can see), RESOURCE_EXHAUSTED (no room: the engine evicts and asks
// again), UNAVAILABLE and DEADLINE_EXCEEDED (the medium failed or is too slow: the engine fences the tier).
// What a reader gets is verified by the engine against the object's own checksums.
class ObjectTier {
 public:
  struct ReadRequest {
    ObjectName name;
    int levels = 1;       // wanted, at most the record's
    MutableBytes out;     // exactly ends[levels − 1] bytes: header, then levels
    absl::Status status;  // out
  };
  struct FindRequest {
    Digest tenant, key;
    std::vector<std::pair<Part, ObjectRecord>> found;  // out: every stored part of the block
    absl::Status status;                               // out; OK with nothing found is a miss
  };

  virtual ~ObjectTier() = default;
  virtual Tier kind() const = 0;
  // Whether other stores write to it too: then only Find knows what it holds.
  virtual bool shared() const = 0;

  // `object` holds record.bytes() bytes. After OK it is there for Find, Read and Scan, and under a sync
  // policy durable; otherwise nothing of it is visible. Replaces an object of the same name.
  virtual absl::Status Write(const ObjectName& name, const ObjectRecord& record, Bytes object) = 0;
  // Each request has its own outcome; they are served together (one batch, one pipeline).
  virtual void Read(std::span<ReadRequest> requests) = 0;
  virtual void Find(std::span<FindRequest> requests) = 0;
  // Keeps the first `record.levels` levels and makes `record` the object's; nothing of them is rewritten. Its
  // ends and header_bytes are the stored record's, its levels at most those stored (else INVALID_ARGUMENT).
  virtual absl::Status DropLevels(const ObjectName& name, const ObjectRecord& record) = 0;
  // Names not stored are no error.
  virtual absl::Status Remove(std::span<const ObjectName> names) = 0;
  // Every object this store wrote and may find again after a restart, in no order, without reading levels.
  // Records that do not parse are counted, removed and skipped. Shared tiers have none.
  virtual absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) = 0;

  // Makes all that Write acknowledged durable (a drain's last step).
  virtual absl::Status Flush() = 0;

  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;  // keys, records and levels of this store's objects
  // What Write would add to used_bytes.
  virtual uint64_t Charge(const ObjectRecord& record) const = 0;
};

}  // namespace quire::store
