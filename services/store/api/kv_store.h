// The store as C++ sees it: one interface that the local engine (services/store/engine) and the gRPC client
// (services/store/client) both implement; one conformance suite (tests/services/store) runs on both. All
// calls are thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/base/digest.h"
#include "core/block/layout.h"
#include "core/block/object.h"

namespace quire::store {

enum class Tier : uint8_t { kNone = 0, kGpu = 1, kHost = 2, kDisk = 3, kRedis = 4 };  // from the fastest
inline const char* TierName(Tier tier) {
  constexpr const char* kNames[] = {"none", "gpu", "host", "disk", "redis"};
  return kNames[static_cast<size_t>(tier)];
}

// Whose blocks, of which layout. An unknown fingerprint is NOT_FOUND: RegisterLayout first.
struct Namespace {
  std::string tenant;  // at most 256 bytes; "" is the default tenant
  Digest fingerprint;
};

struct BlockState {
  enum State : uint8_t { kMiss = 0, kHit = 1, kPending = 2 };
  State state = kMiss;
  Tier tier = Tier::kNone;
  uint32_t levels = 0;
  std::string codec;
  uint64_t bytes = 0;
  uint64_t fetch_us = 0;
  friend bool operator==(const BlockState&, const BlockState&) = default;
};

struct LookupOptions {
  Part part;  // all zero: the whole layout
  std::chrono::milliseconds lease{0};
  bool all = false;
};
struct LookupResult {
  std::vector<BlockState> blocks;  // up to and including the first that is not a hit, unless `all`
  uint32_t prefix_blocks = 0;
  uint64_t lease_id = 0;
};

struct PutOptions {
  std::chrono::milliseconds ttl{0};  // after which the blocks may go; 0: no limit
  int32_t priority = 0;              // higher stays longer; kMinPriority…kMaxPriority
  Part part;                         // all zero: the whole layout
  std::string encode;  // a codec spec: the data is raw KV in the layout's dtype (see kv_store.proto); "":
                       // objects of format v1
};
struct BlockAnnounce {
  BlockIdentity identity;
  uint64_t bytes = 0;  // that will be written if the block is wanted
};

// One two-phase write. Destroying a session without Commit of a block leaves nothing of that block. Not
// thread-safe.
class PutSession {
 public:
  virtual ~PutSession() = default;
  // Indices of the announced blocks that the store lacks; only these may be written.
  virtual const std::vector<uint32_t>& wanted() const = 0;
  // Appends bytes of a block; offset must be what has been written of it so far. INVALID_ARGUMENT on any
  // other offset, on a block not wanted and past the announced size. Of a block that cannot be stored the
  // bytes are taken all the same: Commit tells why. A remote session whose stream broke says so here already
  // (UNAVAILABLE, DEADLINE_EXCEEDED, …).
  virtual absl::Status Write(uint32_t block, uint64_t offset, Bytes data) = 0;
  // Verifies the block (or encodes it) and makes it visible; DATA_LOSS if verification fails,
  // RESOURCE_EXHAUSTED if no room can be made, FAILED_PRECONDITION if the parent is not (or no longer)
  // stored, INVALID_ARGUMENT if bytes are still missing or raw KV holds a NaN or an infinity. Other blocks of
  // the session are not harmed. Returns stored bytes; asked again, the same answer.
  virtual absl::StatusOr<uint64_t> Commit(uint32_t block) = 0;
};

struct GetOptions {
  // All zero: the whole layout. What comes is the smallest stored object that covers the part, whole: its
  // header names its own part.
  Part part;
  uint32_t max_bits = 0;                 // send at most the levels that hold this many bits; 0: all
  float max_relative_error = 0;          // send the fewest levels at most this far off; 0: not used
  std::chrono::milliseconds timeout{0};  // of the whole call; 0: none
};
// What Get hands to its caller, block after block. `object` is valid during the call only.
struct GetSink {
  // Return a status that is not OK to stop the Get; it is then Get's result.
  std::function<absl::Status(uint32_t block, Bytes object)> on_block;
  std::function<absl::Status(uint32_t block, const absl::Status& why)> on_miss;
};

struct TierStats {
  Tier tier = Tier::kNone;
  uint64_t capacity_bytes = 0, used_bytes = 0, blocks = 0, raw_bytes = 0;
};
struct StoreStats {
  std::vector<TierStats> tiers;
  uint64_t lookups = 0, hit_tokens = 0, miss_tokens = 0, blocks_stored = 0, blocks_evicted = 0,
           blocks_deleted = 0;
  uint64_t levels_dropped = 0;  // that blocks lost for room
  uint64_t writes_failed = 0;   // copies that slower tiers did not take
  uint64_t checksum_failures = 0, raw_bytes_stored = 0, put_sessions = 0, layouts = 0;
};

class KvStore {
 public:
  virtual ~KvStore() = default;

  virtual absl::StatusOr<Digest> RegisterLayout(const Layout& layout) = 0;
  // `keys`: consecutive blocks of one chain, at most 65536. Marks what it finds as used, the beginning of the
  // chain last.
  virtual absl::StatusOr<LookupResult> Lookup(const Namespace& ns, std::span<const Digest> keys,
                                              const LookupOptions& options) = 0;
  // Announces at most 4096 blocks. A block's parent must be stored or earlier in the list (else
  // FAILED_PRECONDITION), or, of index 0, be a chain's root, which is neither. RESOURCE_EXHAUSTED where open
  // sessions have announced as much as the store allows.
  virtual absl::StatusOr<std::unique_ptr<PutSession>> BeginPut(const Namespace& ns,
                                                               std::span<const BlockAnnounce> blocks,
                                                               const PutOptions& options) = 0;
  // Whole objects in the order asked for; each was verified (header, identity, every slice). A missing or
  // failing block goes to on_miss (NOT_FOUND, DATA_LOSS) and is not an error of the call.
  virtual absl::Status Get(const Namespace& ns, std::span<const BlockIdentity> blocks,
                           const GetOptions& options, const GetSink& sink) = 0;
  // Returns how many blocks were removed. Leased ones stay unless `force`; a reader keeps the bytes it is
  // reading.
  virtual absl::StatusOr<uint32_t> Delete(const Namespace& ns, std::span<const Digest> keys, bool force) = 0;
  // Keeps stored blocks whole and where they can be read until Unpin; pins of one block count. Each returns
  // how many of the keys were stored (Unpin: were pinned).
  virtual absl::StatusOr<uint32_t> Pin(const Namespace& ns, std::span<const Digest> keys) = 0;
  virtual absl::StatusOr<uint32_t> Unpin(const Namespace& ns, std::span<const Digest> keys) = 0;
  // Marks blocks as used now; how many were stored.
  virtual absl::StatusOr<uint32_t> Touch(const Namespace& ns, std::span<const Digest> keys) = 0;
  // Asks for blocks to be brought to a tier at least as fast as `tier` (kNone: the fastest) and returns at
  // once: how many are to be moved. Those already there, unknown ones, and what the mover's queue has no
  // place for, are not counted.
  virtual absl::StatusOr<uint32_t> Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier tier) = 0;
  virtual absl::StatusOr<StoreStats> Stats() = 0;
};

}  // namespace quire::store
