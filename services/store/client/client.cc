#include "services/store/client/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "services/store/api/limits.h"

namespace quire::client {

using std::chrono::system_clock;
using store::kMaxBlocks;
using store::kMaxKeys;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address, const Layout& layout,
                                                        const Options& options) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         runtime::NewChannel(address, options.channel));
  return Create(std::make_shared<store::RemoteStore>(std::move(channel), options.remote), layout, options);
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(std::shared_ptr<store::RemoteStore> remote,
                                                       const Layout& layout, const Options& options) {
  if (options.stream_blocks == 0 || options.stream_blocks > kMaxBlocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("stream_blocks is ", options.stream_blocks, ": 1 to ", kMaxBlocks));
  }
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  if (options.part != Part{}) QUIRE_RETURN_IF_ERROR(options.part.Validate(layout));
  std::unique_ptr<Client> client(new Client(std::move(remote), options));
  client->ns_.tenant = options.tenant;
  QUIRE_ASSIGN_OR_RETURN(client->ns_.fingerprint, client->remote_->RegisterLayout(layout));
  client->root_ = RootKey(client->ns_.fingerprint, options.salt, options.extra);
  return client;
}

std::vector<BlockIdentity> Client::Chain(std::span<const uint32_t> tokens) const {
  std::vector<BlockIdentity> chain;
  Digest parent = root_;
  for (const Digest& key : BlockKeys(root_, tokens)) {
    chain.push_back({parent, key, static_cast<uint32_t>(chain.size())});
    parent = key;
  }
  return chain;
}

namespace {

std::vector<Digest> KeysOf(std::span<const BlockIdentity> blocks) {
  std::vector<Digest> keys;
  keys.reserve(blocks.size());
  for (const BlockIdentity& block : blocks) keys.push_back(block.key);
  return keys;
}

}  // namespace

absl::StatusOr<store::LookupResult> Client::Lookup(std::span<const BlockIdentity> chain,
                                                   std::chrono::milliseconds lease) const {
  store::LookupOptions options;
  options.part = options_.part;
  options.lease = lease;
  store::LookupResult all;
  std::vector<Digest> keys = KeysOf(chain);
  for (size_t at = 0; at < keys.size(); at += kMaxKeys) {
    std::span<const Digest> batch = std::span(keys).subspan(at, std::min(kMaxKeys, keys.size() - at));
    QUIRE_ASSIGN_OR_RETURN(store::LookupResult found, remote_->Lookup(ns_, batch, options));
    all.blocks.insert(all.blocks.end(), found.blocks.begin(), found.blocks.end());
    all.prefix_blocks += found.prefix_blocks;
    all.lease_id = found.lease_id;
    if (found.prefix_blocks < batch.size()) break;
  }
  return all;
}

absl::Status Client::PutStream(std::span<const store::PutBlock> blocks, size_t first,
                               const store::PutOptions& options, PutReport& report) const {
  const store::RemoteStoreOptions& remote = options_.remote;
  store::Deadline deadline = system_clock::now() + remote.stream_timeout;
  store::Pauses pauses(remote.max_tries, remote.first_pause, remote.longest_pause);
  uint32_t sent = 0;  // blocks that this call has stored
  for (;;) {
    std::vector<store::PutOutcome> outcomes;
    absl::Status status = remote_->PutBlocks(ns_, blocks, options, &outcomes);
    for (size_t i = 0; i < outcomes.size(); ++i) {
      const store::PutOutcome& outcome = outcomes[i];
      if (outcome.wanted && outcome.status.ok()) {
        ++sent;
        report.bytes += outcome.stored_bytes;
      } else if (outcome.wanted && status.ok()) {
        status = absl::Status(outcome.status.code(),
                              absl::StrCat("block ", first + i, ": ", std::string(outcome.status.message())));
      }
    }
    // What was committed before the stream broke is not wanted again.
    if (absl::IsUnavailable(status) && pauses.Take(deadline)) continue;
    report.stored += sent;
    if (status.ok()) report.already += static_cast<uint32_t>(blocks.size()) - sent;
    return status;
  }
}

