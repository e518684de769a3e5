// The scheduler with a store: prefixes are restored, blocks are offloaded, and no failure of the store shows
// in a text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "core/block/keys.h"
#include "services/worker/scheduler/scheduler.h"
#include "tests/services/worker/scheduler/faulty_store.h"
#include "tests/services/worker/scheduler/harness.h"

namespace quire::worker {
namespace {

using namespace std::chrono_literals;

// Retries that a test never sees, and a timeout it never reaches; tests that want another set it.
SchedulerOptions Calm() {
  SchedulerOptions options;
  options.store_timeout = std::chrono::milliseconds(kPatience);
  options.link.first_retry = 1h;
  options.link.longest_retry = 1h;
  return options;
}

class Prefixes : public ::testing::Test {
 protected:
  Harness& Start(SchedulerOptions options = Calm()) {
    harness_ = std::make_unique<Harness>(store_, options);
    return *harness_;
  }
  // A request whose blocks are in the store afterwards.
  Result Warm(Harness& h, const GenerateSpec& spec) {
    Result r = h.Run(spec);
    EXPECT_TRUE(h.scheduler().offloader()->Flush(kPatience));
    return r;
  }
  double Failures(Harness& h, StoreOp op) {
    return h.metrics.store_failures[static_cast<size_t>(op)]->Value();
  }

  std::shared_ptr<FaultyStore> store_ = std::make_shared<FaultyStore>();
  std::unique_ptr<Harness> harness_;
};

TEST(UsefulBlocks, LeaveATokenToCompute) {
  Digest root = RootKey(Digest{}, "salt");
  EXPECT_EQ(UsefulBlocks(root, Prompt(0)).size(), 0u);
  EXPECT_EQ(UsefulBlocks(root, Prompt(64)).size(), 0u);
  EXPECT_EQ(UsefulBlocks(root, Prompt(65)).size(), 1u);
  EXPECT_EQ(UsefulBlocks(root, Prompt(128)).size(), 1u);
  std::vector<BlockIdentity> blocks = UsefulBlocks(root, Prompt(200));
  ASSERT_EQ(blocks.size(), 3u);
  Digest parent = root;
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(blocks[i].index, i);
    EXPECT_EQ(blocks[i].parent, parent);
    std::vector<uint32_t> prompt = Prompt(200);
    EXPECT_EQ(blocks[i].key, BlockKey(parent, std::span(prompt).subspan(i * 64, 64)));
    parent = blocks[i].key;
  }
}

TEST_F(Prefixes, SecondRequestRestoresWhatTheFirstLeft) {
  Harness& h = Start();
  Result first = Warm(h, Greedy(Prompt(1500), 30));
  EXPECT_EQ(first.usage.cached_tokens, 0u);
  EXPECT_EQ(h.engine.computed_tokens(), 1529u);
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 23);
  EXPECT_GT(h.metrics.offloaded_bytes.Value(), 23 * 4096);
  EXPECT_EQ(h.metrics.lookup_miss_tokens.Value(), 1472);

  Result second = Warm(h, Greedy(Prompt(1500), 30));
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(second.usage.cached_tokens, 1472u);
  EXPECT_EQ(h.engine.computed_tokens(), 1529u + 57u);
  EXPECT_EQ(h.metrics.cached_tokens.Value(), 1472);
  EXPECT_EQ(h.metrics.lookup_hit_tokens.Value(), 1472);
  EXPECT_GT(second.usage.restore.count(), 0);
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 23) << "nothing was new";
}

TEST_F(Prefixes, APromptOfWholeBlocksComputesItsLast) {
  Harness& h = Start();
  Result first = Warm(h, Greedy(Prompt(192), 5));
  Result second = Warm(h, Greedy(Prompt(192), 5));
  EXPECT_EQ(second.usage.cached_tokens, 128u);
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(h.metrics.offload_present_blocks.Value(), 1)
      << "the third block was computed again, and not sent again";
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 3);
}

