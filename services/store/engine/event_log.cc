#include "services/store/engine/event_log.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

uint64_t NewRun() {
  std::random_device random;
  uint64_t run = (uint64_t{random()} << 32) ^ random();
  return std::max<uint64_t>(run, 1);
}

}  // namespace

EventLog::EventLog(Options options)
    : chunks_per_tenant_(std::max<size_t>(2, options.events_per_tenant / kChunkEvents)),
      chunks_in_all_(options.events_in_all / kChunkEvents),
      run_(NewRun()) {}

EventLog::TenantLog& EventLog::LogOf(uint32_t tenant) {
  {
    std::shared_lock lock(mu_);
    if (auto it = tenants_.find(tenant); it != tenants_.end()) return *it->second;
  }
  std::lock_guard lock(mu_);
  std::unique_ptr<TenantLog>& log = tenants_[tenant];
  if (log == nullptr) log = std::make_unique<TenantLog>();
  return *log;
}

void EventLog::MakeRoom(TenantLog& log) {
  if ((log.next - log.first) % kChunkEvents != 0) return;
  bool may_grow = log.chunks.size() < chunks_per_tenant_ &&
                  (chunks_.load(std::memory_order_relaxed) < chunks_in_all_ || log.chunks.empty());
  if (may_grow) {
    chunks_.fetch_add(1, std::memory_order_relaxed);
    log.chunks.push_back(std::make_unique<Chunk>());
    return;
  }
  log.chunks.push_back(std::move(log.chunks.front()));
  log.chunks.pop_front();
  log.first += kChunkEvents;
}

void EventLog::Append(uint32_t tenant, const StoreEvent& event) {
  TenantLog& log = LogOf(tenant);
  std::lock_guard lock(log.mu);
  MakeRoom(log);
  (*log.chunks.back())[(log.next - log.first) % kChunkEvents] = event;
  ++log.next;
  if (log.waiting > 0) log.changed.notify_all();
}

absl::StatusOr<std::vector<StoreEvent>> EventLog::Read(uint32_t tenant, uint64_t sequence, size_t most,
                                                       std::chrono::steady_clock::time_point until) {
  TenantLog& log = LogOf(tenant);
  std::unique_lock lock(log.mu);
  if (sequence > log.next) {
    return absl::OutOfRangeError(absl::StrCat("event ", sequence, " is not to come: the next is ", log.next,
                                              " (has the store been restarted?)"));
  }
  if (sequence == log.next) {
    ++log.waiting;
    log.changed.wait_until(lock, until,
                           [&, wakes = log.wakes] { return log.next > sequence || log.wakes != wakes; });
    --log.waiting;
  }
  if (sequence < log.first) {
    return absl::OutOfRangeError(
        absl::StrCat("event ", sequence, " is too old: the oldest kept is ", log.first));
  }
  std::vector<StoreEvent> events(std::min<uint64_t>(most, log.next - sequence));
  for (size_t i = 0; i < events.size(); ++i) {
    uint64_t at = sequence + i - log.first;
    events[i] = (*log.chunks[at / kChunkEvents])[at % kChunkEvents];
  }
  return events;
}

uint64_t EventLog::NextSequence(uint32_t tenant) {
  TenantLog& log = LogOf(tenant);
  std::lock_guard lock(log.mu);
  return log.next;
}

void EventLog::Wake() {
  std::shared_lock lock(mu_);
  for (auto& [tenant, log] : tenants_) {
    std::lock_guard log_lock(log->mu);
    ++log->wakes;
    log->changed.notify_all();
  }
}

}  // namespace quire::store
