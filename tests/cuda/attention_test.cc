// Decode attention on codes against attention in double precision over K and V that the CPU codec decoded
// from the same objects. Skipped where there is no GPU that has the kernels.
#include "cuda/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <tuple>

#include "tests/cuda/attention_pool.h"

namespace quire::cuda {
namespace {

enum class Tail { kRaw, kCoded };  // what a sequence's last page, which may be partial, is

struct Case {
  std::string name;
  uint32_t dim, kv_heads, group;
  std::vector<std::string> specs;  // pages take them in turn
  std::vector<int> levels;         // likewise
  std::vector<uint32_t> lengths;
  uint32_t window = 0;
  Tail tail = Tail::kRaw;
  double allowed = 0.02;  // ‖out − reference‖ / ‖reference‖
};

// What one page of a sequence is.
struct Choice {
  uint32_t block, spec;
  int levels;
  bool raw;
};

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    absl::StatusOr<DeviceInfo> device = CurrentDevice();
    if (!device.ok()) GTEST_SKIP() << device.status().ToString();
    if (device->major != 9 || device->minor != 0) GTEST_SKIP() << "no kernels for this device";
    stream_ = std::make_unique<Stream>(*Stream::Create());
  }

  void Prepare(const Case& c) {
    pool_ = std::make_unique<AttentionPool>(kLayers, c.kv_heads, c.dim, kBlocks, c.specs);
    pool_->FormsToDevice();
    pool_->ToDevice(*stream_);
    decoded_.clear();
    std::mt19937 engine(7);
    std::normal_distribution<float> normal(0, 1.5f);
    q_.resize(c.lengths.size() * c.kv_heads * c.group * c.dim);
    for (uint16_t& x : q_) x = ToBf16(normal(engine));
  }

  static Choice ChoiceOf(const Case& c, size_t sequence, uint32_t page, bool last) {
    auto n = static_cast<uint32_t>(sequence);
    Choice choice;
    choice.block = page == 0 ? 0 : 1 + (page * 5 + n * 3) % (kBlocks - 1);
    choice.spec = (page + n) % c.specs.size();
    choice.levels = c.levels[(page / c.specs.size() + n) % c.levels.size()];
    choice.raw = last && c.tail == Tail::kRaw;
    return choice;
  }

  std::vector<AttentionPage> PagesOf(const Case& c, size_t sequence) const {
    std::vector<AttentionPage> pages;
    uint32_t length = c.lengths[sequence], count = (length + 63) / 64;
    for (uint32_t i = 0; i < count; ++i) {
      Choice choice = ChoiceOf(c, sequence, i, i + 1 == count);
      AttentionPage page;
      page.position = 64 * i;
      if (choice.raw) {
        page.data = pool_->DeviceRaw(choice.block);
        page.form = pool_->RawFormOf();
        page.tokens = static_cast<uint8_t>(length - 64 * i);
      } else {
        page.data = pool_->DeviceObject(choice.block, choice.spec);
        int levels = std::min(choice.levels, pool_->levels(choice.spec));
        page.form = pool_->CodedFormOf(choice.spec, choice.block == 0, levels);
        if (choice.block == 0 && levels > 0) {
          pages.push_back({page.data, pool_->SinkFormOf(choice.spec), 0, 4, 0});
          page.first_token = 4;
        }
      }
      pages.push_back(page);
    }
    return pages;
  }

  const BlockTensors& DecodedOf(const Choice& choice) {
    if (choice.raw) return pool_->raw(choice.block);
    int levels = std::min(choice.levels, pool_->levels(choice.spec));
    auto [it, made] = decoded_.try_emplace({choice.block, choice.spec, levels});
    if (made) it->second = pool_->Decoded(choice.block, choice.spec, levels);
    return it->second;
  }

  // [length][d] of one stream (0: K, 1: V) of one KV head.
  std::vector<float> Rows(const Case& c, size_t sequence, uint32_t layer, uint32_t stream, uint32_t head) {
    uint32_t length = c.lengths[sequence], count = (length + 63) / 64;
    std::vector<float> rows;
    for (uint32_t t = 0; t < length; ++t) {
      const BlockTensors& block = DecodedOf(ChoiceOf(c, sequence, t / 64, t / 64 + 1 == count));
      for (uint32_t i = 0; i < c.dim; ++i) rows.push_back(Get(block, layer, stream, t % 64, head, i));
    }
    return rows;
  }

