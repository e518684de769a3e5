#include "services/store/redis/ledger.h"

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

uint64_t HashOf(const ObjectName& name) { return Xxh3(AsBytes(name.Encode())); }

}  // namespace

absl::Status Ledger::Reserve(const ObjectName& name, uint64_t bytes, int64_t now_ms) {
  uint64_t hash = HashOf(name);
  std::lock_guard lock(mu_);
  DropExpired(now_ms);
  auto entry = entries_.find(hash);
  uint64_t others = used_ - (entry == entries_.end() ? 0 : entry->second.bytes);
  if (capacity_ != 0 && (bytes > capacity_ || others > capacity_ - bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("redis share is full: ", used_, " of ", capacity_,
                                                     " bytes are used, ", bytes, " more are wanted"));
  }
  used_ += bytes;
  return absl::OkStatus();
}

void Ledger::Return(uint64_t bytes) {
  std::lock_guard lock(mu_);
  used_ -= bytes;
}

void Ledger::Commit(const ObjectName& name, uint64_t bytes, int64_t expires_ms) {
  uint64_t hash = HashOf(name);
  std::lock_guard lock(mu_);
  Entry& entry = entries_[hash];
  used_ -= entry.bytes;
  entry = {bytes, expires_ms};
  if (expires_ms != 0) expiries_.emplace(expires_ms, hash);
}

void Ledger::Shrink(const ObjectName& name, uint64_t bytes) {
  uint64_t hash = HashOf(name);
  std::lock_guard lock(mu_);
  auto entry = entries_.find(hash);
  if (entry == entries_.end() || entry->second.bytes <= bytes) return;
  used_ -= entry->second.bytes - bytes;
  entry->second.bytes = bytes;
}

void Ledger::Forget(const ObjectName& name) {
  uint64_t hash = HashOf(name);
  std::lock_guard lock(mu_);
  auto entry = entries_.find(hash);
  if (entry == entries_.end()) return;
  used_ -= entry->second.bytes;
  entries_.erase(entry);
}

bool Ledger::Holds(const ObjectName& name) {
  uint64_t hash = HashOf(name);
  std::lock_guard lock(mu_);
  return entries_.contains(hash);
}

uint64_t Ledger::used_bytes(int64_t now_ms) {
  std::lock_guard lock(mu_);
  DropExpired(now_ms);
  return used_;
}

void Ledger::DropExpired(int64_t now_ms) {
  while (!expiries_.empty() && expiries_.top().first <= now_ms) {
    auto [when, hash] = expiries_.top();
    expiries_.pop();
    auto entry = entries_.find(hash);
    if (entry == entries_.end() || entry->second.expires_ms != when) continue;  // removed or written anew
    used_ -= entry->second.bytes;
    entries_.erase(entry);
  }
}

}  // namespace quire::store::redis
