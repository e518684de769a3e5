#include "services/store/client/prefix_fetch.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "services/store/api/limits.h"

namespace quire::client {

struct PrefixFetch::Work {
  std::shared_ptr<store::RemoteStore> remote;
  store::Namespace ns;
  Part part;
  std::vector<BlockIdentity> chain;
  FetchOptions options;
  OnLayer on_layer;
};

std::unique_ptr<PrefixFetch> PrefixFetch::Start(std::shared_ptr<store::RemoteStore> remote,
                                                const store::Namespace& ns, const Part& part,
                                                std::vector<BlockIdentity> chain, const FetchOptions& options,
                                                OnLayer on_layer) {
  std::unique_ptr<PrefixFetch> fetch(new PrefixFetch());
  Work work{std::move(remote), ns, part, std::move(chain), options, std::move(on_layer)};
  work.chain.resize(std::min<size_t>({work.chain.size(), options.max_blocks, store::kMaxKeys}));
  fetch->thread_ = std::thread([fetch = fetch.get(), work = std::move(work)] {
    absl::Status status = fetch->Run(work);
    std::lock_guard lock(fetch->mu_);
    if (!status.ok() && fetch->cancelled_) status = absl::CancelledError("the fetch was cancelled");
    if (!fetch->blocks_) fetch->blocks_ = 0;
    fetch->result_ = std::move(status);
    fetch->changed_.notify_all();
  });
  return fetch;
}

PrefixFetch::~PrefixFetch() {
  Cancel();
  thread_.join();
}

uint32_t PrefixFetch::blocks() const {
  std::unique_lock lock(mu_);
  changed_.wait(lock, [&] { return blocks_.has_value(); });
  return *blocks_;
}

absl::Status PrefixFetch::Wait() const {
  std::unique_lock lock(mu_);
  changed_.wait(lock, [&] { return result_.has_value(); });
  return *result_;
}

bool PrefixFetch::done() const {
  std::lock_guard lock(mu_);
  return result_.has_value();
}

void PrefixFetch::Cancel() {
  std::lock_guard lock(mu_);
  cancelled_ = true;
  for (const auto& stream : streams_) stream->Cancel();
}

bool PrefixFetch::cancelled() const {
  std::lock_guard lock(mu_);
  return cancelled_;
}

void PrefixFetch::Announce(uint32_t blocks) {
  std::lock_guard lock(mu_);
  blocks_ = blocks;
  changed_.notify_all();
}

absl::Status PrefixFetch::Run(const Work& work) {
  QUIRE_RETURN_IF_ERROR(Open(work));
  uint32_t blocks = 0;
  for (const auto& stream : streams_) blocks += stream->blocks();
  Announce(blocks);
  return blocks == 0 ? absl::OkStatus() : HandOut(work);
}

absl::Status PrefixFetch::Open(const Work& work) {
  std::vector<Digest> keys;
  for (const BlockIdentity& block : work.chain) keys.push_back(block.key);
  store::LookupOptions lookup;
  lookup.part = work.part;
  lookup.lease = work.options.lease;
  QUIRE_ASSIGN_OR_RETURN(store::LookupResult found, work.remote->Lookup(work.ns, keys, lookup));

  store::GetOptions get;
  get.part = work.part;
  get.max_bits = work.options.max_bits;
  get.max_relative_error = work.options.max_relative_error;
  get.timeout = work.options.timeout;
  std::span<const BlockIdentity> prefix = std::span(work.chain).first(found.prefix_blocks);
  while (!prefix.empty()) {
    if (cancelled()) return absl::CancelledError("");
    std::span<const BlockIdentity> batch = prefix.first(std::min(prefix.size(), store::kMaxBlocks));
    QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::LayerStream> stream,
                           work.remote->OpenLayers(work.ns, batch, get, found.lease_id));
    bool whole = stream->blocks() == batch.size();
    {
      std::lock_guard lock(mu_);
      if (cancelled_) stream->Cancel();
      if (stream->blocks() > 0) streams_.push_back(std::move(stream));
    }
    if (!whole) break;
    prefix = prefix.subspan(batch.size());
  }
  return absl::OkStatus();
}

absl::Status PrefixFetch::HandOut(const Work& work) {
  Layer layer;
  for (;; ++layer.number) {
    layer.blocks.clear(), layer.reader_layers.clear();
    for (const auto& stream : streams_) {
      absl::StatusOr<std::span<const BlockReader>> readers = stream->Next();
      if (absl::IsOutOfRange(readers.status())) return absl::OkStatus();
      QUIRE_RETURN_IF_ERROR(readers.status());
      for (uint32_t i = 0; i < readers->size(); ++i) {
        layer.blocks.push_back(&(*readers)[i]);
        layer.reader_layers.push_back(stream->reader_layer(i));
      }
    }
    QUIRE_RETURN_IF_ERROR(work.on_layer(layer));
    if (cancelled()) return absl::CancelledError("");
  }
}

}  // namespace quire::client
