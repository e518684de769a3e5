// quire-store killed again and again (SIGKILL) while clients put, get and delete over gRPC, with a disk under
// `sync` and --write-through: whatever block it acknowledged is there after the restart, equal to the byte,
// and no block is there by halves. QUIRE_KILL_ROUNDS says how often it is killed.
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "services/runtime/server.h"
#include "services/store/client/remote_store.h"
#include "tests/services/store/sample_chain.h"
#include "tests/services/store/store_process.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;
constexpr uint32_t kChainBlocks = 4;
constexpr uint32_t kWriters = 3;
constexpr size_t kRecent = 40;  // chains checked after every kill; all are checked every so many kills
constexpr int kCheckAllEvery = 25;

struct Chain {
  explicit Chain(uint32_t seed) : sample(SampleLayout(), kChainBlocks, "tq:k4v4", seed) {}
  SampleChain sample;
  uint32_t acknowledged = 0;  // of its first blocks
  bool deleted = false;       // its deletion was begun: its blocks may be there or not
};

class KilledUnderLoad : public testing::Test {
 protected:
  void Start() {
    const char* bin = std::getenv("QUIRE_BIN_DIR");
    auto process = StoreProcess::Start(
        std::string(bin ? bin : QUIRE_TEST_BIN_DIR) + "/quire-store",
        {"--listen", "127.0.0.1:0", "--host-bytes", "8MiB", "--disk-bytes", "2GiB", "--disk-folder",
         folder_.path() + "/disk", "--disk-sync", "sync", "--write-through", "--log-level", "critical"});
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
  }
  std::unique_ptr<RemoteStore> Connect() {
    RemoteStoreOptions options;
    options.max_tries = 1;
    auto store = std::make_unique<RemoteStore>(*runtime::NewChannel(process_->address()), options);
    store->RegisterLayout(SampleLayout()).IgnoreError();
    return store;
  }
  static std::string TenantOf(uint32_t writer) { return "tenant " + std::to_string(writer); }

  // Called at every acknowledgement; the one that was drawn ends the process.
  void Acknowledged() {
    if (acks_left_.fetch_sub(1) == 1) process_->Kill();
  }
  void Write(uint32_t writer, uint32_t round) {
    std::unique_ptr<RemoteStore> store = Connect();
    std::mt19937 random(round * kWriters + writer);
    std::vector<std::unique_ptr<Chain>>& mine = chains_[writer];
    while (true) {
      auto chain = std::make_unique<Chain>(next_seed_++);
      Chain& now = *mine.emplace_back(std::move(chain));
      auto session = store->BeginPut(now.sample.ns(TenantOf(writer)), now.sample.announces(), {});
      if (!session.ok()) return;
      for (uint32_t i = 0; i < kChainBlocks; ++i) {
        if (!WriteAndCommit(**session, i, now.sample.objects[i]).ok()) return;
        ++now.acknowledged;
        Acknowledged();
      }
      session->reset();
      Chain& other = *mine[random() % mine.size()];
      if (random() % 4 == 0) {
        other.deleted = true;
        if (!store->Delete(other.sample.ns(TenantOf(writer)), other.sample.keys(), true).ok()) return;
      } else if (!Check(*store, writer, other)) {
        return;
      }
    }
  }
  // False: the store is gone.
  bool Check(RemoteStore& store, uint32_t writer, const Chain& chain) {
    Gotten gotten = GetAll(store, chain.sample.ns(TenantOf(writer)), chain.sample.identities);
    if (!gotten.status.ok()) return false;
    for (uint32_t i = 0; i < kChainBlocks; ++i) {
      bool there = gotten.misses[i] == StatusCode::kOk;
      if (there && gotten.objects[i] != chain.sample.objects[i]) ++wrong_;
      if (!there && gotten.misses[i] != StatusCode::kNotFound) ++wrong_;
      if (!there && i < chain.acknowledged && !chain.deleted) ++lost_;
    }
    return true;
  }
  void CheckAfterKill(bool all) {
    std::unique_ptr<RemoteStore> store = Connect();
    for (uint32_t writer = 0; writer < kWriters; ++writer) {
      const auto& mine = chains_[writer];
      for (size_t i = all || mine.size() < kRecent ? 0 : mine.size() - kRecent; i < mine.size(); ++i) {
        ASSERT_TRUE(Check(*store, writer, *mine[i])) << "the store ended by itself";
        checked_ += kChainBlocks;
      }
    }
    EXPECT_EQ(store->Stats()->checksum_failures, 0u);
  }

  TempFolder folder_;
  std::unique_ptr<StoreProcess> process_;
  std::vector<std::unique_ptr<Chain>> chains_[kWriters];
  std::atomic<uint32_t> next_seed_{1};
  std::atomic<int> acks_left_{0};
  std::atomic<uint64_t> wrong_{0}, lost_{0};
  uint64_t checked_ = 0;
};

TEST_F(KilledUnderLoad, KeepsWhatItAcknowledged) {
  const char* rounds_wanted = std::getenv("QUIRE_KILL_ROUNDS");
  const int rounds = rounds_wanted ? std::atoi(rounds_wanted) : 8;
  std::mt19937 random(7);
  for (int round = 0; round < rounds; ++round) {
    ASSERT_NO_FATAL_FAILURE(Start());
    CheckAfterKill(round % kCheckAllEvery == 0);
    ASSERT_EQ(lost_, 0u) << "after " << round << " kills";
    ASSERT_EQ(wrong_, 0u) << "after " << round << " kills";
    acks_left_ = 1 + static_cast<int>(random() % 40);
    std::vector<std::thread> writers;
    for (uint32_t w = 0; w < kWriters; ++w)
      writers.emplace_back([&, w] { Write(w, static_cast<uint32_t>(round)); });
    for (std::thread& writer : writers) writer.join();
    ASSERT_EQ(process_->AwaitEnd(), -SIGKILL);
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  CheckAfterKill(/*all=*/true);
  EXPECT_EQ(lost_, 0u);
  EXPECT_EQ(wrong_, 0u);
  uint64_t acknowledged = 0;
  for (const auto& mine : chains_) {
    for (const auto& chain : mine) acknowledged += chain->acknowledged;
  }
  EXPECT_GE(acknowledged, static_cast<uint64_t>(rounds) * 10);
  std::printf("%d kills, %lu blocks acknowledged, %lu looked for after restarts: %lu lost, %lu wrong\n",
              rounds, static_cast<unsigned long>(acknowledged), static_cast<unsigned long>(checked_),
              static_cast<unsigned long>(lost_), static_cast<unsigned long>(wrong_));
}

}  // namespace
}  // namespace quire::store
