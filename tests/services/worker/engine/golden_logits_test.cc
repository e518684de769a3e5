// The uncompressed forward against golden_logits.bin, which golden_logits.py made with NumPy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "core/base/bytes.h"
#include "services/worker/engine/evaluation.h"

namespace quire::worker {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

struct Golden {
  struct Top {
    std::vector<uint32_t> ids;
    std::vector<float> logits;
  };
  std::vector<uint32_t> tokens, unrounded_top;
  std::vector<Top> tops;

  Golden() {
    const std::string bytes = ReadFile(QUIRE_TEST_DATA "/../services/worker/engine/golden_logits.bin");
    ByteReader reader(AsBytes(bytes));
    EXPECT_EQ(AsString(reader.GetBytes(4)), "QGL1");
    const uint32_t n = reader.Get<uint32_t>(), k = reader.Get<uint32_t>();
    for (uint32_t i = 0; i < n; ++i) tokens.push_back(reader.Get<uint32_t>());
    for (uint32_t i = 0; i < n; ++i) unrounded_top.push_back(reader.Get<uint32_t>());
    tops.resize(n);
    for (Top& top : tops) {
      for (uint32_t i = 0; i < k; ++i) top.ids.push_back(reader.Get<uint32_t>());
      for (uint32_t i = 0; i < k; ++i) top.logits.push_back(reader.Get<float>());
    }
    EXPECT_TRUE(reader.ok() && reader.remaining() == 0);
  }
};

TEST(GoldenLogits, UncompressedForwardAgreesWithNumPy) {
  const Golden golden;
  ASSERT_GE(golden.tokens.size(), 512u);
  auto evaluator = Evaluator::Load(std::getenv("QUIRE_MODEL"), 0, nullptr);
  ASSERT_TRUE(evaluator.ok()) << evaluator.status();
  auto tokens = (*evaluator)->tokenizer()->Encode(ReadFile(QUIRE_TEST_DATA "/../../LICENSE"), false, false);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  tokens->resize(golden.tokens.size());
  EXPECT_EQ(*tokens, golden.tokens) << "the text became other tokens";

  size_t same = 0, same_unrounded = 0, positions = 0;
  double worst = 0, sum = 0;
  const absl::Status status = (*evaluator)->ForEachPosition(golden.tokens, [&](size_t position, std::span<const float> logits) {
    ++positions;
    const auto best = static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    const Golden::Top& top = golden.tops[position];
    same += best == top.ids[0];
    same_unrounded += best == golden.unrounded_top[position];
    for (size_t i = 0; i < top.ids.size(); ++i) {
      const double difference = std::abs(logits[top.ids[i]] - top.logits[i]);
      worst = std::max(worst, difference);
      sum += difference;
    }
  });
  ASSERT_TRUE(status.ok()) << status;
  const double n = static_cast<double>(golden.tokens.size());
  EXPECT_EQ(positions, golden.tokens.size());
  const double mean = sum / (n * static_cast<double>(golden.tops[0].ids.size()));
  std::printf("top-1 %.3f %%, without bf16 rounding of K and V %.3f %%; logit difference mean %.2e, largest %.2e\n", 100 * same / n,
              100 * same_unrounded / n, mean, worst);
  EXPECT_GE(same / n, 0.995);
  EXPECT_GE(same_unrounded / n, 0.99);
  EXPECT_LT(mean, 0.01);
  EXPECT_LT(worst, 0.3);
}

}  // namespace
}  // namespace quire::worker
