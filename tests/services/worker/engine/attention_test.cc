#include "services/worker/engine/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "tests/services/worker/engine/synthetic_kv.h"

namespace quire::worker {
namespace {

constexpr uint32_t kQueryHeads = 6, kGroup = kQueryHeads / kKvHeads;

// The K and V that attention should see, [position][head][channel] of one layer: coded pages decoded to the
// original basis, all else as written.
struct Seen {
  std::vector<float> k, v;

  Seen(const KvSequence& kv, const Writer& writer, uint32_t layer) {
    const size_t row = kKvHeads * kDim;
    for (uint32_t p = 0; p < kv.reserved_end(); ++p) {
      for (uint32_t head = 0; head < kKvHeads; ++head) {
        const size_t at = Writer::At(p, layer, head);
        k.insert(k.end(), writer.k.begin() + static_cast<ptrdiff_t>(at),
                 writer.k.begin() + static_cast<ptrdiff_t>(at + kDim));
        v.insert(v.end(), writer.v.begin() + static_cast<ptrdiff_t>(at),
                 writer.v.begin() + static_cast<ptrdiff_t>(at + kDim));
      }
    }
    for (size_t p = 0; p < kv.pages().size(); ++p) {
      if (kv.pages()[p].raw != nullptr) continue;
      const BlockReader& codes = *kv.pages()[p].codes;
      const MutableLayerView out{{k.data() + p * 64 * row, DType::kF32, row, kDim},
                                 {v.data() + p * 64 * row, DType::kF32, row, kDim}};
      EXPECT_TRUE(codes.DecodeLayer(layer, codes.levels(), out).ok());
    }
  }
};

// Plain attention in double over the positions [first, positions), one query head at a time.
std::vector<double> Naive(const Seen& seen, const float* q, uint32_t query_head, uint32_t first,
                          uint32_t positions) {
  const uint32_t head = query_head / kGroup;
  std::vector<double> p(positions);
  double most = -1e300, sum = 0;
  for (uint32_t t = first; t < positions; ++t) {
    for (uint32_t c = 0; c < kDim; ++c)
      p[t] += static_cast<double>(q[c]) * seen.k[(t * kKvHeads + head) * kDim + c] / 8.0;
    most = std::max(most, p[t]);
  }
  for (uint32_t t = first; t < positions; ++t) sum += p[t] = std::exp(p[t] - most);
  std::vector<double> out(kDim);
  for (uint32_t t = first; t < positions; ++t) {
    for (uint32_t c = 0; c < kDim; ++c) out[c] += p[t] / sum * seen.v[(t * kKvHeads + head) * kDim + c];
  }
  return out;
}

void ExpectSameAsNaive(PageAttention& attention, const KvSequence& kv, const Writer& writer) {
  const uint32_t start = kv.length(), n = kv.reserved_end() - start;
  const at::Tensor q = at::randn({n, kQueryHeads, kDim});
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    auto out = attention.Run(kv, layer, q);
    ASSERT_TRUE(out.ok()) << out.status();
    ASSERT_EQ(out->sizes(), (std::vector<int64_t>{n, kQueryHeads * kDim}));
    const at::Tensor got = out->contiguous();
    const Seen seen(kv, writer, layer);
    const uint32_t window = kv.codec().layout().layers[layer].streams[0].sliding_window;
    double worst = 0;
    for (uint32_t i = 0; i < n; i += std::max(1u, n / 5)) {
      for (uint32_t h = 0; h < kQueryHeads; ++h) {
        const uint32_t end = start + i + 1, first = window == 0 || window > end ? 0 : end - window;
        const auto want = Naive(seen, q.data_ptr<float>() + (i * kQueryHeads + h) * kDim, h, first, end);
        for (uint32_t c = 0; c < kDim; ++c) {
          worst =
              std::max(worst, std::abs(want[c] - got.data_ptr<float>()[(i * kQueryHeads + h) * kDim + c]));
        }
      }
    }
    EXPECT_LT(worst, 2e-5) << "layer " << layer << " at " << start << " + " << n;
  }
}

// History of so many tokens, then so many queries, on codes of this spec.
class OnCodes : public ::testing::TestWithParam<std::tuple<const char*, int, int>> {};

TEST_P(OnCodes, EqualsPlainAttentionOverDecodedValues) {
  const auto [spec, history, queries] = GetParam();
  const auto codec = SmallCodec();
  const auto tokens = SomeTokens(static_cast<size_t>(history + queries));
  KvSequence kv = NewSequence(codec, Spec(spec));
  Writer writer;
  if (history > 0) writer.Append(kv, std::span(tokens).first(static_cast<size_t>(history)));
  ASSERT_TRUE(kv.Reserve(std::span(tokens).subspan(static_cast<size_t>(history))).ok());
  writer.Fill(kv);
  PageAttention attention(codec, kQueryHeads, 1.0 / 8.0);
  ExpectSameAsNaive(attention, kv, writer);
}

INSTANTIATE_TEST_SUITE_P(
    All, OnCodes,
    ::testing::Combine(::testing::Values("raw", "fp8", "tq:k2v2", "tq:k4v4", "tq:k8v3,layers=1:k3v8"),
                       ::testing::Values(0, 3, 100, 192, 700, 2500), ::testing::Values(1, 5, 130)));

TEST(Attention, SeesRestoredBlocksOfMixedCodecsAndLevels) {
  const auto codec = SmallCodec();
  const auto tokens = SomeTokens(64 * 5 + 9);
  std::vector<std::unique_ptr<KvSequence>> sources;
  for (const char* spec : {"tq:k4v4", "raw", "tq:k8v8", "tq:k3v3", "fp8"}) {
    sources.push_back(std::make_unique<KvSequence>(NewSequence(codec, Spec(spec))));
    Writer same;
    same.Append(*sources.back(), std::span(tokens).first(64 * 5));
  }
  KvSequence kv = NewSequence(codec, Spec("tq:k4v4"));
  for (size_t b = 0; b < sources.size(); ++b) {
    auto object = std::make_shared<std::vector<uint8_t>>(*sources[b]->blocks()[b].object);
    if (b == 2) object->resize(BlockReader::OpenAny(codec, *object)->slices().ObjectBytes(2));
    ASSERT_TRUE(kv.Restore(std::span(tokens).subspan(b * 64, 64), object).ok());
  }
  Writer writer;
  writer.k.resize(Writer::At(64 * 5, 0, 0));
  writer.v.resize(writer.k.size());
  ASSERT_TRUE(kv.Reserve(std::span(tokens).subspan(64 * 5)).ok());
  writer.Fill(kv);
  PageAttention attention(codec, kQueryHeads, 1.0 / 8.0);
  ExpectSameAsNaive(attention, kv, writer);
}

TEST(Attention, SeesLongRawHistory) {
  const auto codec = SmallCodec();
  const auto tokens = SomeTokens(600);
  KvSequence kv = NewSequence(codec, Spec("tq:k4v4"), KvSequence::Mode::kEvaluation);
  Writer writer;
  writer.Append(kv, std::span(tokens).first(560));
  ASSERT_TRUE(kv.Reserve(std::span(tokens).subspan(560)).ok());
  writer.Fill(kv);
  PageAttention attention(codec, kQueryHeads, 1.0 / 8.0);
  ExpectSameAsNaive(attention, kv, writer);
}

// Layer 1 sees a window, layer 0 everything: history, queries, window.
class InWindow : public ::testing::TestWithParam<std::tuple<const char*, int, int, int>> {};

TEST_P(InWindow, SeesTheLastPositionsOnly) {
  const auto [spec, history, queries, window] = GetParam();
  const auto codec = SmallCodec(static_cast<uint32_t>(window));
  const auto tokens = SomeTokens(static_cast<size_t>(history + queries));
  for (const KvSequence::Mode mode : {KvSequence::Mode::kServing, KvSequence::Mode::kEvaluation}) {
    KvSequence kv = NewSequence(codec, Spec(spec), mode);
    Writer writer;
    if (history > 0) writer.Append(kv, std::span(tokens).first(static_cast<size_t>(history)));
    ASSERT_TRUE(kv.Reserve(std::span(tokens).subspan(static_cast<size_t>(history))).ok());
    writer.Fill(kv);
    PageAttention attention(codec, kQueryHeads, 1.0 / 8.0);
    ExpectSameAsNaive(attention, kv, writer);
  }
}

INSTANTIATE_TEST_SUITE_P(All, InWindow,
                         ::testing::Combine(::testing::Values("raw", "tq:k8v3,layers=1:k3v8"),
                                            ::testing::Values(66, 700, 2500), ::testing::Values(1, 130),
                                            ::testing::Values(1, 100, 1000)));

}  // namespace
}  // namespace quire::worker
