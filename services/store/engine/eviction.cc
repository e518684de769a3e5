#include "services/store/engine/eviction.h"

#include <algorithm>
#include <deque>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace quire::store {

void EvictionPolicy::Forget(EvictionEntry* entry) {
  if (entry->queued) Dequeue(entry);
  if (entry->parked_until != 0) parked_.erase({entry->parked_until, entry});
  entry->parked_until = 0;
}

void EvictionPolicy::Add(EvictionEntry* entry) {
  std::lock_guard lock(mu_);
  if (!entry->queued && entry->parked_until == 0) Enqueue(entry);
}

void EvictionPolicy::Remove(EvictionEntry* entry) {
  std::lock_guard lock(mu_);
  Forget(entry);
}

void EvictionPolicy::Park(EvictionEntry* entry, int64_t until_ms) {
  std::lock_guard lock(mu_);
  Forget(entry);
  entry->parked_until = until_ms;
  parked_.emplace(until_ms, entry);
}

std::optional<BlockName> EvictionPolicy::PopVictim(uint64_t before, int64_t now_ms) {
  std::lock_guard lock(mu_);
  while (!parked_.empty() && parked_.begin()->first <= now_ms) {
    EvictionEntry* entry = parked_.begin()->second;
    Forget(entry);
    Enqueue(entry);
  }
  EvictionEntry* victim = Next(before);
  if (victim == nullptr) return std::nullopt;
  return *victim->name;
}

namespace {

using Order = EvictionEntry::Order;
// Ticks are handed out once, but a block may be candidate twice under one: the address tells entries apart.
using Queue = absl::btree_map<std::pair<Order, EvictionEntry*>, std::monostate>;

uint64_t LastUsed(const EvictionEntry& entry) {
  return entry.usage->last_used.load(std::memory_order_relaxed);
}
uint32_t Uses(const EvictionEntry& entry) { return entry.usage->uses.load(std::memory_order_relaxed); }

void Insert(Queue& queue, EvictionEntry* entry, Order order) {
  entry->queued = order;
  queue.try_emplace({order, entry});
}
void Erase(Queue& queue, EvictionEntry* entry) {
  queue.erase({*entry->queued, entry});
  entry->queued.reset();
}

// Least recently used first, exactly: candidates wait under the tick they were queued with, and one that was
// used since is moved when its turn comes, which each touch causes at most once.
class LruPolicy : public EvictionPolicy {
  void Enqueue(EvictionEntry* entry) override {
    Insert(queue_, entry, {entry->priority, LastUsed(*entry), 0});
  }
  void Dequeue(EvictionEntry* entry) override { Erase(queue_, entry); }
  EvictionEntry* Next(uint64_t before) override {
    while (!queue_.empty()) {
      EvictionEntry* entry = queue_.begin()->first.second;
      uint64_t tick = std::get<1>(*entry->queued);
      if (tick >= before) return nullptr;
      Dequeue(entry);
      if (LastUsed(*entry) == tick) return entry;
      Enqueue(entry);
    }
    return nullptr;
  }

  Queue queue_;
};

// S3-FIFO (Yang and others, SOSP 2023): new blocks wait in a small queue, and only those used again there, or
// seen again soon after they left it, reach the main one, which gives every use another round. Blocks that
// cease to be candidates keep their place for when they are again.
class S3FifoPolicy : public EvictionPolicy {
  static constexpr uint8_t kNew = 0, kSmall = 1, kMain = 2;
  static constexpr size_t kSmallShare = 10;  // a tenth of all candidates
  static constexpr uint32_t kMostUses = 3;

  void Enqueue(EvictionEntry* entry) override {
    if (entry->queue == kNew) {
      auto seen = ghosts_.find(absl::Hash<BlockName>{}(*entry->name));
      entry->queue = seen == ghosts_.end() ? kSmall : kMain;
      entry->credited = Uses(*entry);
    }
    Insert(QueueOf(*entry), entry, {entry->priority, ++arrivals_, 0});
  }
  void Dequeue(EvictionEntry* entry) override { Erase(QueueOf(*entry), entry); }

