// The engine on a real model (QUIRE_MODEL): restored KV against recomputed, many sequences at a time,
// refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>

#include "core/block/keys.h"
#include "services/worker/engine/engine.h"
#include "tests/services/worker/engine/license_tokens.h"

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kContext = 2048;

// One engine a codec for the whole binary: loading takes a second or two.
Engine& EngineFor(const std::string& codec) {
  static std::map<std::string, std::unique_ptr<Engine>> engines;
  std::unique_ptr<Engine>& engine = engines[codec];
  if (engine == nullptr) {
    const char* model = std::getenv("QUIRE_MODEL");
    EXPECT_NE(model, nullptr) << "QUIRE_MODEL must name a .gguf file";
    EngineOptions options{.model_path = model == nullptr ? "" : model,
                          .kv_codec = *CodecSpec::Parse(codec),
                          .max_context = kContext};
    double last = -1;
    std::string step;
    auto loaded = Engine::Load(options, [&](const std::string& name, double fraction) {
      EXPECT_GE(fraction, name == step ? last : 0) << name;
      EXPECT_LE(fraction, 1) << name;
      step = name;
      last = fraction;
    });
    if (!loaded.ok()) {
      ADD_FAILURE() << loaded.status();
      std::abort();
    }
    EXPECT_EQ(last, 1);
    engine = *std::move(loaded);
  }
  return *engine;
}

Digest Root(const Engine& engine) { return RootKey(engine.info().fingerprint, "test"); }

uint32_t Best(const std::vector<float>& logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<float> MustForward(Engine& engine, Sequence& sequence, std::span<const uint32_t> tokens) {
  auto logits = engine.Forward(sequence, tokens);
  EXPECT_TRUE(logits.ok()) << logits.status();
  return logits.ok() ? *std::move(logits) : std::vector<float>(engine.info().vocabulary);
}

std::vector<uint32_t> Greedy(Engine& engine, Sequence& sequence, std::vector<float> logits, int n) {
  std::vector<uint32_t> out;
  for (int i = 0; i < n; ++i) {
    out.push_back(Best(logits));
    logits = MustForward(engine, sequence, std::span(&out.back(), 1));
  }
  return out;
}

// KL(p ‖ q) of the two softmaxes, nats.
double Divergence(const std::vector<float>& p, const std::vector<float>& q) {
  auto log_sum = [](const std::vector<float>& x) {
    const double most = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (float v : x) sum += std::exp(v - most);
    return most + std::log(sum);
  };
  const double p_sum = log_sum(p), q_sum = log_sum(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i] - p_sum) * ((p[i] - p_sum) - (q[i] - q_sum));
  return kl;
}

// A new sequence that holds the first blocks of another's, as a worker restores them from a store.
std::unique_ptr<Sequence> RestoredFrom(Engine& engine, const Sequence& other,
                                       std::span<const uint32_t> tokens, size_t blocks) {
  auto sequence = engine.NewSequence(Root(engine));
  for (size_t b = 0; b < blocks; ++b) {
    auto copy = std::make_shared<std::vector<uint8_t>>(*other.blocks()[b].object);
    const absl::Status status = sequence->Restore(tokens.subspan(b * kBlockTokens, kBlockTokens), copy);
    EXPECT_TRUE(status.ok()) << status;
  }
  return sequence;
}

TEST(EngineModel, SaysWhatItLoaded) {
  Engine& engine = EngineFor("raw");
  EXPECT_EQ(engine.info().architecture, "llama");
  EXPECT_EQ(engine.info().context, kContext);
  EXPECT_EQ(engine.info().vocabulary, engine.tokenizer()->vocabulary());
  EXPECT_EQ(engine.info().fingerprint, engine.layout().Fingerprint());
  EXPECT_EQ(engine.info().model_digest, engine.layout().model_digest);
  EXPECT_GT(engine.info().parameters, 100'000'000u);
  EXPECT_THAT(engine.info().eos_tokens, ::testing::Contains(*engine.tokenizer()->TokenId("<|im_end|>")));
  EXPECT_NE(engine.chat_template(), nullptr);
}

TEST(EngineModel, RawHitContinuesExactlyAsTheRecomputation) {
  Engine& engine = EngineFor("raw");
  const auto prompt = LicenseTokens(*engine.tokenizer(), 1510);
  auto first = engine.NewSequence(Root(engine));
  auto logits = MustForward(engine, *first, prompt);
  auto hit = RestoredFrom(engine, *first, prompt, 22);
  auto hit_logits = MustForward(engine, *hit, std::span(prompt).subspan(hit->length()));
  EXPECT_EQ(logits, hit_logits) << "KL " << Divergence(logits, hit_logits);
  const auto text = Greedy(engine, *first, logits, 32);  // seals a block on its way
  EXPECT_EQ(Greedy(engine, *hit, hit_logits, 32), text);
  EXPECT_EQ(first->blocks().size(), 24u);
  for (size_t b = 0; b < first->blocks().size(); ++b) {
    EXPECT_EQ(first->blocks()[b].identity, hit->blocks()[b].identity);
    EXPECT_EQ(*first->blocks()[b].object, *hit->blocks()[b].object) << "block " << b;
  }
}