TEST_F(Prefixes, GeneratedTextIsReusedToo) {
  Harness& h = Start();
  std::vector<uint32_t> prompt = Prompt(100);
  Result first = Warm(h, Greedy(prompt, 200));
  std::vector<uint32_t> next = prompt;
  next.insert(next.end(), first.tokens.begin(), first.tokens.end());
  next.push_back('!');
  // 299 of the 300 tokens were computed in the first request: four whole blocks.
  Result second = Warm(h, Greedy(next, 5));
  EXPECT_EQ(second.usage.cached_tokens, 256u);
}

TEST_F(Prefixes, DifferentTailsShareTheirPrefix) {
  Harness& h = Start();
  Warm(h, Greedy(Prompt(300), 1));
  std::vector<uint32_t> other = Prompt(300);
  other[250] = 'z';
  Result r = Warm(h, Greedy(other, 1));
  EXPECT_EQ(r.usage.cached_tokens, 192u);
}

TEST_F(Prefixes, TenantsAndSaltsAreApart) {
  Harness& h = Start();
  GenerateSpec spec = Greedy(Prompt(200), 1);
  Warm(h, spec);
  spec.salt = "s";
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 0u);
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 192u);
  spec.salt = "";
  spec.tenant = "t";
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 0u);
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 192u);
}

TEST_F(Prefixes, CacheUse) {
  Harness& h = Start();
  GenerateSpec spec = Greedy(Prompt(200), 1);
  spec.cache = CacheUse::kReadOnly;
  Warm(h, spec);
  EXPECT_EQ(store_->lookups, 1);
  EXPECT_EQ(store_->puts, 0);
  spec.cache = CacheUse::kBypass;
  Warm(h, spec);
  EXPECT_EQ(store_->lookups, 1);
  EXPECT_EQ(store_->puts, 0);
  spec.cache = CacheUse::kReadWrite;
  Warm(h, spec);
  spec.cache = CacheUse::kReadOnly;
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 192u);
  spec.cache = CacheUse::kBypass;
  EXPECT_EQ(Warm(h, spec).usage.cached_tokens, 0u);
}

TEST_F(Prefixes, BlocksThatCannotBeCodedStayHere) {
  Harness& h = Start();
  h.engine.encodable = false;
  Warm(h, Greedy(Prompt(300), 1));
  EXPECT_EQ(store_->puts, 0);
  EXPECT_EQ(Warm(h, Greedy(Prompt(300), 1)).usage.cached_tokens, 0u);
}

struct FaultCase {
  const char* name;
  FaultyStore::Fault fault;
  uint32_t cached;                 // tokens that are restored all the same, of 448
  std::optional<StoreOp> counted;  // the failure that is
};

class PrefixFaults : public Prefixes, public ::testing::WithParamInterface<FaultCase> {};

TEST_P(PrefixFaults, EndInRecomputeWithTheSameText) {
  const FaultCase& c = GetParam();
  SchedulerOptions options = Calm();
  bool hangs = c.counted == StoreOp::kTimeout;
  if (hangs) options.store_timeout = 200ms;
  Harness& h = Start(options);
  Result first = Warm(h, Greedy(Prompt(500), 40));
  store_->fault = c.fault;
  Result second = h.Run(Greedy(Prompt(500), 40));
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(second.finish, Finish::kLength);
  EXPECT_TRUE(second.status.ok());
  EXPECT_EQ(second.usage.cached_tokens, c.cached);
  if (c.counted) EXPECT_GE(Failures(h, *c.counted), 1);
  store_->gate.Open();

  // Once the store works again, so does the cache; the store itself heals where it held wrong bytes.
  store_->fault = FaultyStore::kNone;
  Harness fresh(store_, Calm());
  Result third = fresh.Run(Greedy(Prompt(500), 40));
  EXPECT_TRUE(fresh.scheduler().offloader()->Flush(kPatience));
  EXPECT_EQ(third.text, first.text);
  Result fourth = fresh.Run(Greedy(Prompt(500), 40));
  EXPECT_EQ(fourth.text, first.text);
  EXPECT_EQ(fourth.usage.cached_tokens, 448u);
}

