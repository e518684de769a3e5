#include "services/worker/scheduler/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

namespace quire::worker {
namespace {

TEST(StopMatcher, WithoutStopsTextPasses) {
  StopMatcher m({});
  EXPECT_EQ(m.Push("abc"), "abc");
  EXPECT_EQ(m.Flush(), "");
  EXPECT_FALSE(m.matched());
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher m({"END"});
  EXPECT_EQ(m.Push("xE"), "x");
  EXPECT_EQ(m.Push("N"), "");
  EXPECT_EQ(m.Push("E"), "EN");  // "ENE": the last E may begin again
  EXPECT_EQ(m.Push("ND and more"), "");
  EXPECT_TRUE(m.matched());
  EXPECT_EQ(m.Push("anything"), "");
  EXPECT_EQ(m.Flush(), "");
}

TEST(StopMatcher, FlushGivesTheHeldText) {
  StopMatcher m({"END"});
  EXPECT_EQ(m.Push("the EN"), "the ");
  EXPECT_EQ(m.Flush(), "EN");
  EXPECT_FALSE(m.matched());
}

TEST(StopMatcher, FirstToEndWins) {
  StopMatcher m({"abcd", "bc"});
  EXPECT_EQ(m.Push("xabcd"), "xa");
  StopMatcher same_end({"c", "abc"});
  EXPECT_EQ(same_end.Push("xabc"), "x");
}

TEST(StopMatcher, Utf8) {
  StopMatcher m({"é!", "終わり"});
  EXPECT_EQ(m.Push("caf"), "caf");
  EXPECT_EQ(m.Push("é"), "");
  EXPECT_EQ(m.Push("終"), "é");
  EXPECT_EQ(m.Push("わ"), "");
  EXPECT_EQ(m.Push("り"), "");
  EXPECT_TRUE(m.matched());
}

// What the whole text should come to: everything before the stop that ends first (the longest of those).
std::string Expected(const std::string& text, const std::vector<std::string>& stops) {
  size_t best_end = std::string::npos, cut = text.size();
  for (const std::string& stop : stops) {
    size_t at = text.find(stop);
    if (at == std::string::npos) continue;
    size_t end = at + stop.size();
    if (end < best_end || (end == best_end && at < cut)) {
      best_end = end;
      cut = at;
    }
  }
  return text.substr(0, cut);
}

TEST(StopMatcher, CutsDoNotMatterAndNoPartOfAStopIsSent) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    auto word = [&](size_t most) {
      std::string s;
      for (size_t n = 1 + random() % most; n > 0; --n) s.push_back(static_cast<char>('a' + random() % 2));
      return s;
    };
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 3; n > 0; --n) stops.push_back(word(6));
    std::string text = word(24), sent;
    StopMatcher m(stops);
    for (size_t at = 0; at < text.size();) {
      size_t n = 1 + random() % 4;
      sent += m.Push(text.substr(at, n));
      // At no time has more been sent than the result will hold.
      ASSERT_TRUE(Expected(text, stops).starts_with(sent)) << text;
      at += n;
    }
    sent += m.Flush();
    ASSERT_EQ(sent, Expected(text, stops)) << text;
  }
}

}  // namespace
}  // namespace quire::worker
