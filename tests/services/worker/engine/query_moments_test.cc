// What an engine learns of its model's queries, on a real model (QUIRE_MODEL).
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "core/block/keys.h"
#include "services/worker/engine/engine.h"
#include "services/worker/engine/evaluation.h"
#include "tests/services/worker/engine/license_tokens.h"

namespace quire::worker {
namespace {

std::string Model() {
  const char* model = std::getenv("QUIRE_MODEL");
  EXPECT_NE(model, nullptr) << "QUIRE_MODEL must name a .gguf file";
  return model == nullptr ? "" : model;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(QueryMomentsTest, SteeredKeysDivergeLess) {
  auto evaluator = Evaluator::Load(Model(), 0, kQueryTokens, nullptr);
  ASSERT_TRUE(evaluator.ok()) << evaluator.status();
  ASSERT_TRUE((*evaluator)->SetText(LicenseTokens(*(*evaluator)->tokenizer(), 640), 512, 128).ok());
  for (const char* bits : {"tq:k4v4", "tq:k3v3"}) {
    auto steered = (*evaluator)->Measure(*CodecSpec::Parse(bits), 0);
    auto plain = (*evaluator)->Measure(*CodecSpec::Parse(std::string(bits) + ",effort=0"), 0);
    ASSERT_TRUE(steered.ok() && plain.ok());
    EXPECT_LT(Mean(steered->kl), 0.85 * Mean(plain->kl)) << bits;
    EXPECT_EQ(steered->object_bytes, plain->object_bytes) << bits;
  }
}

using Objects = std::vector<std::vector<uint8_t>>;

// The blocks that an engine seals; none: it did not load.
std::optional<Objects> Seal(uint32_t query_tokens, const char* codec) {
  auto engine = Engine::Load({.model_path = Model(),
                              .kv_codec = *CodecSpec::Parse(codec),
                              .max_context = 1024,
                              .query_tokens = query_tokens},
                             nullptr);
  if (!engine.ok()) {
    ADD_FAILURE() << engine.status();
    return std::nullopt;
  }
  auto sequence = (*engine)->NewSequence(RootKey((*engine)->layout().Fingerprint(), "salt"));
  EXPECT_TRUE((*engine)->Forward(*sequence, LicenseTokens(*(*engine)->tokenizer(), 130)).ok());
  Objects sealed;
  for (const SealedBlock& block : sequence->blocks()) sealed.push_back(*block.object);
  EXPECT_EQ(sealed.size(), 2u);
  return sealed;
}

TEST(QueryMomentsTest, EveryProcessSealsTheSameBytes) {
  const auto one = Seal(256, "tq:k4v4"), other = Seal(256, "tq:k4v4"), plain = Seal(0, "tq:k4v4"),
             spelled = Seal(256, "tq:k4v4,effort=0");
  ASSERT_TRUE(one && other && plain && spelled);
  EXPECT_TRUE(*one == *other);
  EXPECT_FALSE(*one == *plain);
  EXPECT_TRUE(*plain == *spelled) << "without learning there is nothing to steer by";
}

}  // namespace
}  // namespace quire::worker