absl::StatusOr<PutReport> Client::Put(std::span<const store::PutBlock> blocks,
                                      const store::PutOptions& options) const {
  store::PutOptions mine = options;
  mine.part = options_.part;
  PutReport report;
  for (size_t at = 0; at < blocks.size();) {
    size_t end = at;
    uint64_t bytes = 0;
    while (end < blocks.size() && end - at < options_.stream_blocks &&
           (end == at || bytes + blocks[end].data.size() <= options_.stream_bytes))
      bytes += blocks[end++].data.size();
    QUIRE_RETURN_IF_ERROR(PutStream(blocks.subspan(at, end - at), at, mine, report));
    at = end;
  }
  return report;
}

absl::Status Client::Get(std::span<const BlockIdentity> blocks, store::GetOptions options,
                         const store::GetSink& sink) const {
  const store::RemoteStoreOptions& remote = options_.remote;
  auto timeout = options.timeout.count() > 0 ? options.timeout : remote.stream_timeout;
  store::Deadline deadline = system_clock::now() + timeout;
  store::Pauses pauses(remote.max_tries, remote.first_pause, remote.longest_pause);
  options.part = options_.part;
  bool stopped = false;  // by the sink: its status is no reason to go on
  size_t next = 0;       // the first block not handed out
  store::GetSink counting;
  size_t base = 0;
  auto hand = [&](uint32_t block, absl::Status status) {
    next = base + block + 1;
    stopped = !status.ok();
    return status;
  };
  counting.on_block = [&](uint32_t block, Bytes object) {
    return hand(block, sink.on_block(static_cast<uint32_t>(base + block), object));
  };
  counting.on_miss = [&](uint32_t block, const absl::Status& why) {
    return hand(block, sink.on_miss(static_cast<uint32_t>(base + block), why));
  };
  while (next < blocks.size()) {
    base = next;
    options.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - system_clock::now());
    if (options.timeout.count() <= 0)
      return absl::DeadlineExceededError(absl::StrCat("after ", next, " of ", blocks.size(), " blocks"));
    absl::Status status = remote_->Get(ns_, blocks.subspan(base, std::min(kMaxBlocks, blocks.size() - base)),
                                       options, counting);
    // A stream that broke goes on behind the last block it brought; RemoteStore has tried those that brought
    // none.
    if (!stopped && absl::IsUnavailable(status) && next > base && pauses.Take(deadline)) continue;
    QUIRE_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

std::unique_ptr<PrefixFetch> Client::Fetch(std::vector<BlockIdentity> chain, const FetchOptions& options,
                                           OnLayer on_layer) const {
  return PrefixFetch::Start(remote_, ns_, options_.part, std::move(chain), options, std::move(on_layer));
}

absl::StatusOr<uint32_t> Client::Count(std::span<const BlockIdentity> blocks, const AboutKeys& about) {
  std::vector<Digest> keys = KeysOf(blocks);
  uint32_t all = 0;
  for (size_t at = 0; at < keys.size(); at += kMaxKeys) {
    QUIRE_ASSIGN_OR_RETURN(uint32_t count,
                           about(std::span(keys).subspan(at, std::min(kMaxKeys, keys.size() - at))));
    all += count;
  }
  return all;
}

absl::StatusOr<uint32_t> Client::Pin(std::span<const BlockIdentity> blocks) const {
  return Count(blocks, [&](std::span<const Digest> keys) { return remote_->Pin(ns_, keys); });
}
absl::StatusOr<uint32_t> Client::Unpin(std::span<const BlockIdentity> blocks) const {
  return Count(blocks, [&](std::span<const Digest> keys) { return remote_->Unpin(ns_, keys); });
}
absl::StatusOr<uint32_t> Client::Touch(std::span<const BlockIdentity> blocks) const {
  return Count(blocks, [&](std::span<const Digest> keys) { return remote_->Touch(ns_, keys); });
}
absl::StatusOr<uint32_t> Client::Prefetch(std::span<const BlockIdentity> blocks, store::Tier tier) const {
  return Count(blocks, [&](std::span<const Digest> keys) { return remote_->Prefetch(ns_, keys, tier); });
}
absl::StatusOr<uint32_t> Client::Delete(std::span<const BlockIdentity> blocks, bool force) const {
  return Count(blocks, [&](std::span<const Digest> keys) { return remote_->Delete(ns_, keys, force); });
}

}  // namespace quire::client
