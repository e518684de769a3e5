// Every kernel against its CPU twin: core's BlockCodec and BlockReader. Skipped where there is no GPU.
#include "core/codec/tq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/codec/planes.h"
#include "tests/cuda/block_fixture.h"

namespace quire::cuda {
namespace {

struct Case {
  std::string name;
  std::vector<LayerLayout> layers;
  std::string spec;
  TensorForm form;
  float scale = 1;
  bool fast = true;  // whether the fast kernels must be the ones that run
};

std::string Named(uint32_t dim) { return std::string("d").append(std::to_string(dim)); }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  auto add = [&](std::string name, std::vector<LayerLayout> layers, std::string spec, TensorForm form,
                 bool fast, float scale = 1) {
    cases.push_back({std::move(name), std::move(layers), std::move(spec), form, scale, fast});
  };
  constexpr TensorForm kBf16, kF16{DType::kF16}, kF32{DType::kF32};
  for (uint32_t dim : {64, 80, 96, 128, 192, 256}) {
    std::string d = Named(dim);
    add(d + "_k4v4_bf16", {Plain(8, dim), Plain(4, dim)}, "tq:k4v4", kBf16, true);
    add(d + "_k4v4_f16_head_major", {Plain(8, dim)}, "tq:k4v4", {DType::kF16, true, 0}, true);
    add(d + "_k3v2_padded", {Plain(8, dim)}, "tq:k3v2", {DType::kBf16, false, 8}, true);
    add(d + "_k2v3", {Plain(8, dim)}, "tq:k2v3", kBf16, true);
    add(d + "_k4v4_odd_stride", {Plain(2, dim)}, "tq:k4v4", {DType::kBf16, false, 3}, false);
  }
  for (uint32_t dim : {16, 32, 48, 112, 160, 320, 560, 576}) {
    add(Named(dim) + "_k4v4", {Plain(2, dim)}, "tq:k4v4", kBf16, false);
  }
  add("d128_k6v5_f32", {Plain(2, 128)}, "tq:k6v5", kF32, false);
  add("d64_k8v8_f32", {Plain(2, 64)}, "tq:k8v8", kF32, false);
  add("d64_k8v8_bf16", {Plain(2, 64)}, "tq:k8v8", kBf16, false);
  add("d80_k7v6", {Plain(2, 80)}, "tq:k7v6", kF16, false);
  add("d128_effort", {Plain(2, 128)}, "tq:k3v3,effort=2", kBf16, false);
  add("latent576", {Latent(576)}, "tq:k4v4", kBf16, false);
  add("d128_large", {Plain(8, 128)}, "tq:k4v4", kBf16, true, 1e4f);
  add("d128_f16_large", {Plain(8, 128)}, "tq:k4v4", kF16, true, 1e3f);
  add("d128_small", {Plain(8, 128)}, "tq:k4v4", kBf16, true, 1e-9f);
  add("mixed", {Plain(2, 64), Plain(3, 128), Latent(576), Plain(2, 64), Plain(2, 256)},
      "tq:k4v4,layers=1-1:k6v3,layers=3:k2v2", kBf16, false);
  return cases;
}

class TqTest : public BlockFixture, public ::testing::WithParamInterface<Case> {
 protected:
  void Prepare(const Case& c) { BlockFixture::Prepare(c.layers, c.spec, c.form); }

