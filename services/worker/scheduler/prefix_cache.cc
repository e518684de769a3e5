#include "services/worker/scheduler/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "core/block/keys.h"
#include "core/block/layout.h"

namespace quire::worker {
namespace {

constexpr size_t kMaxBlocksPerGet = 1024;  // the wire's limit is 4096
constexpr size_t kMaxKeysPerLookup = 65536;

}  // namespace

std::vector<BlockIdentity> UsefulBlocks(const Digest& root, std::span<const uint32_t> prompt) {
  if (prompt.empty()) return {};
  size_t count = std::min((prompt.size() - 1) / kBlockTokens, kMaxKeysPerLookup);
  std::vector<Digest> keys = BlockKeys(root, prompt.first(count * kBlockTokens));
  std::vector<BlockIdentity> out(count);
  for (size_t i = 0; i < count; ++i)
    out[i] = {i == 0 ? root : keys[i - 1], keys[i], static_cast<uint32_t>(i)};
  return out;
}

std::vector<ObjectBytes> PrefixFetch::Take(size_t most) {
  std::lock_guard lock(mutex_);
  size_t count = std::min(most, objects_.size());
  std::vector<ObjectBytes> out(objects_.begin(), objects_.begin() + count);
  objects_.erase(objects_.begin(), objects_.begin() + count);
  return out;
}

bool PrefixFetch::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

bool PrefixFetch::has_objects() const {
  std::lock_guard lock(mutex_);
  return !objects_.empty();
}

bool PrefixFetch::Abandon() {
  std::lock_guard lock(mutex_);
  return !std::exchange(ended_, true);
}

PrefixCache::PrefixCache(StoreLink& link, int threads, std::shared_ptr<WakeUp> scheduler,
                         WorkerMetrics& metrics)
    : link_(link), scheduler_(std::move(scheduler)), metrics_(metrics) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

PrefixCache::~PrefixCache() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& fetch : queue_) fetch->Abandon();
    queue_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<PrefixFetch> PrefixCache::Start(std::string tenant, std::vector<BlockIdentity> blocks,
                                                std::chrono::milliseconds timeout) {
  if (blocks.empty() || !link_.usable()) return nullptr;
  auto fetch = std::make_shared<PrefixFetch>(std::move(tenant), std::move(blocks),
                                             PrefixFetch::Clock::now() + timeout);
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(fetch);
  }
  changed_.notify_one();
  return fetch;
}

void PrefixCache::Run() {
  for (;;) {
    std::shared_ptr<PrefixFetch> fetch;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      fetch = std::move(queue_.front());
      queue_.pop_front();
    }
    if (!fetch->ended()) Serve(*fetch);
    fetch->Abandon();
    scheduler_->Signal();
  }
}

void PrefixCache::Serve(PrefixFetch& fetch) {
  // The store may have failed since the fetch was queued.
  if (!link_.usable()) return;
  if (uint32_t blocks = Lookup(fetch); blocks > 0) Get(fetch, blocks);
}

uint32_t PrefixCache::Lookup(PrefixFetch& fetch) {
  std::vector<Digest> keys;
  for (const BlockIdentity& block : fetch.blocks_) keys.push_back(block.key);
  store::LookupOptions options;
  // Long enough that what was found is still there when the last of it is fetched.
  options.lease =
      std::chrono::duration_cast<std::chrono::milliseconds>(fetch.deadline_ - PrefixFetch::Clock::now());
  if (options.lease <= std::chrono::milliseconds(0)) return 0;
  store::Namespace ns = link_.NamespaceOf(fetch.tenant_);

  absl::StatusOr<store::LookupResult> found = link_.store().Lookup(ns, keys, options);
  if (absl::IsNotFound(found.status())) {
    // A restarted store has forgotten the layout, but perhaps not the blocks.
    absl::Status registered = link_.Register();
    found = registered.ok() ? link_.store().Lookup(ns, keys, options)
                            : absl::StatusOr<store::LookupResult>(registered);
  }
  if (!found.ok()) {
    link_.Failed(StoreOp::kLookup, found.status());
    return 0;
  }
  uint32_t hit = std::min<uint32_t>(found->prefix_blocks, keys.size());
  metrics_.lookup_hit_tokens.Increment(hit * kBlockTokens);
  metrics_.lookup_miss_tokens.Increment((keys.size() - hit) * kBlockTokens);
  return hit;
}

void PrefixCache::Get(PrefixFetch& fetch, uint32_t blocks) {
  for (size_t first = 0; first < blocks; first += kMaxBlocksPerGet) {
    auto wanted = std::span(fetch.blocks_).subspan(first, std::min<size_t>(kMaxBlocksPerGet, blocks - first));
    store::GetOptions options;
    options.timeout =
        std::chrono::duration_cast<std::chrono::milliseconds>(fetch.deadline_ - PrefixFetch::Clock::now());
    if (options.timeout <= std::chrono::milliseconds(0)) return;
    // A chain is worth nothing past its first gap: stop there, which is no failure of the store.
    bool gap = false;
    uint32_t next = 0;
    store::GetSink sink;
    sink.on_block = [&](uint32_t block, Bytes object) {
      auto copy = std::make_shared<const std::vector<uint8_t>>(object.begin(), object.end());
      std::lock_guard lock(fetch.mutex_);
      gap = block != next++ || fetch.ended_;
      if (gap) return absl::CancelledError("no more blocks wanted");
      fetch.objects_.push_back(std::move(copy));
      scheduler_->Signal();
      return absl::OkStatus();
    };
    sink.on_miss = [&](uint32_t, const absl::Status& why) {
      gap = true;
      if (!absl::IsNotFound(why)) link_.Failed(StoreOp::kGet, why);
      return absl::CancelledError("no more blocks wanted");
    };
    absl::Status status = link_.store().Get(link_.NamespaceOf(fetch.tenant_), wanted, options, sink);
    if (gap) return;
    if (!status.ok()) {
      link_.Failed(StoreOp::kGet, status);
      return;
    }
    link_.Succeeded();
    if (next != wanted.size()) return;
  }
}

}  // namespace quire::worker
