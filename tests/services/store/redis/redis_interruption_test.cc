// Connections that break after any number of bytes, in either direction: no half object is ever seen, and
// what is left behind goes away by itself.
#include <random>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "services/store/redis/redis_tier.h"
#include "tests/services/store/redis/cutting_proxy.h"
#include "tests/services/store/redis/redis_server.h"
#include "tests/services/store/sample_object.h"

namespace quire::store {
namespace {

using redis::Ask;

class RedisInterruptionTest : public testing::Test {
 protected:
  RedisInterruptionTest() : proxy_(server_.port()), admin_(redis::ClientOf(server_.address())) {
    redis::TierOptions options;
    options.client.addresses = {server_.address()};
    whole_ = *RedisTier::Create(options);
    options.client.addresses = {proxy_.address()};
    options.client.connections = 1;
    options.client.first_pause = options.client.last_pause = std::chrono::milliseconds(1);
    cut_ = *RedisTier::Create(options);
  }

  enum class State { kNothing, kFirst, kSecond, kOneLevel, kHalf };
  // What a store with a good connection sees.
  State Seen() {
    ObjectTier::FindRequest found = FindSample(*whole_, first_.name.tenant, first_.name.key);
    EXPECT_TRUE(found.status.ok()) << found.status;
    if (found.found.empty()) return State::kNothing;
    const ObjectRecord& record = found.found[0].second;
    for (const SampleObject* o : {&first_, &second_}) {
      if (record.ends != o->record.ends || !Holds(*whole_, *o, static_cast<int>(record.levels))) continue;
      if (record.levels == 1) return State::kOneLevel;
      return o == &first_ ? State::kFirst : State::kSecond;
    }
    return State::kHalf;
  }

  // Every string in Redis that the visible record does not name has a time to live.
  void ExpectNoLeak() {
    std::string hash, generation;
    redis::Reply keys = Ask(*admin_, {"KEYS", "*"});
    for (const redis::Reply& key : keys.elements) {
      if (!key.text.ends_with("}")) continue;
      redis::Reply raw = Ask(*admin_, {"HVALS", key.text});
      ASSERT_EQ(raw.elements.size(), 1u);
      generation =
          absl::StrFormat("%016x", *redis::StoredRecord::GenerationOf(AsBytes(raw.elements[0].text)));
    }
    for (const redis::Reply& key : keys.elements) {
      bool named = !generation.empty() && absl::StrContains(key.text, generation);
      if (key.text.ends_with("}") || named) continue;
      EXPECT_GT(Ask(*admin_, {"PTTL", key.text}).integer, 0) << "left for ever: " << key.text;
    }
  }

  // Does `work` over connections that break after a random number of bytes of what it needs whole.
  struct Round {
    absl::Status status;
    State before, after;
  };
  Round Interrupt(const std::function<absl::Status()>& prepare, const std::function<absl::Status()>& work,
                  int64_t most_to, int64_t most_from) {
    Ask(*admin_, {"FLUSHALL"});
    EXPECT_TRUE(prepare().ok());
    Round round;
    round.before = Seen();
    EXPECT_TRUE(redis::Eventually([&] { return cut_->Check().ok(); }));
    uint64_t cuts = proxy_.cuts();
    bool forth = random_() % 2 == 0;
    proxy_.CutAfter(
        forth ? 1 + static_cast<int64_t>(random_() % static_cast<uint64_t>(most_to)) : INT64_MAX,
        forth ? INT64_MAX : 1 + static_cast<int64_t>(random_() % static_cast<uint64_t>(most_from)));
    round.status = work();
    proxy_.Never();
    interrupted_ += proxy_.cuts() > cuts ? 1 : 0;
    round.after = Seen();
    EXPECT_NE(round.after, State::kHalf) << round.status;
    ExpectNoLeak();
    return round;
  }

  // Bytes that `work` moves in each direction when nothing breaks.
  std::pair<int64_t, int64_t> Traffic(const std::function<absl::Status()>& work) {
    EXPECT_TRUE(redis::Eventually([&] { return cut_->Check().ok(); }));
    int64_t to = proxy_.passed(true), from = proxy_.passed(false);
    EXPECT_TRUE(work().ok());
    return {proxy_.passed(true) - to, proxy_.passed(false) - from};
  }

  redis::RedisServer server_;
  redis::CuttingProxy proxy_;
  std::unique_ptr<redis::Client> admin_;
  std::unique_ptr<RedisTier> whole_, cut_;
  SampleObject first_ = MakeSample(2, 1200, 0), second_ = MakeSample(2, 1200, 1);
  std::mt19937 random_{17};
  int interrupted_ = 0;
};

constexpr int kRounds = 150;

TEST_F(RedisInterruptionTest, AWriteIsThereWhollyOrNotAtAll) {
  auto write = [&] { return WriteSample(*cut_, first_); };
  auto [to, from] = Traffic(write);
  for (int i = 0; i < kRounds; ++i) {
    Round round = Interrupt([] { return absl::OkStatus(); }, write, to + 50, from + 5);
    EXPECT_TRUE(round.after == State::kFirst || (round.after == State::kNothing && !round.status.ok()))
        << round.status;
  }
  EXPECT_GT(interrupted_, kRounds / 2);
}

TEST_F(RedisInterruptionTest, AReplacementIsTheOldObjectOrTheNewOne) {
  auto prepare = [&] { return WriteSample(*whole_, first_); };
  auto write = [&] { return WriteSample(*cut_, second_); };
  ASSERT_TRUE(prepare().ok());
  auto [to, from] = Traffic(write);
  for (int i = 0; i < kRounds; ++i) {
    Round round = Interrupt(prepare, write, to + 50, from + 5);
    EXPECT_EQ(round.before, State::kFirst);
    EXPECT_TRUE(round.after == State::kSecond || (round.after == State::kFirst && !round.status.ok()))
        << round.status;
  }
  EXPECT_GT(interrupted_, kRounds / 2);
}

TEST_F(RedisInterruptionTest, DroppedLevelsAreThereOrNot) {
  auto prepare = [&] { return WriteSample(*whole_, first_); };
  ObjectRecord fewer = first_.record;
  fewer.levels = 1;
  auto drop = [&] { return cut_->DropLevels(first_.name, fewer); };
  ASSERT_TRUE(prepare().ok());
  auto [to, from] = Traffic(drop);
  for (int i = 0; i < kRounds; ++i) {
    Round round = Interrupt(prepare, drop, to + 50, from + 5);
    EXPECT_TRUE(round.after == State::kOneLevel || (round.after == State::kFirst && !round.status.ok()))
        << round.status;
  }
  EXPECT_GT(interrupted_, kRounds / 2);
}

TEST_F(RedisInterruptionTest, ARemovalRemovesAllOrNothing) {
  auto prepare = [&] { return WriteSample(*whole_, first_); };
  auto remove = [&] { return cut_->Remove({&first_.name, 1}); };
  ASSERT_TRUE(prepare().ok());
  auto [to, from] = Traffic(remove);
  for (int i = 0; i < kRounds; ++i) {
    Round round = Interrupt(prepare, remove, to + 50, from + 5);
    EXPECT_TRUE(round.after == State::kNothing || (round.after == State::kFirst && !round.status.ok()))
        << round.status;
  }
  EXPECT_GT(interrupted_, kRounds / 2);
}

}  // namespace
}  // namespace quire::store