  // Codes as signed cells, [channel][token].
  std::vector<int> Cells(uint32_t index, const std::vector<uint8_t>& object, uint32_t l, uint32_t s,
                         uint32_t h, uint32_t dim) const {
    const SliceMap& map = shape_.map(index == 0);
    const LayerLayout& layer = layout_.layers[l];
    const LayerCodec& codec = shape_.codecs()[l];
    int bits = s == 1 ? codec.v_bits : codec.k_bits;
    std::vector<const uint8_t*> planes;
    for (int level = 0; level < map.levels(); ++level) {
      Extent slice = map.slice(level, l, h);
      TqSlice parts = TqSlice::At(level, layer.key_dim(), codec.k_bits, layer.value_dim(), codec.v_bits);
      const Extent& part = s == 1 ? parts.v_planes : parts.k_planes;
      size_t each = PlaneBytes(dim, level == 0 ? 2 : 1);
      for (size_t at = 0; at < part.length; at += each)
        planes.push_back(object.data() + slice.offset + part.offset + at);
    }
    std::vector<uint8_t> codes(size_t{dim} * kBlockTokens);
    UnpackPlanes(s == 1 ? FragmentOrder::kValue : FragmentOrder::kKey, dim, bits, planes.data(),
                 codes.data());
    std::vector<int> cells;
    int half = 1 << (bits - 1);
    for (uint8_t code : codes) cells.push_back(code & half ? -1 - (code & (half - 1)) : code);
    return cells;
  }
};

TEST_P(TqTest, EncodesAsTheHostDoes) {
  const Case& c = GetParam();
  Prepare(c);
  for (uint32_t index : {0u, 1u}) {
    SCOPED_TRACE(index);
    FillRandom(layout_, 7 + index, c.scale, &tensors_);
    std::vector<uint8_t> host = EncodeOnHost(index);
    auto device = EncodeOnDevice(index);
    ASSERT_TRUE(device.ok()) << device.status();
    ASSERT_EQ(host.size(), device->size());
    if (fast_device_ && c.fast) {
      EXPECT_EQ(fast_tasks_, all_tasks_);
    }
    size_t codes = 0, different = 0;
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t dim) {
      std::vector<int> a = Cells(index, host, l, s, h, dim), b = Cells(index, *device, l, s, h, dim);
      int most = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        different += a[i] != b[i];
        most = std::max(most, std::abs(a[i] - b[i]));
      }
      codes += a.size();
      EXPECT_LE(most, 1) << "layer " << l << " stream " << s << " head " << h;
    });
    EXPECT_LE(static_cast<double>(different), 0.005 * static_cast<double>(codes))
        << 100.0 * different / codes << " % of indices differ";
    RecordProperty("different_ppm_" + std::to_string(index), static_cast<int>(1e6 * different / codes));
    std::vector<BlockHeader> headers{*ParseHeader(Bytes(host)), *ParseHeader(Bytes(*device))};
    for (int levels = 1; levels <= shape_.map(index == 0).levels(); ++levels) {
      TensorForm exact{DType::kF32};
      BlockTensors a = DecodeOnHost(index, levels, host, exact),
                   b = DecodeOnHost(index, levels, *device, exact);
      double host_miss = 0, device_miss = 0;
      ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t dim) {
        host_miss += Distance(tensors_, a, l, s, h, dim).first;
        device_miss += Distance(tensors_, b, l, s, h, dim).first;
      });
      EXPECT_NEAR(device_miss / host_miss, 1.0, 1e-3) << levels << " levels";
      for (uint32_t l = 0; l < layout_.layers.size(); ++l) {
        for (int s = 0; s < static_cast<int>(layout_.layers[l].streams.size()); ++s) {
          float want = headers[0].relative_error[levels - 1][l][s],
                got = headers[1].relative_error[levels - 1][l][s];
          EXPECT_NEAR(got / want, 1.0f, 5e-3f)
              << "measured error, layer " << l << " stream " << s << " levels " << levels;
        }
      }
    }
  }
}

TEST_P(TqTest, DecodesAsTheHostDoes) {
  const Case& c = GetParam();
  Prepare(c);
  for (uint32_t index : {0u, 1u}) {
    FillRandom(layout_, 11 + index, c.scale, &tensors_);
    std::vector<uint8_t> object = EncodeOnHost(index);
    for (int levels = 1; levels <= shape_.map(index == 0).levels(); ++levels) {
      for (DType dtype : {DType::kBf16, DType::kF32, DType::kF16}) {
        if (dtype == DType::kF16 && c.scale != 1) continue;
        SCOPED_TRACE(std::string("block ") + std::to_string(index) + " levels " + std::to_string(levels) +
                     " " + std::string(Name(dtype)));
        TensorForm form = c.form;
        form.dtype = dtype;
        BlockTensors want = DecodeOnHost(index, levels, object, form),
                     got = DecodeOnDevice(index, levels, object, form);
        ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t dim) {
          auto [miss, square] = Distance(want, got, l, s, h, dim);
          EXPECT_LE(std::sqrt(miss / square), 1.0 / 512) << "layer " << l << " stream " << s << " head " << h;
          double rms = std::sqrt(square / (kBlockTokens * dim)), worst = 0;
          for (uint32_t t = 0; t < kBlockTokens; ++t) {
            for (uint32_t i = 0; i < dim; ++i) {
              double x = Get(want, l, s, t, h, i), y = Get(got, l, s, t, h, i);
              double allowed = index == 0 && t < kMaxSinkTokens ? 0 : std::abs(x) / 128 + rms / 64;
              worst = std::max(worst, std::abs(x - y) - allowed);
              if (!std::isfinite(y)) worst = INFINITY;
            }
          }
          EXPECT_LE(worst, 0) << "layer " << l << " stream " << s << " head " << h;
        });
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TqTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

class TqAdversaryTest : public TqTest {};

TEST_P(TqAdversaryTest, ZerosAndOneHotAndEqualVectors) {
  const Case& c = GetParam();
  Prepare(c);
  uint32_t dim = layout_.layers[0].key_dim();
  for (int kind = 0; kind < 4; ++kind) {
    SCOPED_TRACE(kind);
    FillRandom(layout_, 3, c.scale, &tensors_);
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        if (kind == 3 && t % 3 != 0) continue;  // a zero vector here and there
        for (uint32_t i = 0; i < dim; ++i) {
          float x = kind == 1   ? (i == (t * 7 + h) % dim ? 5.0f : 0.0f)
                    : kind == 2 ? 1.5f + static_cast<float>(i % 3)
                                : 0.0f;
          Put(&tensors_, l, s, t, h, i, x);
        }
      }
    });
    std::vector<uint8_t> host = EncodeOnHost(1);
    auto device = EncodeOnDevice(1);
    ASSERT_TRUE(device.ok()) << device.status();
    int levels = shape_.map(false).levels();
    BlockTensors a = DecodeOnHost(1, levels, host, {DType::kF32}),
                 b = DecodeOnHost(1, levels, *device, {DType::kF32});
    BlockTensors d = DecodeOnDevice(1, levels, *device, {DType::kF32});
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t n) {
      auto [host_miss, square] = Distance(tensors_, a, l, s, h, n);
      double device_miss = Distance(tensors_, b, l, s, h, n).first, twin = Distance(b, d, l, s, h, n).first;
      EXPECT_LE(device_miss, 1.01 * host_miss + 1e-5 * square) << "layer " << l << " stream " << s;
      EXPECT_LE(twin, 4e-6 * square);
    });
  }
}

