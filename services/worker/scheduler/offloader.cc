#include "services/worker/scheduler/offloader.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

constexpr size_t kBlocksPerBatch = 16;  // how long one sequence may keep others waiting
constexpr size_t kWriteBytes = 1 << 20;
constexpr int kMaxRestarts = 2;  // a store that keeps losing a chain's beginning has no room for it

// Blocks before the first that could not be encoded: what comes after it has no stored parent.
std::span<const SealedBlock> Encodable(std::span<const SealedBlock> blocks) {
  auto bad =
      std::find_if(blocks.begin(), blocks.end(), [](const SealedBlock& b) { return b.object == nullptr; });
  return blocks.first(bad - blocks.begin());
}

// Whether a refusal may mean that a block's parent is gone.
bool MayBeMissingParent(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status) || absl::IsNotFound(status);
}

}  // namespace

Offloader::Offloader(StoreLink& link, const OffloaderOptions& options, WorkerMetrics& metrics)
    : link_(link), options_(options), metrics_(metrics), thread_([this] { Run(); }) {}

Offloader::~Offloader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Offloader::Offer(const std::shared_ptr<OffloadChain>& chain, std::span<const SealedBlock> blocks,
                      bool last) {
  {
    std::lock_guard lock(mutex_);
    if (chain->given_up_) return;
    chain->closed_ = last;
    blocks = Encodable(blocks);
    if (link_.usable()) Append(*chain, blocks);
    if (last && blocks.size() > std::max(chain->blocks_.size(), chain->stored_)) {
      metrics_.offload_dropped_blocks.Increment(blocks.size() -
                                                std::max(chain->blocks_.size(), chain->stored_));
    }
    if (chain->queued_) return;  // Settle sees what is new, and that the chain is closed
    if (!link_.usable()) {
      if (last) GiveUp(*chain);
      return;
    }
    Requeue(chain);
  }
  changed_.notify_all();
}

// Takes in what is new, as far as the queue has room.
void Offloader::Append(OffloadChain& chain, std::span<const SealedBlock> blocks) {
  for (size_t i = chain.blocks_.size(); i < blocks.size(); ++i) {
    if (i >= chain.stored_) {
      uint64_t bytes = blocks[i].object->size();
      if (queued_bytes_ + bytes > options_.max_queued_bytes) return;
      queued_bytes_ += bytes;
      chain.queued_bytes_ += bytes;
    }
    chain.blocks_.push_back(blocks[i]);
  }
}

void Offloader::Requeue(std::shared_ptr<OffloadChain> chain) {
  chain->queued_ = chain->blocks_.size() > chain->stored_;
  if (chain->queued_) queue_.push_back(std::move(chain));
}

void Offloader::Restart(OffloadChain& chain) {
  ++chain.restarts_;
  queued_bytes_ -= chain.queued_bytes_;
  chain.stored_ = 0;
  chain.queued_bytes_ = 0;
  for (const SealedBlock& block : chain.blocks_) chain.queued_bytes_ += block.object->size();
  queued_bytes_ += chain.queued_bytes_;  // may pass the limit once: all of it is still in the sequence anyway
}

void Offloader::GiveUp(OffloadChain& chain) {
  if (chain.blocks_.size() > chain.stored_)
    metrics_.offload_dropped_blocks.Increment(chain.blocks_.size() - chain.stored_);
  queued_bytes_ -= chain.queued_bytes_;
  chain.queued_bytes_ = 0;
  chain.blocks_.clear();
  chain.queued_ = false;
  chain.given_up_ = true;
}

void Offloader::Remove(const std::string& tenant, const Digest& key) {
  {
    std::lock_guard lock(mutex_);
    removals_.push_back({tenant, key});
  }
  changed_.notify_all();
}

bool Offloader::Flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return queue_.empty() && removals_.empty() && !writing_; });
}