  EvictionEntry* Next(uint64_t) override {
    // Every turn takes a block out or uses some of its uses up, so this ends.
    while (!small_.empty() || !main_.empty()) {
      bool from_small = main_.empty() || small_.size() * kSmallShare > small_.size() + main_.size();
      Queue& queue = from_small && !small_.empty() ? small_ : main_;
      EvictionEntry* entry = queue.begin()->first.second;
      Dequeue(entry);
      uint32_t uses = std::min(Uses(*entry) - entry->credited, kMostUses);
      if (entry->queue == kSmall) {
        if (uses == 0) {
          Remember(*entry->name);
          entry->queue = kNew;
          return entry;
        }
        entry->queue = kMain;
        entry->credited = Uses(*entry);
      } else {
        if (uses == 0) {
          entry->queue = kNew;
          return entry;
        }
        entry->credited = Uses(*entry) - (uses - 1);
      }
      Insert(main_, entry, {entry->priority, ++arrivals_, 0});
    }
    return nullptr;
  }

  Queue& QueueOf(const EvictionEntry& entry) { return entry.queue == kSmall ? small_ : main_; }

  void Remember(const BlockName& name) {
    size_t hash = absl::Hash<BlockName>{}(name);
    ++ghosts_[hash];
    ghost_order_.push_back(hash);
    while (ghost_order_.size() > std::max<size_t>(main_.size(), 64)) {
      auto oldest = ghosts_.find(ghost_order_.front());
      if (--oldest->second == 0) ghosts_.erase(oldest);
      ghost_order_.pop_front();
    }
  }

  Queue small_, main_;
  uint64_t arrivals_ = 0;
  absl::flat_hash_map<size_t, uint32_t> ghosts_;  // hash of the name → times in ghost_order_
  std::deque<size_t> ghost_order_;
};

// Least frequently used first, with dynamic aging: a block counts its uses from the rank of the last victim
// when it became a candidate, so old fame fades.
class LfuPolicy : public EvictionPolicy {
  void Enqueue(EvictionEntry* entry) override {
    if (entry->queue == 0) {
      entry->queue = 1;
      entry->credited = 0;
    }
    Insert(queue_, entry, {entry->priority, age_ + Uses(*entry), LastUsed(*entry)});
  }
  void Dequeue(EvictionEntry* entry) override { Erase(queue_, entry); }
  EvictionEntry* Next(uint64_t before) override {
    while (!queue_.empty()) {
      EvictionEntry* entry = queue_.begin()->first.second;
      auto [priority, rank, tick] = *entry->queued;
      if (tick >= before) return nullptr;
      Dequeue(entry);
      if (LastUsed(*entry) == tick) {
        age_ = std::max(age_, rank);
        return entry;
      }
      Enqueue(entry);
    }
    return nullptr;
  }

  Queue queue_;
  uint64_t age_ = 0;
};

}  // namespace

absl::StatusOr<PolicyKind> ParsePolicyKind(std::string_view name) {
  if (name == "lru") return PolicyKind::kLru;
  if (name == "s3fifo") return PolicyKind::kS3Fifo;
  if (name == "lfu") return PolicyKind::kLfu;
  return absl::InvalidArgumentError(
      absl::StrCat("eviction policy ", std::string(name), ": there are lru, s3fifo and lfu"));
}

std::unique_ptr<EvictionPolicy> NewEvictionPolicy(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kS3Fifo:
      return std::make_unique<S3FifoPolicy>();
    case PolicyKind::kLfu:
      return std::make_unique<LfuPolicy>();
    case PolicyKind::kLru:
      break;
  }
  return std::make_unique<LruPolicy>();
}

}  // namespace quire::store