TEST_P(TqAdversaryTest, NamesTheVectorThatIsNotFinite) {
  const Case& c = GetParam();
  Prepare(c);
  uint32_t last = static_cast<uint32_t>(layout_.layers.size()) - 1;
  struct Place {
    uint32_t stream, head, token, index;
    float value;
  };
  for (const Place& p : {Place{0, 1, 17, 1, NAN},
                         {1, 1, 63, 1, INFINITY},
                         {1, 0, 5, 0, NAN},
                         {0, 0, 2, 0, NAN},
                         {1, 1, 3, 0, -INFINITY}}) {
    FillRandom(layout_, 5, 1, &tensors_);
    Put(&tensors_, last, p.stream, p.token, p.head, 9, p.value);
    auto device = EncodeOnDevice(p.index);
    ASSERT_TRUE(absl::IsInvalidArgument(device.status())) << device.status();
    std::string want = "layer " + std::to_string(last) + ", head " + std::to_string(p.head) + ", token " +
                       std::to_string(p.token) + (p.stream == 0 ? ": K" : ": V");
    EXPECT_NE(device.status().message().find(want), absl::string_view::npos) << device.status();
  }
}

std::vector<Case> AdversaryCases() {
  std::vector<Case> cases;
  for (uint32_t dim : {64, 80, 96, 128, 192, 256}) {
    cases.push_back({Named(dim) + "_fast", {Plain(2, dim), Plain(2, dim)}, "tq:k4v4", {}, 1, true});
    cases.push_back({Named(dim) + "_any", {Plain(2, dim)}, "tq:k5v6", {DType::kF32}, 1, false});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Shapes, TqAdversaryTest, ::testing::ValuesIn(AdversaryCases()),
                         [](const auto& info) { return info.param.name; });

TEST(TqBatchTest, RefusesWhatDoesNotFit) {
  if (!CurrentDevice().ok()) GTEST_SKIP();
  std::vector<uint32_t> dims{128}, odd{120};
  EXPECT_TRUE(absl::IsInvalidArgument(TqCodec::Create(1, odd).status()));
  auto codec = *TqCodec::Create(1, dims);
  TqBatch batch = *TqBatch::Create(codec, TqBatch::Direction::kDecode, {1, 8, 0});
  ShapedTask task;
  task.dim = 64;
  task.heads = 8;
  EXPECT_TRUE(absl::IsInvalidArgument(batch.Set({&task, 1}, {}, CodecSpec())));
  task.dim = 128;
  task.task.bits = 9;
  EXPECT_TRUE(absl::IsInvalidArgument(batch.Set({&task, 1}, {}, CodecSpec())));
  std::vector<ShapedTask> many(2, task);
  EXPECT_TRUE(absl::IsResourceExhausted(batch.Set(many, {}, CodecSpec())));
}

}  // namespace
}  // namespace quire::cuda
