// The uncompressed forward against golden_logits.bin, which golden_logits.py made with NumPy.
#include "tests/services/worker/engine/golden_logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "services/worker/engine/evaluation.h"

namespace quire::worker {
namespace {

TEST(GoldenLogits, UncompressedForwardAgreesWithNumPy) {
  const GoldenLogits golden(QUIRE_GOLDEN_LOGITS);
  ASSERT_GE(golden.tokens.size(), 512u);
  auto evaluator = Evaluator::Load(std::getenv("QUIRE_MODEL"), 0, 0, nullptr);
  ASSERT_TRUE(evaluator.ok()) << evaluator.status();
  auto tokens = (*evaluator)->tokenizer()->Encode(ReadFile(QUIRE_LICENSE), false, false);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  tokens->resize(golden.tokens.size());
  EXPECT_EQ(*tokens, golden.tokens) << "the text became other tokens";

  const double n = static_cast<double>(golden.tokens.size());
  size_t same = 0, positions = 0;
  double worst = 0;
  absl::Status status =
      (*evaluator)
          ->ForEachPosition(golden.tokens, std::nullopt, [&](size_t position, std::span<const float> logits) {
            ++positions;
            const GoldenLogits::Top& top = golden.tops[position];
            same += BestToken(logits) == top.ids[0];
            for (size_t i = 0; i < top.ids.size(); ++i) {
              worst = std::max(worst, static_cast<double>(std::abs(logits[top.ids[i]] - top.logits[i])));
            }
          });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(positions, golden.tokens.size());
  std::printf("fp32 KV: top-1 %.3f %%, largest logit difference %.2e\n", 100 * static_cast<double>(same) / n,
              worst);
  EXPECT_GE(static_cast<double>(same) / n, 0.995);
  EXPECT_LT(worst, 0.01);

  // As served: K and V rounded to bf16 before every use, history in pages of codec raw.
  size_t same_rounded = 0;
  status = (*evaluator)
               ->ForEachPosition(golden.tokens, *CodecSpec::Parse("raw"),
                                 [&](size_t position, std::span<const float> logits) {
                                   same_rounded += BestToken(logits) == golden.rounded_top[position];
                                 });
  ASSERT_TRUE(status.ok()) << status;
  std::printf("bf16 KV: top-1 %.3f %%\n", 100 * static_cast<double>(same_rounded) / n);
  EXPECT_GE(static_cast<double>(same_rounded) / n, 0.985);
}

}  // namespace
}  // namespace quire::worker
