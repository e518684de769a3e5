// A store's client as an engine uses it: whole prompts instead of blocks, of any length, over any number of
// streams.
//
//   quire::client::Options options;
//   options.salt = salt;
//   auto client = quire::client::Client::Connect("127.0.0.1:50061", layout, options);
//   std::vector<BlockIdentity> chain = (*client)->Chain(tokens);        // the prompt's whole blocks
//   auto fetch = (*client)->Fetch(chain, {}, [&](const quire::client::Layer& layer) {
//     for (size_t b = 0; b < layer.blocks.size(); ++b)                   // on the fetch's thread, in order
//       QUIRE_RETURN_IF_ERROR(layer.Decode(b, cache.layer(layer.number).block(b)));
//     return absl::OkStatus();
//   });
//   uint32_t blocks = fetch->blocks();       // known long before the last layer is there: compute the rest
//   absl::Status status = fetch->Wait();     // not OK: compute these, too
//   (*client)->Put(objects_of_new_blocks, {});
//
// Every call has a deadline. What is cut off by UNAVAILABLE goes on where it stopped, after jittered pauses,
// as long as tries and time last; what was stored or handed out already is not repeated.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "services/runtime/server.h"
#include "services/store/api/limits.h"
#include "services/store/client/prefix_fetch.h"
#include "services/store/client/remote_store.h"

namespace quire::client {

struct Options {
  runtime::ChannelOptions channel;   // TLS
  store::RemoteStoreOptions remote;  // deadlines, tries, pauses
  std::string tenant;                // "": one's own
  std::string salt, extra;           // of the key chain (core/block/keys.h)
  Part part;                         // all zero: the whole layout
  // A Put is cut into streams of at most so many blocks and, where one block is not more already, bytes: a
  // store admits only so much announced at a time.
  size_t stream_blocks = store::kMaxBlocks;
  uint64_t stream_bytes = uint64_t{256} << 20;
};

struct PutReport {
  uint32_t stored = 0;   // blocks that were sent and stored
  uint32_t already = 0;  // blocks that were there
  uint64_t bytes = 0;    // as stored, of the sent ones
};

// Speaks for one layout, tenant, salt and part. Thread-safe; outlives its fetches.
class Client {
 public:
  // Registers the layout, so it fails where the store cannot be reached.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address, const Layout& layout,
                                                         const Options& options = {});
  // The same over a store client that others use, too.
  static absl::StatusOr<std::unique_ptr<Client>> Create(std::shared_ptr<store::RemoteStore> remote,
                                                        const Layout& layout, const Options& options = {});

  // Identities of the whole blocks of a prompt, from its first token on.
  std::vector<BlockIdentity> Chain(std::span<const uint32_t> tokens) const;

  // How many leading blocks of a chain are stored; the states of all of them and of the first that is not.
  // lease: for how long they are promised to stay; lease_id is of the last 65536 blocks' lookup.
  absl::StatusOr<store::LookupResult> Lookup(std::span<const BlockIdentity> chain,
                                             std::chrono::milliseconds lease = {}) const;

  // Stores consecutive blocks, parents first. Fails with the first block's status that was refused, naming
  // the block; those before it are stored, those after it may be.
  absl::StatusOr<PutReport> Put(std::span<const store::PutBlock> blocks,
                                const store::PutOptions& options) const;

  // As KvStore::Get, with any number of blocks. options.part is overridden by the client's; the timeout is of
  // the whole.
  absl::Status Get(std::span<const BlockIdentity> blocks, store::GetOptions options,
                   const store::GetSink& sink) const;

  // Begins to fetch the longest stored prefix of a chain; see prefix_fetch.h.
  std::unique_ptr<PrefixFetch> Fetch(std::vector<BlockIdentity> chain, const FetchOptions& options,
                                     OnLayer on_layer) const;

  // As KvStore's, with any number of keys.
  absl::StatusOr<uint32_t> Pin(std::span<const BlockIdentity> blocks) const;
  absl::StatusOr<uint32_t> Unpin(std::span<const BlockIdentity> blocks) const;
  absl::StatusOr<uint32_t> Touch(std::span<const BlockIdentity> blocks) const;
  absl::StatusOr<uint32_t> Prefetch(std::span<const BlockIdentity> blocks,
                                    store::Tier tier = store::Tier::kNone) const;
  absl::StatusOr<uint32_t> Delete(std::span<const BlockIdentity> blocks, bool force = false) const;

  store::RemoteStore& remote() const { return *remote_; }
  const store::Namespace& ns() const { return ns_; }
  const Digest& root() const { return root_; }

 private:
  Client(std::shared_ptr<store::RemoteStore> remote, const Options& options)
      : remote_(std::move(remote)), options_(options) {}
  using AboutKeys = std::function<absl::StatusOr<uint32_t>(std::span<const Digest>)>;
  static absl::StatusOr<uint32_t> Count(std::span<const BlockIdentity> blocks, const AboutKeys& about);
  // One stream's worth of a Put, tried again while the store is unavailable.
  absl::Status PutStream(std::span<const store::PutBlock> blocks, size_t first,
                         const store::PutOptions& options, PutReport& report) const;

  std::shared_ptr<store::RemoteStore> remote_;
  const Options options_;
  store::Namespace ns_;
  Digest root_;
};

}  // namespace quire::client
