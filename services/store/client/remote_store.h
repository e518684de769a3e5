// A store in another process, over gRPC: the same interface as the local one.
//
// Every call has a deadline. Calls that change nothing when repeated are tried again, with jittered pauses,
// on UNAVAILABLE only; a Get only until its first block was handed out, a Put never. Layouts registered
// through this client are remembered: blocks are verified against them when they arrive, and a store that was
// restarted is told them again. For whole prompts, of any length, see quire::client::Client (client.h).
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/store/api/kv_store.h"
#include "services/store/client/pauses.h"

namespace quire::store {

struct RemoteStoreOptions {
  std::chrono::milliseconds call_timeout{5'000};  // RegisterLayout, Lookup, Delete, Stats: all tries together
  std::chrono::milliseconds stream_timeout{
      60'000};  // a whole Get (unless GetOptions.timeout says less) or Put session
  int max_tries = 3;
  // Before the second try; then it doubles up to the longest. Each is taken times a random 0.5…1.5.
  std::chrono::milliseconds first_pause{20}, longest_pause{500};
  // Memory to share with a store on this machine, through which the bytes of Get and Put then go instead of
  // through gRPC; 0: none. Where there is none to be had (another machine, a store that hands out none), they
  // go through gRPC all the same.
  uint64_t arena_bytes = 0;
};

// A block as PutBlocks takes it: an object, or raw KV where PutOptions.encode is set. `data` is borrowed.
struct PutBlock {
  BlockIdentity identity;
  Bytes data;
};
struct PutOutcome {
  bool wanted = false;  // the store lacked it; if not, it was there and nothing was sent
  absl::Status status;  // OK: it is stored
  uint64_t stored_bytes = 0;
};

class ArenaLink;
class AttachedArena;
class LayerStream;

// Thread-safe.
class RemoteStore : public KvStore {
 public:
  explicit RemoteStore(std::shared_ptr<grpc::Channel> channel, RemoteStoreOptions options = {});
  ~RemoteStore() override;  // REQUIRES: its sessions are gone

  absl::StatusOr<Digest> RegisterLayout(const Layout& layout) override;
  absl::StatusOr<LookupResult> Lookup(const Namespace& ns, std::span<const Digest> keys,
                                      const LookupOptions& options) override;
  absl::StatusOr<std::unique_ptr<PutSession>> BeginPut(const Namespace& ns,
                                                       std::span<const BlockAnnounce> blocks,
                                                       const PutOptions& options) override;
  // NOT_FOUND also for a layout that the store knows and this client was not told (RegisterLayout).
  absl::Status Get(const Namespace& ns, std::span<const BlockIdentity> blocks, const GetOptions& options,
                   const GetSink& sink) override;
  absl::StatusOr<uint32_t> Delete(const Namespace& ns, std::span<const Digest> keys, bool force) override;
  absl::StatusOr<uint32_t> Pin(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Unpin(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Touch(const Namespace& ns, std::span<const Digest> keys) override;
  absl::StatusOr<uint32_t> Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier tier) override;
  absl::StatusOr<StoreStats> Stats() override;

  // A whole Put of at most 4096 blocks, parents first, without a wait between one block's bytes and the next.
  // OK if the stream ended well, whatever became of single blocks: see `outcomes`, one a block, which also
  // tell what was committed before a stream broke. Asked again it sends what is still missing.
  absl::Status PutBlocks(const Namespace& ns, std::span<const PutBlock> blocks, const PutOptions& options,
                         std::vector<PutOutcome>* outcomes);
  // A Get of at most 4096 blocks of a chain, layer by layer (layer_stream.h). `lease_id`: as Lookup gave it,
  // or 0.
  absl::StatusOr<std::unique_ptr<LayerStream>> OpenLayers(const Namespace& ns,
                                                          std::span<const BlockIdentity> blocks,
                                                          const GetOptions& options, uint64_t lease_id = 0);
  const RemoteStoreOptions& options() const { return options_; }
  // The arena in use now, attached if need be; null: bytes go through gRPC.
  std::shared_ptr<AttachedArena> arena();

 private:
  class Session;
  struct Stubs;

  using Call = std::function<absl::Status()>;
  // Calls `call` until it succeeds, fails otherwise than by UNAVAILABLE, or tries or time are used up, or
  // `again` says no.
  absl::Status Retry(Deadline deadline, const Call& call, const std::function<bool()>& again = nullptr) const;
  // Calls `call`; on NOT_FOUND for a layout that this client knows, registers it and, unless `again` says no,
  // calls once more.
  absl::Status WithLayout(Deadline deadline, const Digest& fingerprint, const Call& call,
                          const std::function<bool()>& again = nullptr);
  // One call about a request's namespace, deadline, retries and an unknown layout taken care of.
  template <typename Response, typename Method, typename Request>
  absl::StatusOr<Response> Ask(Method method, const Namespace& ns, Request request);
  absl::StatusOr<Digest> Register(const Layout& layout, Deadline deadline);
  std::shared_ptr<const Layout> Known(const Digest& fingerprint) const;
  Deadline StreamDeadline(const GetOptions& options) const;
  // A valid part of a layout that this client was told; NOT_FOUND if it was not.
  absl::StatusOr<Part> PartOf(const Digest& fingerprint, const Part& part) const;
  absl::StatusOr<std::shared_ptr<const BlockCodec>> Codec(const Digest& fingerprint, const Part& part);

  const RemoteStoreOptions options_;
  std::unique_ptr<Stubs> stubs_;
  std::unique_ptr<ArenaLink> arena_;  // null: not wanted
  mutable std::shared_mutex mu_;      // guards all below
  absl::flat_hash_map<Digest, std::shared_ptr<const Layout>> layouts_;
  absl::flat_hash_map<std::pair<Digest, Part>, std::shared_ptr<const BlockCodec>> codecs_;
};

}  // namespace quire::store