  // One query head of one sequence, in double.
  std::vector<double> Reference(const Case& c, size_t sequence, uint32_t query_head,
                                const std::vector<float>& k, const std::vector<float>& v, float scale) const {
    uint32_t length = c.lengths[sequence];
    uint32_t from = c.window > 0 && length > c.window ? length - c.window : 0;
    const uint16_t* q = q_.data() + (sequence * c.kv_heads * c.group + query_head) * c.dim;
    std::vector<double> query, scores, out(c.dim, 0.0);
    for (uint32_t i = 0; i < c.dim; ++i) query.push_back(FromBf16(q[i]));
    double most = -INFINITY, sum = 0;
    for (uint32_t t = from; t < length; ++t) {
      double score = 0;
      for (uint32_t i = 0; i < c.dim; ++i) score += query[i] * k[t * c.dim + i];
      scores.push_back(score * scale);
      most = std::max(most, scores.back());
    }
    for (uint32_t t = from; t < length; ++t) {
      double p = std::exp(scores[t - from] - most);
      sum += p;
      for (uint32_t i = 0; i < c.dim; ++i) out[i] += p * v[t * c.dim + i];
    }
    for (double& x : out) x /= sum;
    return out;
  }

  std::vector<uint16_t> Run(const Case& c, const DecodeAttention& attention, const AttentionPlan& plan,
                            uint32_t layer, float scale) {
    DeviceBuffer q = *DeviceBuffer::Allocate(2 * q_.size()), out = *DeviceBuffer::Allocate(2 * q_.size());
    std::vector<uint16_t> result(q_.size());
    int64_t stride = int64_t{c.kv_heads} * c.group * c.dim;
    AttentionPool::Ok(CopyToDevice(stream_->ref(), q_.data(), 2 * q_.size(), q.data()));
    AttentionPool::Ok(Fill(stream_->ref(), 0xFF, 2 * q_.size(), out.data()));
    absl::Status ran = attention.Run(plan, pool_->forms(), layer, scale, q.data(), stride, out.data(), stride,
                                     stream_->ref());
    EXPECT_TRUE(ran.ok()) << ran;
    AttentionPool::Ok(CopyToHost(stream_->ref(), out.data(), 2 * q_.size(), result.data()));
    AttentionPool::Ok(stream_->Synchronize());
    return result;
  }

  static constexpr uint32_t kLayers = 2, kBlocks = 6;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<AttentionPool> pool_;
  std::vector<uint16_t> q_;  // bf16 [sequence][query head][d]
  std::map<std::tuple<uint32_t, uint32_t, int>, BlockTensors> decoded_;
};