INSTANTIATE_TEST_SUITE_P(
    All, PrefixFaults,
    ::testing::Values(FaultCase{"Down", FaultyStore::kDown, 0, StoreOp::kLookup},
                      FaultCase{"HangsInLookup", FaultyStore::kHangLookup, 0, StoreOp::kTimeout},
                      FaultCase{"HangsInGet", FaultyStore::kHangGet, 0, StoreOp::kTimeout},
                      FaultCase{"HangsAfterTwoBlocks", FaultyStore::kHangAfterTwo, 128, StoreOp::kTimeout},
                      FaultCase{"DiesInGet", FaultyStore::kDiesInGet, 128, StoreOp::kGet},
                      FaultCase{"Corrupt", FaultyStore::kCorrupt, 64, StoreOp::kRestore},
                      FaultCase{"OtherLayout", FaultyStore::kOtherLayout, 64, StoreOp::kRestore},
                      FaultCase{"OutOfOrder", FaultyStore::kSwapped, 0, std::nullopt},
                      FaultCase{"MissesInGet", FaultyStore::kMissesInGet, 64, StoreOp::kGet},
                      FaultCase{"ForgotTheLayout", FaultyStore::kForgets, 448, std::nullopt},
                      FaultCase{"DeniesTheTenant", FaultyStore::kDenied, 0, StoreOp::kLookup}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(Prefixes, AStoreThatIsDownIsNotAskedByRequests) {
  Harness& h = Start();
  std::string text = Warm(h, Greedy(Prompt(200), 10)).text;
  store_->fault = FaultyStore::kDown;
  h.Run(Greedy(Prompt(200), 10));
  EXPECT_FALSE(h.scheduler().Load().store_connected);
  EXPECT_EQ(h.metrics.store_connected.Value(), 0);
  int lookups = store_->lookups, puts = store_->puts;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).text, text);
  EXPECT_EQ(store_->lookups, lookups);
  EXPECT_EQ(store_->puts, puts);
  EXPECT_GT(h.metrics.offload_dropped_blocks.Value(), 0) << "what a store that is down can't take is dropped";
}

TEST_F(Prefixes, AStoreThatComesBackIsUsedAgain) {
  SchedulerOptions options = Calm();
  options.link.first_retry = 1ms;
  options.link.longest_retry = 1ms;
  Harness& h = Start(options);
  Warm(h, Greedy(Prompt(200), 10));
  store_->fault = FaultyStore::kDown;
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).usage.cached_tokens, 0u);
  store_->fault = FaultyStore::kNone;
  ASSERT_TRUE(h.scheduler().store_link()->Wait(true, kPatience));
  EXPECT_TRUE(h.scheduler().Load().store_connected);
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).usage.cached_tokens, 192u);
}

TEST_F(Prefixes, AWorkerStartsWithoutItsStore) {
  store_->fault = FaultyStore::kDown;
  SchedulerOptions options = Calm();
  options.link.first_retry = 1ms;
  options.link.longest_retry = 1ms;
  Harness& h = Start(options);
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).finish, Finish::kLength);
  store_->fault = FaultyStore::kNone;
  ASSERT_TRUE(h.scheduler().store_link()->Wait(true, kPatience));
  Warm(h, Greedy(Prompt(200), 10));
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).usage.cached_tokens, 192u);
}

TEST_F(Prefixes, ASlowStoreIsWaitedForOnce) {
  SchedulerOptions options = Calm();
  options.store_timeout = 50ms;
  Harness& h = Start(options);
  Warm(h, Greedy(Prompt(200), 10));
  store_->fault = FaultyStore::kHangGet;
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).usage.cached_tokens, 0u);
  int lookups = store_->lookups;
  Result r = h.Run(Greedy(Prompt(200), 10));
  EXPECT_EQ(store_->lookups, lookups);
  EXPECT_EQ(r.usage.restore.count(), 0);
  store_->gate.Open();
}

TEST_F(Prefixes, OthersRunWhileOneWaitsForTheStore) {
  Harness& h = Start();
  Warm(h, Greedy(Prompt(200, 3), 1));
  store_->fault = FaultyStore::kHangGet;
  auto waits = h.Submit(Greedy(Prompt(200, 3), 5));
  store_->gate.WaitForArrivals(1);
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(h.Run(Greedy(Prompt(40, i), 5)).finish, Finish::kLength);
  store_->gate.Open();
  EXPECT_EQ(Collect(*waits).usage.cached_tokens, 192u);
}

