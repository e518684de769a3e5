#include "services/worker/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>

#include "tests/services/worker/scheduler/harness.h"

namespace quire::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What the fake engine writes after a prompt, without a scheduler.
std::string ExpectedText(const FakeEngine& engine, std::vector<uint32_t> history, size_t tokens) {
  std::string out;
  for (size_t i = 0; i < tokens; ++i) {
    history.push_back(engine.next(history));
    out.push_back(static_cast<char>(history.back()));
  }
  return out;
}

TEST(Scheduler, GeneratesWhatTheEngineSays) {
  Harness h;
  for (size_t length : {1, 63, 64, 65, 511, 512, 513, 1500}) {
    Result r = h.Run(Greedy(Prompt(length), 20));
    EXPECT_EQ(r.text, ExpectedText(h.engine, Prompt(length), 20)) << length;
    EXPECT_EQ(r.finish, Finish::kLength);
    EXPECT_EQ(r.tokens.size(), 20u);
    EXPECT_EQ(r.usage.prompt_tokens, length);
    EXPECT_EQ(r.usage.completion_tokens, 20u);
    EXPECT_EQ(r.usage.cached_tokens, 0u);
  }
  EXPECT_EQ(h.metrics.requests[static_cast<size_t>(Finish::kLength)]->Value(), 8);
  EXPECT_EQ(h.metrics.completion_tokens.Value(), 160);
  EXPECT_EQ(h.metrics.prompt_tokens.Value(), 1 + 63 + 64 + 65 + 511 + 512 + 513 + 1500);
}

TEST(Scheduler, EndTokens) {
  Harness h;
  h.engine.next = Writes(ByteTokens("hello"), 3);
  Result r = h.Run(Greedy(Prompt(3), 0));
  EXPECT_EQ(r.text, "hello");
  EXPECT_EQ(r.finish, Finish::kStop);
  EXPECT_EQ(r.tokens, ByteTokens("hello")) << "the end token is not sent";
  EXPECT_EQ(r.usage.completion_tokens, 6u) << "but counted";

  GenerateSpec spec = Greedy(Prompt(3), 9);
  spec.ignore_eos = true;
  r = h.Run(spec);
  EXPECT_EQ(r.finish, Finish::kLength);
  EXPECT_EQ(r.tokens.size(), 9u);
  EXPECT_EQ(r.text, "hello") << "special tokens have no text";

  spec = Greedy(Prompt(3), 0);
  spec.stop_tokens = {'l'};
  r = h.Run(spec);
  EXPECT_EQ(r.text, "he");
  EXPECT_EQ(r.finish, Finish::kStop);
}

TEST(Scheduler, StopStringsSpanTokensAndAreNeverSent) {
  Harness h;
  h.engine.next = Writes(ByteTokens("one two STOP three"), 3);
  GenerateSpec spec = Greedy(Prompt(3), 0);
  spec.stop = {"STOP", "never"};
  Result r = h.Run(spec);
  EXPECT_EQ(r.text, "one two ");
  EXPECT_EQ(r.finish, Finish::kStop);
  EXPECT_EQ(r.usage.completion_tokens, 12u) << "up to the P";

  // A stop that begins and does not come to be is sent after all.
  h.Stop();
  h.engine.next = Writes(ByteTokens("a STO"), 3);
  r = h.Run(spec);
  EXPECT_EQ(r.text, "a STO");
  EXPECT_EQ(r.finish, Finish::kStop) << "by the end token";
}

std::vector<uint32_t> Utf8Tokens(std::string_view text) {
  std::vector<uint32_t> out;
  for (unsigned char c : text) out.push_back(c);
  return out;
}