TEST_P(AttentionTest, IsThatOfDecodedKeysAndValues) {
  const Case& c = GetParam();
  Prepare(c);
  auto sequences = static_cast<uint32_t>(c.lengths.size());
  auto attention = DecodeAttention::Create({AttentionPool::kPoolSeed, c.dim, c.kv_heads, c.group, sequences});
  ASSERT_TRUE(attention.ok()) << attention.status();
  auto plan = AttentionPlan::Create({sequences, 1000, c.kv_heads});
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<std::vector<AttentionPage>> pages;
  std::vector<AttentionSequence> list;
  for (size_t s = 0; s < sequences; ++s) pages.push_back(PagesOf(c, s));
  for (size_t s = 0; s < sequences; ++s) list.push_back({pages[s], c.lengths[s]});
  float scale = 1 / std::sqrt(static_cast<float>(c.dim));
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    absl::Status set = plan->Set(list, pool_->forms(), layer, c.window);
    ASSERT_TRUE(set.ok()) << set;
    ASSERT_TRUE(plan->Upload(stream_->ref()).ok());
    std::vector<uint16_t> out = Run(c, *attention, *plan, layer, scale);
    EXPECT_EQ(out, Run(c, *attention, *plan, layer, scale)) << "the same plan must give the same bits";
    double miss = 0, square = 0, worst = 0, rows = 0;
    for (size_t s = 0; s < sequences; ++s) {
      std::vector<float> k, v;
      for (uint32_t h = 0; h < c.kv_heads * c.group; ++h) {
        if (h % c.group == 0) {
          k = Rows(c, s, layer, 0, h / c.group);
          v = Rows(c, s, layer, 1, h / c.group);
        }
        std::vector<double> want = Reference(c, s, h, k, v, scale);
        double row_miss = 0, row_square = 0;
        for (uint32_t i = 0; i < c.dim; ++i) {
          double got = FromBf16(out[(s * c.kv_heads * c.group + h) * c.dim + i]);
          if (!std::isfinite(got)) got = INFINITY;
          row_miss += (got - want[i]) * (got - want[i]);
          row_square += want[i] * want[i];
          worst = std::max(worst, std::abs(got - want[i]));
        }
        EXPECT_LE(std::sqrt(row_miss / row_square), 2.5 * c.allowed)
            << "layer " << layer << " sequence " << s << " head " << h;
        miss += row_miss, square += row_square, rows += 1;
      }
    }
    double rms = std::sqrt(square / (rows * c.dim));
    std::printf("%s layer %u: rms error %.5f of the output's rms, largest %.5f of it\n", c.name.c_str(),
                layer, std::sqrt(miss / square), worst / rms);
    EXPECT_LE(std::sqrt(miss / square), c.allowed);
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::vector<uint32_t> mixed{1, 63, 64, 65, 130, 777, 5000};
  for (uint32_t dim : {64, 128, 192, 256}) {
    std::string d = std::string("d").append(std::to_string(dim));
    cases.push_back({d + "_4", dim, 2, 4, {"tq:k4v4"}, {3}, mixed});
    cases.push_back({d + "_3", dim, 2, 4, {"tq:k4v4"}, {2}, {700, 64}});
    cases.push_back({d + "_2", dim, 2, 4, {"tq:k4v4"}, {1}, {700, 64}});
    cases.push_back({d + "_raw", dim, 2, 4, {"raw"}, {1}, {1, 5, 64, 100, 1500}, 0, Tail::kRaw, 0.005});
    for (uint32_t group : {1, 2, 3, 7, 8})
      cases.push_back(
          {d + "_group" + std::to_string(group), dim, 2, group, {"tq:k4v4"}, {3, 1, 2}, {1, 200, 1601}});
    cases.push_back({d + "_mixed", dim, 2, 4, {"tq:k4v4", "tq:k3v2", "tq:k2v4", "raw"}, {3, 2, 1}, mixed});
    cases.push_back({d + "_mixed_wide", dim, 1, 8, {"tq:k4v4", "tq:k4v3", "raw"}, {3, 2, 1}, mixed});
    cases.push_back({d + "_window", dim, 2, 4, {"tq:k4v4"}, {3}, {10, 100, 600, 3000}, 300});
  }
  cases.push_back({"prefix_of_8_bits", 128, 2, 4, {"tq:k8v6"}, {3, 2, 1}, {700}});
  cases.push_back({"coded_tail", 128, 2, 4, {"tq:k4v4"}, {3}, {10, 70, 128, 200, 1000}, 0, Tail::kCoded});
  cases.push_back(
      {"coded_tail_window", 128, 2, 7, {"tq:k4v4"}, {3}, {10, 70, 128, 200, 1000}, 65, Tail::kCoded});
  std::vector<uint32_t> many;
  for (uint32_t i = 0; i < 40; ++i) many.push_back(1 + i * i);
  cases.push_back({"many_sequences", 128, 8, 4, {"tq:k4v4"}, {3, 2}, many});
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST_F(AttentionTest, PlansRefuseWhatDoesNotFit) {
  Case c{"", 128, 2, 4, {"tq:k4v4"}, {3}, {64}};
  Prepare(c);
  auto plan = AttentionPlan::Create({2, 3, 2});
  ASSERT_TRUE(plan.ok()) << plan.status();
  AttentionPage page{pool_->DeviceObject(1, 0), pool_->CodedFormOf(0, false, 3)};
  std::vector<AttentionPage> pages(4, page);
  for (uint32_t i = 0; i < 4; ++i) pages[i].position = 64 * i;
  auto set = [&](uint32_t length, uint32_t window) {
    AttentionSequence sequence{pages, length};
    return plan->Set({&sequence, 1}, pool_->forms(), 0, window);
  };
  EXPECT_TRUE(absl::IsResourceExhausted(set(256, 0)));
  EXPECT_TRUE(set(192, 0).ok());
  EXPECT_TRUE(set(256, 100).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(set(0, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(set(400, 100)));
  pages[0].form = 99;
  EXPECT_TRUE(absl::IsInvalidArgument(set(64, 0)));
  pages[0] = page;
  pages[0].data += 8;
  EXPECT_TRUE(absl::IsInvalidArgument(set(64, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(plan->Set({}, pool_->forms(), 5, 0)));
}

}  // namespace
}  // namespace quire::cuda