TEST_F(Prefixes, CancellationDoesNotWaitForTheStore) {
  Harness& h = Start();
  Warm(h, Greedy(Prompt(200), 1));
  store_->fault = FaultyStore::kHangGet;
  auto waits = h.Submit(Greedy(Prompt(200), 5));
  store_->gate.WaitForArrivals(1);
  waits->Cancel();
  EXPECT_EQ(Collect(*waits).finish, Finish::kAborted);
  EXPECT_EQ(h.scheduler().Load().running, 0u);
  store_->gate.Open();
}

TEST_F(Prefixes, AStoreOfAnotherMindIsNotUsed) {
  store_->fault = FaultyStore::kOtherFingerprint;
  Harness& h = Start();
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 10)).finish, Finish::kLength);
  EXPECT_EQ(store_->lookups, 0);
  EXPECT_EQ(Failures(h, StoreOp::kRegister), 1);
}

TEST_F(Prefixes, OffloadNeverDelays) {
  Harness& h = Start();
  store_->fault = FaultyStore::kHangPut;
  EXPECT_EQ(h.Run(Greedy(Prompt(700), 300)).tokens.size(), 300u);
  EXPECT_EQ(h.Run(Greedy(Prompt(700, 1), 300)).tokens.size(), 300u);
  store_->gate.Open();
  store_->fault = FaultyStore::kNone;
  EXPECT_TRUE(h.scheduler().offloader()->Flush(kPatience));
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 2 * 15) << "what waited was written later";
}

TEST_F(Prefixes, AFullOffloadQueueDrops) {
  SchedulerOptions options = Calm();
  options.offloader.max_queued_bytes = 20'000;  // a few blocks
  Harness& h = Start(options);
  store_->fault = FaultyStore::kHangPut;
  h.Run(Greedy(Prompt(700), 1));
  double queued = h.metrics.offload_dropped_blocks.Value();
  EXPECT_GE(queued, 5);
  EXPECT_LE(queued, 9);
  store_->gate.Open();
  store_->fault = FaultyStore::kNone;
  EXPECT_TRUE(h.scheduler().offloader()->Flush(kPatience));
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 10 - queued)
      << "the beginning of the chain, which is what can be used";
}

TEST_F(Prefixes, AFullStoreCostsNothingElse) {
  Harness& h = Start();
  store_->fault = FaultyStore::kFull;
  Result first = Warm(h, Greedy(Prompt(700), 10));
  EXPECT_EQ(first.finish, Finish::kLength);
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 0);
  EXPECT_EQ(h.metrics.offload_dropped_blocks.Value(), 11);
  EXPECT_GE(Failures(h, StoreOp::kPut), 1);
  EXPECT_TRUE(h.scheduler().Load().store_connected) << "it still answers";
}

TEST_F(Prefixes, AStoreThatLostEverythingGetsTheWholeChain) {
  Harness& h = Start();
  Gate half_way;
  h.engine.before = [&](const FakeEngine::Call& call) {
    if (call.at == 400) half_way.Wait();
    return absl::OkStatus();
  };
  auto generation = h.Submit(Greedy(Prompt(200), 400));
  std::thread reader([&] { EXPECT_EQ(Collect(*generation).tokens.size(), 400u); });
  half_way.WaitForArrivals(1);
  EXPECT_TRUE(h.scheduler().offloader()->Flush(kPatience));
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 6);
  store_->Empty();  // as after a restart: layout and blocks are gone
  half_way.Open();
  reader.join();
  EXPECT_TRUE(h.scheduler().offloader()->Flush(kPatience));
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 6 + 9);
  h.engine.before = nullptr;
  EXPECT_EQ(h.Run(Greedy(Prompt(200), 1)).usage.cached_tokens, 192u);
}

TEST_F(Prefixes, DrainFlushesTheOffload) {
  Harness& h = Start();
  h.Run(Greedy(Prompt(700), 10));
  h.scheduler().Drain(std::chrono::milliseconds(kPatience));
  EXPECT_EQ(h.metrics.offloaded_blocks.Value(), 11);
}

}  // namespace
}  // namespace quire::worker