TEST(Scheduler, CharactersAreSentWhole) {
  Harness h;
  h.engine.next = Writes(Utf8Tokens("é終🙂x"), 3);
  Result r = h.Run(Greedy(Prompt(3), 0));
  EXPECT_EQ(r.text, "é終🙂x");
  EXPECT_EQ(r.tokens.size(), 10u);
  for (const std::string& piece : r.pieces) {
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xC0) != 0x80)
        << "a piece begins inside a character";
  }
  // Cut off inside a character.
  r = h.Run(Greedy(Prompt(3), 4));
  EXPECT_EQ(r.text, "é\xEF\xBF\xBD");
  EXPECT_EQ(r.finish, Finish::kLength);

  // A stop string of several bytes a character, its bytes one token each.
  GenerateSpec spec = Greedy(Prompt(3), 0);
  spec.stop = {"終🙂"};
  r = h.Run(spec);
  EXPECT_EQ(r.text, "é");
  EXPECT_EQ(r.finish, Finish::kStop);
}

TEST(Scheduler, ContextEndsAGeneration) {
  Harness h(nullptr, {}, /*context=*/128);
  Result r = h.Run(Greedy(Prompt(100), 0));
  EXPECT_EQ(r.finish, Finish::kLength);
  EXPECT_EQ(r.tokens.size(), 28u);
  r = h.Run(Greedy(Prompt(127), 50));
  EXPECT_EQ(r.tokens.size(), 1u);
}

TEST(Scheduler, RefusesWhatIsOutOfRange) {
  Harness h(nullptr, {}, /*context=*/128);
  auto message = [&](auto change) {
    GenerateSpec spec = Greedy(Prompt(3), 1);
    change(spec);
    auto status = h.scheduler().Submit(spec).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_EQ(message([](auto& s) { s.prompt = Prompt(200); }),
            "prompt has 200 tokens, the model's context is 128");
  EXPECT_THAT(message([](auto& s) { s.prompt.clear(); }), HasSubstr("no tokens"));
  EXPECT_THAT(message([](auto& s) { s.prompt = {1, 999}; }), HasSubstr("prompt[1] is token 999"));
  EXPECT_THAT(message([](auto& s) { s.stop.resize(17, "x"); }), HasSubstr("17"));
  EXPECT_THAT(message([](auto& s) { s.stop = {"a", ""}; }), HasSubstr("stop[1]"));
  EXPECT_THAT(message([](auto& s) { s.stop = {std::string(1025, 'a')}; }), HasSubstr("1025"));
  EXPECT_THAT(message([](auto& s) { s.stop_tokens = {4000}; }), HasSubstr("stop_tokens[0]"));
  EXPECT_THAT(message([](auto& s) { s.top_logprobs = 21; }), HasSubstr("top_logprobs is 21"));
  EXPECT_THAT(message([](auto& s) { s.id = std::string(129, 'a'); }), HasSubstr("request_id"));
  EXPECT_THAT(message([](auto& s) { s.tenant = std::string(257, 'a'); }), HasSubstr("tenant"));
  EXPECT_THAT(message([](auto& s) { s.salt = std::string(257, 'a'); }), HasSubstr("salt"));
  EXPECT_THAT(message([](auto& s) { s.sampling.top_p = 2; }), HasSubstr("top_p"));
}

TEST(Scheduler, LogprobsAreTheModelsOwn) {
  Harness h;
  GenerateSpec spec = Greedy(Prompt(5), 4);
  spec.top_logprobs = 2;
  spec.sampling.logit_bias = {{'z', 50.0f}};
  Result r = h.Run(spec);
  EXPECT_EQ(r.text, "zzzz") << "the bias decides";
  ASSERT_EQ(r.logprobs.size(), 4u);
  for (const TokenLogprob& l : r.logprobs) {
    EXPECT_EQ(l.token, uint32_t{'z'});
    ASSERT_EQ(l.top.size(), 2u);
    EXPECT_GE(l.top[0].second, l.top[1].second);
    EXPECT_GE(l.top[0].second, l.logprob);
  }
}

TEST(Scheduler, SeedGivesTheSameTextWhateverElseRuns) {
  Harness h;
  GenerateSpec spec = Greedy(Prompt(70), 40);
  spec.sampling.temperature = 1;
  spec.sampling.seed = 12345;
  std::string alone = h.Run(spec).text;
  std::vector<std::shared_ptr<Generation>> others;
  for (uint32_t i = 0; i < 5; ++i) {
    GenerateSpec other = Greedy(Prompt(300 + i, i), 60);
    other.sampling.temperature = 1;
    other.sampling.seed = i;
    others.push_back(h.Submit(other));
  }
  EXPECT_EQ(h.Run(spec).text, alone);
  for (auto& other : others) Collect(*other);
  spec.sampling.seed = 54321;
  EXPECT_NE(h.Run(spec).text, alone);
}

TEST(Scheduler, DecodesGoOnWhileALongPromptIsComputed) {
  Harness h;
  std::vector<uint32_t> little = Prompt(5, 0), big = Prompt(3000, 1);
  // The short request has begun to decode before the long one arrives.
  Gate long_one_is_here;
  h.engine.before = [&, at = 0](const FakeEngine::Call& call) mutable {
    if (call.first_token == little[0] && ++at == 3) long_one_is_here.Wait();
    return absl::OkStatus();
  };
  auto decoding = h.Submit(Greedy(little, 100));
  long_one_is_here.WaitForArrivals(1);
  auto prefilling = h.Submit(Greedy(big, 2));
  long_one_is_here.Open();
  Collect(*decoding);
  Collect(*prefilling);

  std::vector<FakeEngine::Call> calls = h.engine.calls();
  std::vector<size_t> chunks;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].first_token == big[0] && calls[i].count > 1) chunks.push_back(i);
  }
  ASSERT_EQ(chunks.size(), 6u) << "3000 tokens by 512";
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(calls[chunks[i]].count, 512u);
  for (size_t i = 1; i < chunks.size(); ++i) {
    bool decoded = std::any_of(calls.begin() + chunks[i - 1], calls.begin() + chunks[i],
                               [&](const auto& c) { return c.first_token == little[0] && c.count == 1; });
    EXPECT_TRUE(decoded) << "no decode step between two chunks";
  }
}

