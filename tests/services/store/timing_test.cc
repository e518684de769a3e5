// A block of another tenant takes as long to miss as one that nobody has: the times of 1,000 interleaved
// pairs of each are put to the two-sided, two-sample Kolmogorov–Smirnov test.
#include <algorithm>
#include <cmath>
#include <functional>

#include "gmock/gmock.h"
#include "services/store/client/remote_store.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

constexpr int kPairs = 1000, kWarmUp = 50;
constexpr double kLeastP = 0.01;

struct Times {
  std::vector<double> foreign, missing;
};

// The largest distance between two samples' empirical distributions.
double Distance(std::vector<double> a, std::vector<double> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  double largest = 0;
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    double x = std::min(a[i], b[j]);
    while (i < a.size() && a[i] <= x) ++i;
    while (j < b.size() && b[j] <= x) ++j;
    largest = std::max(largest, std::abs(static_cast<double>(i) / static_cast<double>(a.size()) -
                                         static_cast<double>(j) / static_cast<double>(b.size())));
  }
  return largest;
}

// Kolmogorov's limiting distribution: 2·Σ (−1)^(k−1) exp(−2k²λ²).
double PValue(double distance, size_t m, size_t n) {
  double effective = std::sqrt(static_cast<double>(m) * static_cast<double>(n) / static_cast<double>(m + n));
  double lambda = effective * distance, sum = 0;
  if (lambda < 0.3) return 1;  // 1 − 1e-5 and more
  for (int k = 1; k <= 100; ++k) sum += (k % 2 == 1 ? 2 : -2) * std::exp(-2.0 * k * k * lambda * lambda);
  return std::clamp(sum, 0.0, 1.0);
}

double PValue(const Times& times) {
  return PValue(Distance(times.foreign, times.missing), times.foreign.size(), times.missing.size());
}

TEST(KolmogorovSmirnov, AgreesWithTheTables) {
  // Critical values of λ for p = 0.10, 0.05, 0.01, 0.001.
  const size_t n = 1000;
  for (auto [lambda, p] : {std::pair{1.2238, 0.10}, {1.3581, 0.05}, {1.6276, 0.01}, {1.9495, 0.001}}) {
    EXPECT_NEAR(PValue(lambda / std::sqrt(n / 2.0), n, n), p, 0.01 * p);
  }
  EXPECT_EQ(Distance({1, 2, 3, 4}, {1, 2, 3, 4}), 0);
  EXPECT_EQ(Distance({1, 2}, {3, 4}), 1);
  EXPECT_EQ(Distance({1, 2, 2, 3}, {2, 3, 3, 4}), 0.5);
}

TEST(KolmogorovSmirnov, SeesAShiftOfATenthOfTheSpread) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  Times same, shifted;
  for (int i = 0; i < kPairs; ++i) {
    same.foreign.push_back(normal(random)), same.missing.push_back(normal(random));
    shifted.foreign.push_back(normal(random) + 0.2), shifted.missing.push_back(normal(random));
  }
  EXPECT_GT(PValue(same), kLeastP);
  EXPECT_LT(PValue(shifted), kLeastP);
}

// Every pair asks for chains that were never asked for before: what one chain costs depends on where its keys
// fall in the hash table, which asking again would only measure again.
class TimingTest : public testing::Test {
 protected:
  static constexpr uint32_t kBlocks = 4;  // of a chain