void Offloader::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty() || !removals_.empty(); });
    if (stopping_) return;
    writing_ = true;
    if (!removals_.empty()) {
      Removal removal = std::move(removals_.front());
      removals_.pop_front();
      lock.unlock();
      if (link_.usable()) {
        auto removed = link_.store().Delete(link_.NamespaceOf(removal.tenant), std::span(&removal.key, 1),
                                            /*force=*/true);
        if (!removed.ok()) link_.Failed(StoreOp::kDelete, removed.status());
      }
      lock.lock();
    } else {
      Batch batch = NextBatch();
      lock.unlock();
      Written written = Write(batch);
      lock.lock();
      Settle(std::move(batch), written);
    }
    writing_ = false;
    changed_.notify_all();
  }
}

Offloader::Batch Offloader::NextBatch() {
  Batch batch{std::move(queue_.front()), 0, {}};
  queue_.pop_front();
  const OffloadChain& chain = *batch.chain;
  batch.first = chain.stored_;
  size_t end = std::min(chain.blocks_.size(), batch.first + kBlocksPerBatch);
  batch.blocks.assign(chain.blocks_.begin() + batch.first, chain.blocks_.begin() + end);
  return batch;
}

Offloader::Written Offloader::Write(const Batch& batch) {
  Written written;
  if (!link_.usable()) return {0, absl::UnavailableError("the store is not used now")};
  store::Namespace ns = link_.NamespaceOf(batch.chain->tenant_);
  std::vector<store::BlockAnnounce> announces;
  for (const SealedBlock& block : batch.blocks) announces.push_back({block.identity, block.object->size()});

  auto session = link_.store().BeginPut(ns, announces, {});
  if (absl::IsNotFound(session.status()) && link_.Register().ok())
    session = link_.store().BeginPut(ns, announces, {});
  written.status = session.status();
  if (session.ok()) {
    const std::vector<uint32_t>& wanted = (*session)->wanted();
    for (uint32_t i = 0; i < batch.blocks.size() && written.status.ok(); ++i) {
      if (std::find(wanted.begin(), wanted.end(), i) == wanted.end()) {
        metrics_.offload_present_blocks.Increment();
      } else {
        written.status = WriteBlock(**session, i, batch.blocks[i]);
      }
      if (written.status.ok()) ++written.blocks;
    }
  }
  if (!written.status.ok()) link_.Failed(StoreOp::kPut, written.status);
  return written;
}

absl::Status Offloader::WriteBlock(store::PutSession& session, uint32_t block, const SealedBlock& sealed) {
  Bytes object(*sealed.object);
  for (size_t offset = 0; offset < object.size(); offset += kWriteBytes) {
    QUIRE_RETURN_IF_ERROR(
        session.Write(block, offset, object.subspan(offset, std::min(kWriteBytes, object.size() - offset))));
  }
  QUIRE_RETURN_IF_ERROR(session.Commit(block).status());
  metrics_.offloaded_blocks.Increment();
  metrics_.offloaded_bytes.Increment(static_cast<double>(object.size()));
  return absl::OkStatus();
}

void Offloader::Settle(Batch batch, const Written& written) {
  OffloadChain& chain = *batch.chain;
  for (size_t i = 0; i < written.blocks; ++i) {
    queued_bytes_ -= batch.blocks[i].object->size();
    chain.queued_bytes_ -= batch.blocks[i].object->size();
  }
  chain.stored_ += written.blocks;
  chain.queued_ = false;
  if (written.status.ok()) return Requeue(std::move(batch.chain));
  if (MayBeMissingParent(written.status) && chain.stored_ > 0 && chain.restarts_ < kMaxRestarts) {
    Restart(chain);
    return Requeue(std::move(batch.chain));
  }
  // An outage or a full store: tried again with the sequence's next block. Anything else won't get better.
  bool may_work_later = !MayBeMissingParent(written.status) && !absl::IsDataLoss(written.status) &&
                        !absl::IsPermissionDenied(written.status);
  if (chain.closed_ || !may_work_later) GiveUp(chain);
}

}  // namespace quire::worker