TEST(Scheduler, AShortPromptOvertakesALongOne) {
  Harness h;
  std::vector<uint32_t> big = Prompt(3000, 1), little = Prompt(5, 2);
  Gate gate;
  h.engine.before = [&, first = true](const FakeEngine::Call&) mutable {
    if (std::exchange(first, false)) gate.Wait();
    return absl::OkStatus();
  };
  auto long_one = h.Submit(Greedy(big, 1));
  gate.WaitForArrivals(1);
  auto short_one = h.Submit(Greedy(little, 1));
  gate.Open();
  Collect(*short_one);
  Collect(*long_one);
  std::vector<FakeEngine::Call> calls = h.engine.calls();
  size_t at =
      std::find_if(calls.begin(), calls.end(), [&](const auto& c) { return c.first_token == little[0]; }) -
      calls.begin();
  EXPECT_LE(at, 2u);
}

TEST(Scheduler, FirstComeFirstServed) {
  SchedulerOptions options;
  options.max_running = 1;
  Harness h(nullptr, options);
  Gate gate;
  h.engine.before = [&, first = true](const FakeEngine::Call&) mutable {
    if (std::exchange(first, false)) gate.Wait();
    return absl::OkStatus();
  };
  std::vector<std::shared_ptr<Generation>> generations;
  for (uint32_t i = 0; i < 5; ++i) generations.push_back(h.Submit(Greedy(Prompt(10, i), 3)));
  gate.WaitForArrivals(1);
  LoadFigures load = h.scheduler().Load();
  EXPECT_EQ(load.running, 1u);
  EXPECT_EQ(load.waiting, 4u);
  EXPECT_EQ(load.max_running, 1u);
  EXPECT_EQ(h.metrics.waiting.Value(), 4);
  gate.Open();
  for (auto& generation : generations) Collect(*generation);
  std::vector<uint32_t> order;
  for (const auto& call : h.engine.calls()) {
    if (call.at == 0) order.push_back(call.first_token);
  }
  EXPECT_THAT(order, ElementsAre('A', 'B', 'C', 'D', 'E'));
}