TEST(EngineModel, CodedHitIsCloseToTheRecomputation) {
  Engine& engine = EngineFor("tq:k4v4");
  const auto prompt = LicenseTokens(*engine.tokenizer(), 1500);
  auto first = engine.NewSequence(Root(engine));
  const auto logits = MustForward(engine, *first, prompt);
  ASSERT_EQ(first->blocks().size(), 23u);
  for (size_t blocks : {1, 22, 23}) {
    auto hit = RestoredFrom(engine, *first, prompt, blocks);
    const auto hit_logits = MustForward(engine, *hit, std::span(prompt).subspan(hit->length()));
    EXPECT_LT(Divergence(logits, hit_logits), 0.05) << blocks << " blocks restored";
  }
  const uint64_t raw = engine.layout().RawBlockBytes();
  for (const SealedBlock& block : first->blocks().subspan(1))
    EXPECT_LT(block.object->size(), raw * 3 / 10);  // 0 has the sinks
  EXPECT_LT(first->kv_bytes(), 23 * raw / 2);
}

TEST(EngineModel, SequencesSideBySideDoNotTouchEachOther) {
  Engine& engine = EngineFor("tq:k4v4");
  const auto tokens = LicenseTokens(*engine.tokenizer(), 700);
  const size_t starts[] = {0, 30, 260}, lengths[] = {70, 200, 330};
  constexpr int kTokens = 12;
  std::vector<std::vector<uint32_t>> alone, together(3);
  std::vector<std::vector<float>> logits(3);
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (size_t i = 0; i < 3; ++i) {
    auto sequence = engine.NewSequence(Root(engine));
    auto first = MustForward(engine, *sequence, std::span(tokens).subspan(starts[i], lengths[i]));
    alone.push_back(Greedy(engine, *sequence, first, kTokens));
  }
  for (size_t i = 0; i < 3; ++i) {
    sequences.push_back(engine.NewSequence(Root(engine)));
    logits[i] = MustForward(engine, *sequences[i], std::span(tokens).subspan(starts[i], lengths[i]));
  }
  for (int step = 0; step < kTokens; ++step) {
    for (size_t i = 0; i < 3; ++i) {
      together[i].push_back(Best(logits[i]));
      logits[i] = MustForward(engine, *sequences[i], std::span(&together[i].back(), 1));
    }
  }
  EXPECT_EQ(together, alone);
}

TEST(EngineModel, PiecesOfAPromptGiveTheSameAnswer) {
  Engine& engine = EngineFor("raw");
  const auto prompt = LicenseTokens(*engine.tokenizer(), 600);
  auto whole = engine.NewSequence(Root(engine));
  const auto logits = MustForward(engine, *whole, prompt);
  for (std::vector<size_t> pieces : {std::vector<size_t>{150, 150, 300}, {2, 61, 66, 5, 400, 66}, {598, 2}}) {
    auto sequence = engine.NewSequence(Root(engine));
    std::vector<float> last;
    for (size_t n : pieces)
      last = MustForward(engine, *sequence, std::span(prompt).subspan(sequence->length(), n));
    EXPECT_EQ(logits, last) << "KL " << Divergence(logits, last);
  }
}

TEST(EngineModel, RefusesForgedBlocks) {
  Engine& engine = EngineFor("tq:k4v4");
  const auto prompt = LicenseTokens(*engine.tokenizer(), 128);
  auto first = engine.NewSequence(Root(engine));
  MustForward(engine, *first, prompt);
  auto sequence = engine.NewSequence(Root(engine));
  for (size_t at : {size_t{0}, size_t{200}, first->blocks()[0].object->size() / 2}) {
    auto bad = std::make_shared<std::vector<uint8_t>>(*first->blocks()[0].object);
    (*bad)[at] ^= 1;
    EXPECT_EQ(sequence->Restore(std::span(prompt).first(64), bad).code(), absl::StatusCode::kDataLoss) << at;
    EXPECT_EQ(sequence->length(), 0u);
  }
  EXPECT_EQ(sequence->Restore(std::span(prompt).subspan(64), first->blocks()[0].object).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(sequence->Restore(std::span(prompt).first(64), first->blocks()[0].object).ok());
}

TEST(EngineModel, RefusesWhatDoesNotFit) {
  Engine& engine = EngineFor("raw");
  auto sequence = engine.NewSequence(Root(engine));
  EXPECT_EQ(engine.Forward(*sequence, {}).status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<uint32_t> bad{1, engine.info().vocabulary};
  auto status = engine.Forward(*sequence, bad).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("token 49152 at position 1"));
  const std::vector<uint32_t> huge{0xFFFFFFFFu};
  EXPECT_EQ(engine.Forward(*sequence, huge).status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<uint32_t> long_prompt(kContext + 1, 5);
  status = engine.Forward(*sequence, long_prompt).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2048"));
}

TEST(EngineModel, RefusesOptionsItCanNotServe) {
  auto load = [](const std::string& model, const char* codec, uint32_t max_context) {
    EngineOptions options{
        .model_path = model, .kv_codec = *CodecSpec::Parse(codec), .max_context = max_context};
    return Engine::Load(options, nullptr).status();
  };
  const std::string model = std::getenv("QUIRE_MODEL");
  EXPECT_EQ(load(model + ".missing", "raw", 0).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(load(QUIRE_LICENSE, "raw", 0).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status context = load(model, "raw", 1u << 20);
  EXPECT_EQ(context.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(context.message()), HasSubstr("1048576"));
  const absl::Status layer = load(model, "tq:k4v4,layers=30:k8v8", 0);
  EXPECT_EQ(layer.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(layer.message()), HasSubstr("layer 30"));
  const absl::Status search = load(model, "tq_prod:k4v4", 0);
  EXPECT_EQ(search.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(search.message()),
              HasSubstr("tq_prod:k4v4 is for vector search, not for attention"));
}

}  // namespace
}  // namespace quire::worker