  TimingTest() : served_(SmallStore(64 << 20)), remote_(served_.NewChannel()) {
    Digest model;
    model.bytes.fill(0x77);
    layout_ = Layout::Uniform(model, /*layers=*/1, /*kv_heads=*/1, /*head_dim=*/16);
    mine_ = {"mine", layout_.Fingerprint()};
    EXPECT_TRUE(remote_.RegisterLayout(layout_).ok());
    // Both tenants have blocks; only "theirs" has what "mine" will ask for.
    EXPECT_TRUE(PutChain(served_.engine(), SampleChain(layout_, kBlocks, "tq:k4v4", 1), "mine").ok());
    std::vector<SampleChain> chains;
    for (uint32_t i = 0; i < 2 * (kPairs + kWarmUp); ++i) {
      chains.emplace_back(layout_, kBlocks, "tq:k4v4", 2 + i);
      if (i % 2 == 1) continue;
      EXPECT_TRUE(PutChain(served_.engine(), chains.back(), "theirs").ok());
    }
    for (const SampleChain& chain : chains) questions_.push_back({chain.keys(), chain.announces()});
  }
  struct Question {
    std::vector<Digest> keys;
    std::vector<BlockAnnounce> blocks;
  };
  void Lookup(KvStore& store, const Question& question) {
    LookupOptions all;
    all.all = true;
    absl::StatusOr<LookupResult> result = store.Lookup(mine_, question.keys, all);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->prefix_blocks, 0u);
  }
  void Announce(KvStore& store, const Question& question) {
    auto session = store.BeginPut(mine_, question.blocks, {});
    ASSERT_TRUE(session.ok());
    EXPECT_EQ((*session)->wanted().size(), size_t{kBlocks});
  }
  // Both of a pair one after the other, in an order drawn anew for each.
  Times Measure(const std::function<void(const Question&)>& ask) {
    Times times;
    // All are asked from the same memory: where a question lies would tell on its time too.
    Question question;
    auto time = [&](const Question& asked, std::vector<double>& into) {
      question.keys.assign(asked.keys.begin(), asked.keys.end());
      question.blocks.assign(asked.blocks.begin(), asked.blocks.end());
      auto start = std::chrono::steady_clock::now();
      ask(question);
      into.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    };
    std::mt19937 random(++rounds_);
    for (size_t i = 0; i < questions_.size(); i += 2) {
      const Question &foreign = questions_[i], &missing = questions_[i + 1];
      bool foreign_first = random() % 2 == 0;
      if (foreign_first) time(foreign, times.foreign);
      time(missing, times.missing);
      if (!foreign_first) time(foreign, times.foreign);
    }
    times.foreign.erase(times.foreign.begin(), times.foreign.begin() + kWarmUp);
    times.missing.erase(times.missing.begin(), times.missing.begin() + kWarmUp);
    return times;
  }
  void ExpectIndistinguishable(const std::function<void(const Question&)>& ask) {
    double p = PValue(Measure(ask));
    if (p <= kLeastP) p = PValue(Measure(ask));  // one in a hundred is chance
    EXPECT_GT(p, kLeastP);
  }

  ServedStore served_;
  RemoteStore remote_;
  Layout layout_;
  Namespace mine_;
  std::vector<Question> questions_;  // even: foreign; odd: missing
  uint32_t rounds_ = 0;
};

TEST_F(TimingTest, LookupInProcess) {
  ExpectIndistinguishable([&](const Question& q) { Lookup(served_.engine(), q); });
}
TEST_F(TimingTest, AnnounceInProcess) {
  ExpectIndistinguishable([&](const Question& q) { Announce(served_.engine(), q); });
}
TEST_F(TimingTest, LookupOverGrpc) {
  ExpectIndistinguishable([&](const Question& q) { Lookup(remote_, q); });
}
TEST_F(TimingTest, AnnounceOverGrpc) {
  ExpectIndistinguishable([&](const Question& q) { Announce(remote_, q); });
}
// That the test would see a leak: what is one's own and stored takes another time.
TEST_F(TimingTest, WouldSeeAHit) {
  mine_.tenant = "theirs";
  Times times =
      Measure([&](const Question& q) { ASSERT_TRUE(served_.engine().Lookup(mine_, q.keys, {}).ok()); });
  EXPECT_LT(PValue(times), kLeastP);
}

}  // namespace
}  // namespace quire::store