TEST(Scheduler, QueueIsBounded) {
  SchedulerOptions options;
  options.max_running = 1;
  options.max_waiting = 2;
  Harness h(nullptr, options);
  Gate gate;
  h.engine.before = [&](const FakeEngine::Call&) {
    gate.Wait();
    return absl::OkStatus();
  };
  std::vector<std::shared_ptr<Generation>> generations;
  for (uint32_t i = 0; i < 3; ++i) generations.push_back(h.Submit(Greedy(Prompt(10, i), 1)));
  auto refused = h.scheduler().Submit(Greedy(Prompt(10), 1)).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(refused.message(), HasSubstr("the limits are 1 and 2"));
  EXPECT_EQ(h.metrics.requests[0]->Value(), 1);
  gate.Open();
  for (auto& generation : generations) EXPECT_EQ(Collect(*generation).finish, Finish::kLength);
  // Whoever sees the end of one may count on its place.
  for (int i = 0; i < 200; ++i) {
    auto a = h.Submit(Greedy(Prompt(3), 1)), b = h.Submit(Greedy(Prompt(3), 1)),
         c = h.Submit(Greedy(Prompt(3), 1));
    Collect(*c);
    Collect(*b);
    Collect(*a);
  }
}

TEST(Scheduler, IdsAreUniqueWhileTheyRun) {
  Harness h;
  Gate gate;
  h.engine.before = [&](const FakeEngine::Call&) {
    gate.Wait();
    return absl::OkStatus();
  };
  GenerateSpec spec = Greedy(Prompt(3), 1);
  spec.id = "mine";
  auto first = h.Submit(spec);
  EXPECT_TRUE(absl::IsAlreadyExists(h.scheduler().Submit(spec).status()));
  gate.Open();
  Collect(*first);
  EXPECT_EQ(Collect(*h.Submit(spec)).finish, Finish::kLength);
  spec.id.clear();
  auto a = h.Submit(spec), b = h.Submit(spec);
  EXPECT_NE(a->id(), b->id());
  Collect(*a);
  Collect(*b);
}

TEST(Scheduler, CancellationIsSeenWithinAToken) {
  Harness h;
  Gate third, resumed;
  h.engine.before = [&, at = 0](const FakeEngine::Call&) mutable {
    if (++at == 3) {
      third.Wait();
    }
    return absl::OkStatus();
  };
  auto generation = h.Submit(Greedy(Prompt(3), 0));
  third.WaitForArrivals(1);
  generation->Cancel();
  third.Open();
  Result r = Collect(*generation);
  EXPECT_EQ(r.finish, Finish::kAborted);
  EXPECT_TRUE(r.status.ok());
  EXPECT_EQ(r.usage.completion_tokens, 3u) << "the step that ran, and no other";
  EXPECT_EQ(h.engine.calls().size(), 3u);
  EXPECT_EQ(h.scheduler().Load().running, 0u);
  EXPECT_EQ(h.scheduler().Load().kv_bytes, 0u);
}

TEST(Scheduler, AbortByIdWhileWaitingAndWhileRunning) {
  SchedulerOptions options;
  options.max_running = 1;
  Harness h(nullptr, options);
  Gate gate;
  h.engine.before = [&](const FakeEngine::Call&) {
    gate.Wait();
    return absl::OkStatus();
  };
  GenerateSpec spec = Greedy(Prompt(3), 0);
  spec.id = "runs";
  auto runs = h.Submit(spec);
  spec.id = "waits";
  auto waits = h.Submit(spec);
  gate.WaitForArrivals(1);
  EXPECT_TRUE(h.scheduler().Abort("waits"));
  EXPECT_TRUE(h.scheduler().Abort("runs"));
  EXPECT_FALSE(h.scheduler().Abort("unknown"));
  gate.Open();
  EXPECT_EQ(Collect(*waits).finish, Finish::kAborted);
  EXPECT_EQ(Collect(*runs).finish, Finish::kAborted);
  EXPECT_EQ(h.engine.calls().size(), 1u);
  EXPECT_FALSE(h.scheduler().Abort("runs"));
  EXPECT_EQ(h.metrics.requests[static_cast<size_t>(Finish::kAborted)]->Value(), 2);
}

