// The background scrub: what is wrong is found and dropped though nobody asks for it, at the set rate, and it
// goes on where it was.
#include <filesystem>
#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "services/runtime/metrics.h"
#include "services/store/disk/disk_tier.h"
#include "services/store/engine/local_store.h"
#include "services/store/engine/scrubber.h"
#include "tests/services/store/sample_chain.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
constexpr milliseconds kPatience{20'000};
constexpr int64_t kSecond = 1'000'000;

// A scrubber over an index of made-up copies, with a clock of its own.
class ScrubberTest : public testing::Test {
 protected:
  static IndexOptions Index() {
    IndexOptions options;
    options.stored = [](uint32_t, int64_t) {};
    options.floor_levels = [](uint32_t) { return 1; };
    return options;
  }
  static Digest KeyOf(uint32_t n) { return Sha256().Update("block").UpdateU32(n).Finish(); }
  void Add(uint32_t n, uint64_t bytes, Tier tier = Tier::kDisk, uint32_t tenant = 0) {
    auto object = std::make_shared<StoredObject>();
    object->part = {0, 2, 0, 2};
    object->tier = tier;
    object->record.levels = 1;
    object->record.ends[0] = bytes;
    BlockIdentity identity{Digest{}, KeyOf(n), 0};
    BlockName name{tenant, 0, identity.key};
    if (index_.PeekAny(name) != nullptr) {
      ASSERT_EQ(index_.AddCopy(name, object), object);
    } else {
      ASSERT_TRUE(index_.Adopt(name, identity, object, n + 1).ok());
    }
  }
  std::unique_ptr<Scrubber> Make(ScrubOptions options) {
    return std::make_unique<Scrubber>(
        options, index_, counters_,
        [this](const BlockName& name, const StoredObjectPtr& copy) {
          checked_.push_back({name, copy->tier});
          bytes_ += copy->record.bytes();
          return absl::OkStatus();
        },
        [this] { return activity_; });
  }
  // Steps until the clock says `until`.
  void RunTo(Scrubber& scrubber, int64_t until) {
    while (true) {
      int64_t due = scrubber.Step(now_);
      if (due > until) break;
      now_ = std::max(now_, due);
      if (busy_) ++activity_;
    }
    now_ = until;
  }
  double CounterOf(const std::string& family) {
    for (const auto& f : registry_->Collect()) {
      if (f.name == family) return f.metric.front().counter.value + f.metric.front().gauge.value;
    }
    ADD_FAILURE() << family;
    return -1;
  }

  std::shared_ptr<prometheus::Registry> registry_ = runtime::NewRegistry();
  EventLog events_;
  StoreCounters counters_{*registry_, events_};
  BlockIndex index_{Index()};
  std::vector<std::pair<BlockName, Tier>> checked_;
  uint64_t bytes_ = 0, activity_ = 0;
  bool busy_ = false;
  int64_t now_ = 1000 * kSecond;
};

TEST_F(ScrubberTest, HoldsItsRate) {
  for (uint32_t n = 0; n < 500; ++n) Add(n, 1000 + n * 37 % 9000);
  ScrubOptions options;
  options.bytes_per_second = 100'000;
  options.least_round_ms = 0;
  auto scrubber = Make(options);
  int64_t start = now_;
  for (int second = 1; second <= 120; ++second) {
    RunTo(*scrubber, start + second * kSecond);
    EXPECT_LE(bytes_, 100'000u * static_cast<uint64_t>(second) + 10'000);
  }
  // Some of the time went by at the ends of rounds, a second each.
  EXPECT_GE(static_cast<double>(bytes_), 100'000.0 * 120 * 0.9);
  EXPECT_GE(CounterOf("quire_store_scrub_rounds_total"), 3);
  EXPECT_EQ(scrubber->Step(now_ - 1), scrubber->Step(now_ - 1));  // not due: nothing happens
}

TEST_F(ScrubberTest, MakesUpForASecondAtMost) {
  for (uint32_t n = 0; n < 2000; ++n) Add(n, 1000);
  ScrubOptions options;
  options.bytes_per_second = 10'000;
  auto scrubber = Make(options);
  RunTo(*scrubber, now_ + 10 * kSecond);
  now_ += 3600 * kSecond;  // nobody called it for an hour
  uint64_t before = bytes_;
  RunTo(*scrubber, now_);
  EXPECT_LE(bytes_ - before, 10'000u + 1000);
}

TEST_F(ScrubberTest, GivesWayToOtherWork) {
  for (uint32_t n = 0; n < 2000; ++n) Add(n, 1000);
  ScrubOptions options;
  options.bytes_per_second = 100'000;
  options.load_factor = 4;
  auto scrubber = Make(options);
  busy_ = true;
  RunTo(*scrubber, now_ + 10 * kSecond);
  EXPECT_NEAR(static_cast<double>(bytes_), 250'000, 10'000);
  busy_ = false;
  uint64_t before = bytes_;
  RunTo(*scrubber, now_ + 10 * kSecond);
  EXPECT_NEAR(static_cast<double>(bytes_ - before), 1'000'000, 20'000);
}

TEST_F(ScrubberTest, ChecksEveryCopyOnceARoundInTheOrderOfKeys) {
  for (uint32_t n = 0; n < 300; ++n) {
    Add(n, 10);
    if (n % 2 == 0) Add(n, 10, Tier::kHost);
    if (n % 3 == 0) Add(n, 10, Tier::kRedis);
    if (n % 5 == 0) Add(n, 10, Tier::kDisk, /*tenant=*/7);  // the same key, another's block
  }
  ScrubOptions options;
  options.bytes_per_second = 1 << 20;
  auto scrubber = Make(options);
  RunTo(*scrubber, now_ + 30 * kSecond);  // less than a round's least time
  EXPECT_EQ(checked_.size(), 300u + 150 + 100 + 60);
  EXPECT_EQ(std::set(checked_.begin(), checked_.end()).size(), checked_.size());
  for (size_t i = 1; i < checked_.size(); ++i) EXPECT_LE(checked_[i - 1].first.key, checked_[i].first.key);
  EXPECT_EQ(CounterOf("quire_store_scrub_rounds_total"), 1);
  RunTo(*scrubber, now_ + 60 * kSecond);
  EXPECT_EQ(CounterOf("quire_store_scrub_rounds_total"), 2);
}

TEST_F(ScrubberTest, GoesOnWhereItWas) {
  TempFolder folder;
  for (uint32_t n = 0; n < 400; ++n) Add(n, 1000);
  ScrubOptions options;
  options.bytes_per_second = 10'000;
  options.position_file = folder.path() + "/place";
  std::set<std::pair<BlockName, Tier>> seen;
  for (int life = 0; life < 8; ++life) {  // 50 of 400 blocks each
    auto scrubber = Make(options);
    RunTo(*scrubber, now_ + 5 * kSecond - 1);
    EXPECT_EQ(checked_.size(), 50u);
    if (life > 0) EXPECT_GT(checked_.front().first.key, seen.rbegin()->first.key);
    seen.insert(checked_.begin(), checked_.end());
    checked_.clear();
  }
  EXPECT_EQ(seen.size(), 400u);
  for (const char* damaged :
       {"", "quire scrub v1 ", "quire scrub v1 zz", "quire scrub v9 0000000000000000"}) {
    std::ofstream(options.position_file, std::ios::trunc) << damaged;
    auto scrubber = Make(options);
    RunTo(*scrubber, now_);
    EXPECT_EQ(checked_.front().first.key, seen.begin()->first.key) << damaged;  // from the beginning
    checked_.clear();
  }
}

TEST_F(ScrubberTest, HasNothingToDoInAnEmptyStoreOrWithoutARate) {
  ScrubOptions options;
  EXPECT_EQ(Make(options)->Step(now_), INT64_MAX);
  options.bytes_per_second = 1;
  auto scrubber = Make(options);
  EXPECT_GE(scrubber->Step(now_), now_ + kSecond);
  EXPECT_TRUE(checked_.empty());
}

// The whole store: its own thread finds what has rotted. Each test waits for the event that tells so.
class Scrubbing : public testing::Test {
 protected:
  LocalStoreOptions Options(bool with_disk, uint64_t rate = uint64_t{1} << 30) {
    LocalStoreOptions options;
    options.host_bytes = 16 << 20;
    options.enable_faults = true;
    options.faults = std::make_shared<FaultPoints>();
    options.registry = registry_ = runtime::NewRegistry();
    options.scrub.bytes_per_second = rate;
    options.scrub.least_round_ms = 1;
    if (with_disk) {
      DiskTierOptions disk;
      disk.folder = folder_.path() + "/disk";
      disk.capacity_bytes = 64 << 20;
      disk.faults = options.faults;
      disk.direct_io = false;
      disk_ = *DiskTier::Open(disk);
      options.lower.push_back(disk_);
    }
    return options;
  }
  // The next removal that is told of.
  static StoreEvent AwaitRemoval(LocalStore& store, uint64_t* from) {
    uint32_t tenant = *store.TenantToWatch("");
    auto until = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < until) {
      auto events = store.events().Read(tenant, *from, 1, until);
      EXPECT_TRUE(events.ok()) << events.status();
      if (!events.ok() || events->empty()) break;
      ++*from;
      if (events->front().kind == StoreEvent::Kind::kRemoved) return events->front();
    }
    ADD_FAILURE() << "nothing was removed";
    return {};
  }
  double Corrupt(const std::string& tier) {
    for (const auto& family : registry_->Collect()) {
      if (family.name != "quire_store_scrub_corrupt_total") continue;
      for (const auto& metric : family.metric) {
        if (metric.label.front().value == tier) return metric.counter.value;
      }
    }
    return -1;
  }
  // Flips a bit in every so many bytes of the disk's blob files.
  void Rot(uintmax_t every) {
    for (const auto& file : std::filesystem::directory_iterator(folder_.path() + "/disk")) {
      if (file.path().extension() != ".blob") continue;
      std::fstream f(file.path(), std::ios::in | std::ios::out | std::ios::binary);
      for (uintmax_t at = 3000; at < file.file_size(); at += every) {
        f.seekg(static_cast<std::streamoff>(at));
        char c = static_cast<char>(f.get() ^ 0x20);
        f.seekp(static_cast<std::streamoff>(at));
        f.put(c);
      }
    }
  }

  TempFolder folder_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::shared_ptr<DiskTier> disk_;
};

TEST_F(Scrubbing, FindsWrongBytesInMemory) {
  auto store = *LocalStore::Create(Options(false));
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  uint64_t next = 1;
  ASSERT_TRUE(store->InjectFault("corrupt_byte", 1, 5000).ok());
  StoreEvent removed = AwaitRemoval(*store, &next);
  EXPECT_EQ(removed.tier, Tier::kHost);
  std::vector<Digest> keys = chain.keys();
  auto gone = std::find(keys.begin(), keys.end(), removed.key);
  ASSERT_NE(gone, keys.end());
  LookupOptions all;
  all.all = true;
  LookupResult found = *store->Lookup(chain.ns(), keys, all);
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(found.blocks[i].state, keys[i] == removed.key ? BlockState::kMiss : BlockState::kHit) << i;
  EXPECT_EQ(store->Stats()->checksum_failures, 1u);
  EXPECT_EQ(Corrupt("host"), 1);
}

TEST_F(Scrubbing, FindsWhatRotsOnTheDiskAndKeepsTheCopyInMemory) {
  LocalStoreOptions options = Options(true, 0);
  auto store = *LocalStore::Create(options);
  SampleChain chain(SampleLayout(), 12);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  ASSERT_TRUE(disk_->CollectGarbage().ok());  // into blob files
  store.reset();
  options.lower.clear();
  disk_.reset();
  Rot(60'000);

  options = Options(true);
  options.fence.consecutive_failures = 1000;  // the disk is not to be fenced for it
  options.fence.failure_rate = 2;
  store = *LocalStore::Create(options);
  // Nobody has told the layout since the restart: what the disk's own checksums cover is found all the same.
  uint64_t next = 1;
  StoreEvent removed = AwaitRemoval(*store, &next);
  EXPECT_EQ(removed.tier, Tier::kDisk);
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  // And so it goes until no wrong byte is left: what Get then finds is right.
  LocalStore::VerifyProgress last;
  auto keep = [&](const LocalStore::VerifyProgress& progress) {
    last = progress;
    return true;
  };
  ASSERT_TRUE(store->Verify(Tier::kDisk, 0, keep).ok());
  ASSERT_TRUE(store->Verify(Tier::kDisk, 0, keep).ok());
  EXPECT_EQ(last.failures, 0u);
  uint64_t failures = store->Stats()->checksum_failures;
  EXPECT_GT(failures, 0u);
  Gotten gotten = GetAll(*store, chain.ns(), chain.identities);
  ASSERT_TRUE(gotten.status.ok());
  size_t misses = 0;
  for (size_t i = 0; i < chain.objects.size(); ++i) {
    misses += gotten.misses[i] != StatusCode::kOk;
    if (gotten.misses[i] == StatusCode::kOk) EXPECT_EQ(gotten.objects[i], chain.objects[i]);
  }
  EXPECT_EQ(misses, failures);
  EXPECT_EQ(store->Stats()->checksum_failures, failures);  // no Get met one
}

TEST_F(Scrubbing, ADiskThatCannotBeReadIsCountedAndItsBlocksStay) {
  LocalStoreOptions options = Options(true);
  options.fence.consecutive_failures = 1000;
  options.fence.failure_rate = 2;
  auto store = *LocalStore::Create(options);
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(store->InjectFault("disk_read_error", 3).ok());
  ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  auto until = std::chrono::steady_clock::now() + kPatience;
  while (options.faults->left(Fault::kDiskReadError) > 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  EXPECT_EQ(options.faults->left(Fault::kDiskReadError), 0u);
  EXPECT_EQ(StoredPrefix(*store, chain), 4u);
  EXPECT_EQ(store->Stats()->checksum_failures, 0u);
}

}  // namespace
}  // namespace quire::store
