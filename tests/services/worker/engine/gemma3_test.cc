// Gemma 3 against golden_gemma3.py: a tiny model always, the real one where QUIRE_GEMMA_MODEL has it (`make
// gemma`).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/block/keys.h"
#include "services/worker/engine/engine.h"
#include "services/worker/engine/evaluation.h"
#include "tests/services/worker/engine/golden_logits.h"
#include "tests/services/worker/engine/tiny_gemma3.h"

namespace quire::worker {
namespace {

std::string TinyPath() {
  static const std::string path = [] {
    std::string folder = std::filesystem::temp_directory_path() / "quire-gemma3-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    const std::vector<uint8_t> bytes = TinyGemma3().Build();
    std::ofstream(folder + "/tiny.gguf", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return folder + "/tiny.gguf";
  }();
  return path;
}

class RemoveTiny : public ::testing::Environment {
  void TearDown() override { std::filesystem::remove_all(std::filesystem::path(TinyPath()).parent_path()); }
};
const auto* const kRemoveTiny = ::testing::AddGlobalTestEnvironment(new RemoveTiny);

std::unique_ptr<Evaluator> LoadEvaluator(const std::string& path) {
  auto evaluator = Evaluator::Load(path, 0, 0, nullptr);
  EXPECT_TRUE(evaluator.ok()) << evaluator.status();
  return evaluator.ok() ? *std::move(evaluator) : nullptr;
}

// fp32 KV against the golden logits, then KV as served against the golden first tokens.
void ExpectGolden(Evaluator& evaluator, const GoldenLogits& golden, double largest_difference) {
  size_t same = 0, positions = 0;
  double worst = 0;
  absl::Status status = evaluator.ForEachPosition(
      golden.tokens, std::nullopt, [&](size_t position, std::span<const float> logits) {
        ++positions;
        const GoldenLogits::Top& top = golden.tops[position];
        same += BestToken(logits) == top.ids[0];
        for (size_t i = 0; i < top.ids.size(); ++i) {
          worst = std::max(worst, static_cast<double>(std::abs(logits[top.ids[i]] - top.logits[i])));
        }
      });
  ASSERT_TRUE(status.ok()) << status;
  const double n = static_cast<double>(golden.tokens.size());
  EXPECT_EQ(positions, golden.tokens.size());
  std::printf("fp32 KV: top-1 %.3f %%, largest logit difference %.2e\n", 100 * static_cast<double>(same) / n,
              worst);
  EXPECT_GE(static_cast<double>(same) / n, 0.995);
  EXPECT_LT(worst, largest_difference);

  size_t same_rounded = 0;
  status = evaluator.ForEachPosition(golden.tokens, *CodecSpec::Parse("raw"),
                                     [&](size_t position, std::span<const float> logits) {
                                       same_rounded += BestToken(logits) == golden.rounded_top[position];
                                     });
  ASSERT_TRUE(status.ok()) << status;
  std::printf("bf16 KV: top-1 %.3f %%\n", 100 * static_cast<double>(same_rounded) / n);
  EXPECT_GE(static_cast<double>(same_rounded) / n, 0.985);
}

TEST(Gemma3, TinyModelAgreesWithNumPy) {
  auto evaluator = LoadEvaluator(TinyPath());
  ASSERT_NE(evaluator, nullptr);
  EXPECT_EQ(evaluator->info().architecture, "gemma3");
  ASSERT_EQ(evaluator->layout().layers.size(), 3u);
  EXPECT_EQ(evaluator->layout().layers[0].streams[0].sliding_window, 70u);
  EXPECT_EQ(evaluator->layout().layers[1].streams[0].sliding_window, 0u);
  EXPECT_EQ(evaluator->layout().layers[2].streams[1].sliding_window, 70u);
  ExpectGolden(*evaluator, GoldenLogits(QUIRE_GOLDEN_DIR "/golden_gemma3_tiny.bin"), 1e-3);
}

std::vector<float> RunTokens(Engine& engine, Sequence& sequence, std::span<const uint32_t> tokens,
                             size_t step) {
  std::vector<float> last;
  for (size_t at = 0; at < tokens.size(); at += step) {
    auto logits = engine.Forward(sequence, tokens.subspan(at, std::min(step, tokens.size() - at)));
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return {};
    last = *std::move(logits);
  }
  return last;
}

std::unique_ptr<Engine> LoadEngine(const std::string& path, const char* spec) {
  auto engine = Engine::Load({.model_path = path, .kv_codec = *CodecSpec::Parse(spec)}, nullptr);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

std::vector<uint32_t> TinyTokens(size_t n) {
  std::vector<uint32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = static_cast<uint32_t>((i * i * 7 + i * 31 + 5) % 300);
  return tokens;
}

TEST(Gemma3, RawCodecGivesTheSameBitsInPiecesAndRestored) {
  auto engine = LoadEngine(TinyPath(), "raw");
  ASSERT_NE(engine, nullptr);
  const std::vector<uint32_t> tokens = TinyTokens(1300);
  const Digest root = RootKey(engine->info().fingerprint, "salt");
  auto whole = engine->NewSequence(root);
  const std::vector<float> wanted = RunTokens(*engine, *whole, tokens, tokens.size());
  for (size_t step : {1000u, 513u, 100u, 7u}) {
    auto pieces = engine->NewSequence(root);
    EXPECT_EQ(RunTokens(*engine, *pieces, tokens, step), wanted) << "in pieces of " << step;
  }
  for (size_t blocks : {1u, 9u, 20u}) {
    auto restored = engine->NewSequence(root);
    for (size_t b = 0; b < blocks; ++b) {
      ASSERT_TRUE(restored->Restore(std::span(tokens).subspan(64 * b, 64), whole->blocks()[b].object).ok());
    }
    EXPECT_EQ(RunTokens(*engine, *restored, std::span(tokens).subspan(64 * blocks), 2000), wanted)
        << blocks << " blocks";
  }
}

TEST(Gemma3, OneTokenAtATimeAgreesWithChunks) {
  for (const char* spec : {"raw", "tq:k8v8"}) {
    auto engine = LoadEngine(TinyPath(), spec);
    ASSERT_NE(engine, nullptr);
    const std::vector<uint32_t> tokens = TinyTokens(420);
    const Digest root = RootKey(engine->info().fingerprint, "salt");
    auto chunks = engine->NewSequence(root), single = engine->NewSequence(root);
    RunTokens(*engine, *chunks, std::span(tokens).first(400), 100);
    const std::vector<float> a = RunTokens(*engine, *chunks, std::span(tokens).subspan(400), 20);
    RunTokens(*engine, *single, std::span(tokens).first(400), 100);
    const std::vector<float> b = RunTokens(*engine, *single, std::span(tokens).subspan(400), 1);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.05) << spec << ' ' << i;
  }
}

// Keys and values that lie behind every window matter to global layers only.
TEST(Gemma3, CodedHistoryStaysClose) {
  auto evaluator = LoadEvaluator(TinyPath());
  ASSERT_NE(evaluator, nullptr);
  const std::vector<uint32_t> tokens = TinyTokens(640 + 65);
  ASSERT_TRUE(evaluator->SetText(tokens, 640, 64).ok());
  double last = 1;
  for (const char* spec : {"tq:k4v4", "tq:k6v6", "tq:k8v8", "raw"}) {
    auto fidelity = evaluator->Measure(*CodecSpec::Parse(spec), 0);
    ASSERT_TRUE(fidelity.ok()) << fidelity.status();
    double mean = 0;
    for (double kl : fidelity->kl) mean += kl / static_cast<double>(fidelity->kl.size());
    std::printf("%s: KL %.2e\n", spec, mean);
    EXPECT_LT(mean, last / 3);
    last = mean;
  }
}

TEST(Gemma3, RealModelAgreesWithNumPy) {
  const char* path = std::getenv("QUIRE_GEMMA_MODEL");
  if (path == nullptr || !std::filesystem::exists(path)) {
    GTEST_SKIP() << "no model at QUIRE_GEMMA_MODEL; `make gemma` fetches it";
  }
  auto evaluator = LoadEvaluator(path);
  ASSERT_NE(evaluator, nullptr);
  const GoldenLogits golden(QUIRE_GOLDEN_DIR "/golden_gemma3.bin");
  auto tokens = evaluator->tokenizer()->Encode(ReadFile(QUIRE_LICENSE), false, true);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  tokens->resize(golden.tokens.size());
  EXPECT_EQ(*tokens, golden.tokens) << "the text became other tokens";
  ExpectGolden(*evaluator, golden, 0.02);
}

}  // namespace
}  // namespace quire::worker