TEST(Scheduler, ASlowReaderHoldsUpOnlyItself) {
  Harness h;
  // Generates 2000 tokens that nobody reads …
  auto unread = h.Submit(Greedy(Prompt(3, 0), 2000));
  // … while others come and go.
  for (int i = 0; i < 5; ++i) Collect(*h.Submit(Greedy(Prompt(3, 1), 100)));
  size_t computed = 0;
  for (const auto& call : h.engine.calls()) computed += call.first_token == Prompt(3, 0)[0];
  EXPECT_LE(computed, Generation::kMaxPendingTokens + 1);
  EXPECT_EQ(Collect(*unread).tokens.size(), 2000u);
}

TEST(Scheduler, AnEngineThatFailsEndsThatRequestOnly) {
  Harness h;
  h.engine.before = [](const FakeEngine::Call& call) {
    return call.first_token == 'B' && call.at > 10 ? absl::InternalError("out of memory") : absl::OkStatus();
  };
  auto bad = h.Submit(Greedy(Prompt(10, 1), 20)), good = h.Submit(Greedy(Prompt(10, 0), 20));
  Result r = Collect(*bad);
  EXPECT_EQ(r.finish, Finish::kFailed);
  EXPECT_THAT(r.status.message(), HasSubstr("out of memory"));
  EXPECT_EQ(r.tokens.size(), 2u);
  EXPECT_EQ(Collect(*good).finish, Finish::kLength);
}

TEST(Scheduler, DrainLetsRunningRequestsFinish) {
  Harness h;
  auto generation = h.Submit(Greedy(Prompt(3), 2000));
  std::thread reader([&] { EXPECT_EQ(Collect(*generation).tokens.size(), 2000u); });
  h.scheduler().Drain(kPatience);
  EXPECT_TRUE(absl::IsUnavailable(h.scheduler().Submit(Greedy(Prompt(3), 1)).status()));
  reader.join();
}

TEST(Scheduler, DrainAbortsAtItsDeadlineAndSoDoesDestruction) {
  Harness h;
  auto unread = h.Submit(Greedy(Prompt(3), 2000));
  h.scheduler().Drain(std::chrono::milliseconds(0));
  EXPECT_EQ(Collect(*unread).finish, Finish::kAborted);

  Harness other;
  auto generation = other.Submit(Greedy(Prompt(3), 2000));
  other.Stop();
  EXPECT_EQ(Collect(*generation).finish, Finish::kAborted);
}

TEST(Scheduler, ManyAtOnce) {
  Harness h;
  h.scheduler();  // started here: the clients share it
  std::vector<std::thread> clients;
  for (uint32_t c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (uint32_t i = 0; i < 20; ++i) {
        std::vector<uint32_t> prompt = Prompt(1 + (c * 37 + i * 101) % 700, c * 20 + i);
        GenerateSpec spec = Greedy(prompt, 1 + i);
        auto generation = h.Submit(spec);
        if (i % 5 == 4) generation->Cancel();
        Result r = Collect(*generation);
        if (r.finish == Finish::kLength) EXPECT_EQ(r.text, ExpectedText(h.engine, prompt, 1 + i));
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(h.scheduler().Load().running, 0u);
}

TEST(SchedulerOptions, Limits) {
  SchedulerOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.max_running = 0;
  EXPECT_THAT(options.Validate().message(), HasSubstr("max_running"));
  options = {};
  options.chunk_tokens = 100;
  EXPECT_THAT(options.Validate().message(), HasSubstr("chunk_tokens is 100"));
}

}  // namespace
}  // namespace quire::worker
