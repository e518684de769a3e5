// The ring of a tenant's events.
#include "services/store/engine/event_log.h"

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "gmock/gmock.h"

namespace quire::store {
namespace {

using std::chrono::steady_clock;
using testing::HasSubstr;

StoreEvent Event(uint32_t number) {
  StoreEvent event;
  event.layout = number;
  return event;
}
steady_clock::time_point Never() { return steady_clock::now() + std::chrono::minutes(1); }
std::vector<StoreEvent> ReadNow(EventLog& log, uint32_t tenant, uint64_t sequence, size_t most = 1 << 20) {
  absl::StatusOr<std::vector<StoreEvent>> events = log.Read(tenant, sequence, most, steady_clock::now());
  EXPECT_TRUE(events.ok()) << events.status();
  return events.value_or(std::vector<StoreEvent>{});
}

TEST(EventLog, ReplaysInOrder) {
  EventLog log;
  EXPECT_NE(log.run(), 0u);
  EXPECT_EQ(log.NextSequence(1), 1u);
  EXPECT_TRUE(ReadNow(log, 1, 1).empty());
  for (uint32_t i = 1; i <= 1000; ++i) log.Append(1, Event(i));
  std::vector<StoreEvent> events = ReadNow(log, 1, 1);
  ASSERT_EQ(events.size(), 1000u);
  for (uint32_t i = 0; i < 1000; ++i) EXPECT_EQ(events[i].layout, i + 1);
  events = ReadNow(log, 1, 700, 10);
  ASSERT_EQ(events.size(), 10u);
  EXPECT_EQ(events[0].layout, 700u);
  EXPECT_TRUE(ReadNow(log, 1, 1001).empty());
}

// Against the simplest twin there is: all events of each tenant, for ever.
TEST(EventLog, KeepsTheLatestWhateverTheSizes) {
  for (size_t per_tenant : {1, 128, 200, 1024}) {
    for (size_t in_all : {0, 256, 100'000}) {
      EventLog log({per_tenant, in_all});
      std::map<uint32_t, std::vector<uint32_t>> all;
      std::mt19937 random(9);
      for (uint32_t i = 0; i < 5000; ++i) {
        uint32_t tenant = random() % 3;
        log.Append(tenant, Event(i));
        all[tenant].push_back(i);
      }
      size_t kept = 0;
      for (const auto& [tenant, twin] : all) {
        EXPECT_EQ(log.NextSequence(tenant), twin.size() + 1);
        uint64_t oldest = 1;
        while (!log.Read(tenant, oldest, 0, steady_clock::now()).ok()) ++oldest;
        std::vector<StoreEvent> events = ReadNow(log, tenant, oldest);
        ASSERT_EQ(events.size(), twin.size() + 1 - oldest);
        for (size_t k = 0; k < events.size(); ++k) EXPECT_EQ(events[k].layout, twin[oldest - 1 + k]);
        EXPECT_LE(events.size(), std::max<size_t>(per_tenant, 128));
        EXPECT_GE(events.size(), 1u);
        kept += events.size();
        if (oldest > 1) {
          absl::Status old = log.Read(tenant, oldest - 1, 1, steady_clock::now()).status();
          EXPECT_EQ(old.code(), absl::StatusCode::kOutOfRange);
          EXPECT_THAT(std::string(old.message()), HasSubstr("the oldest kept is " + std::to_string(oldest)));
        }
      }
      EXPECT_LE(kept, std::max<size_t>(in_all, 3 * 64));
    }
  }
}

TEST(EventLog, ATenantSeesNothingOfTheOthers) {
  EventLog log({128, 1 << 20});
  log.Append(1, Event(7));
  for (uint32_t i = 0; i < 100'000; ++i) log.Append(2, Event(i));
  EXPECT_EQ(log.NextSequence(1), 2u);
  ASSERT_EQ(ReadNow(log, 1, 1).size(), 1u);  // not pushed out by the other's
  log.Append(1, Event(8));
  EXPECT_EQ(ReadNow(log, 1, 2)[0].layout, 8u);
}

TEST(EventLog, TellsWhatIsNotToCome) {
  EventLog log;
  log.Append(1, Event(1));
  absl::Status status = log.Read(1, 3, 1, Never()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the next is 2"));
}

TEST(EventLog, WaitsForTheNextEventOfItsTenant) {
  EventLog log;
  std::atomic<bool> came = false;
  std::thread reader([&] {
    absl::StatusOr<std::vector<StoreEvent>> events = log.Read(1, 1, 10, Never());
    ASSERT_TRUE(events.ok());
    ASSERT_GE(events->size(), 1u);
    EXPECT_EQ((*events)[0].layout, 5u);
    came = true;
  });
  log.Append(2, Event(4));
  log.Append(1, Event(5));
  reader.join();
  EXPECT_TRUE(came);
  // Wake ends a wait without an event; one that begins afterwards waits again, so this asks until it has.
  std::thread waiter([&] {
    EXPECT_TRUE(log.Read(1, 2, 10, Never())->empty());
    came = false;
  });
  while (came) {
    log.Wake();
    std::this_thread::yield();
  }
  waiter.join();
}

TEST(EventLog, ASlowReaderIsToldAndAFastOneMissesNothing) {
  EventLog log({256, 1 << 20});
  constexpr uint32_t kEvents = 20'000;
  std::atomic<uint64_t> read_to{1};
  std::thread reader([&] {
    uint64_t next = 1;
    while (next <= kEvents) {
      absl::StatusOr<std::vector<StoreEvent>> events = log.Read(1, next, 50, Never());
      ASSERT_TRUE(events.ok()) << events.status();
      for (const StoreEvent& event : *events) ASSERT_EQ(event.layout, next++);
      read_to = next;
    }
  });
  for (uint32_t i = 1; i <= kEvents; ++i) {
    while (i > read_to + 150) std::this_thread::yield();  // never so far ahead that its chunk goes
    log.Append(1, Event(i));
  }
  reader.join();
  EXPECT_EQ(log.Read(1, 1, 1, Never()).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(EventLog, ManyTenantsManyThreads) {
  EventLog log({512, 4096});
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < 5000; ++i) log.Append((i + t) % 8, Event(i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t all = 0;
  for (uint32_t tenant = 0; tenant < 8; ++tenant) all += log.NextSequence(tenant) - 1;
  EXPECT_EQ(all, 4u * 5000);
}

}  // namespace
}  // namespace quire::store
