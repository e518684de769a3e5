// fp8 and tq_prod on the device against their CPU twins, and tq_prod's promise by itself: inner products that
// are right on average. Skipped where there is no GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <numbers>
#include <numeric>

#include "core/codec/codebook.h"
#include "core/codec/planes.h"
#include "core/codec/rotation.h"
#include "tests/cuda/block_fixture.h"

namespace quire::cuda {
namespace {

struct Case {
  std::string name;
  std::vector<LayerLayout> layers;
  std::string spec;
  TensorForm form;
  float scale = 1;
};

constexpr TensorForm kBf16, kF16{DType::kF16}, kF32{DType::kF32};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (uint32_t dim : {16, 48, 64, 80, 96, 128, 192, 256, 272, 560, 576}) {
    std::string d = "d" + std::to_string(dim);
    cases.push_back({"fp8_" + d + "_bf16", {Plain(3, dim), Plain(2, dim)}, "fp8", kBf16});
    cases.push_back({"fp8_" + d + "_f16_head_major", {Plain(3, dim)}, "fp8", {DType::kF16, true, 0}});
    cases.push_back({"fp8_" + d + "_f32_padded", {Plain(2, dim)}, "fp8", {DType::kF32, false, 4}});
    cases.push_back({"fp8_" + d + "_odd_stride", {Plain(2, dim)}, "fp8", {DType::kBf16, false, 3}});
    cases.push_back({"prod_" + d + "_bf16", {Plain(2, dim), Plain(2, dim)}, "tq_prod:k4v3", kBf16});
    cases.push_back({"prod_" + d + "_f32", {Plain(2, dim)}, "tq_prod:k2v5", {DType::kF32, true, 1}});
  }
  cases.push_back({"fp8_d64_f32_odd", {Plain(2, 64)}, "fp8", {DType::kF32, false, 1}});
  cases.push_back({"fp8_d320_f16_odd", {Plain(2, 320)}, "fp8", {DType::kF16, false, 5}});
  cases.push_back({"fp8_large", {Plain(2, 128)}, "fp8", kBf16, 1e30f});
  cases.push_back({"fp8_small", {Plain(2, 128)}, "fp8", kBf16, 1e-26f});
  cases.push_back({"fp8_tiny", {Plain(2, 128)}, "fp8", kBf16, 1e-36f});
  cases.push_back({"fp8_latent", {Latent(576), Plain(2, 64)}, "fp8", kBf16});
  cases.push_back({"prod_k8v8", {Plain(2, 128)}, "tq_prod:k8v8", kF16});
  cases.push_back({"prod_k7v6", {Plain(2, 80)}, "tq_prod:k7v6", kF32});
  cases.push_back({"prod_large", {Plain(2, 64)}, "tq_prod:k4v4", kBf16, 1e12f});
  cases.push_back({"prod_latent", {Latent(576), Plain(2, 128)}, "tq_prod:k4v4", kBf16});
  cases.push_back({"prod_layers", {Plain(2, 64), Plain(3, 128)}, "tq_prod:k4v4,layers=1:k2v6", kBf16});
  return cases;
}

class FlatTest : public BlockFixture, public ::testing::WithParamInterface<Case> {
 protected:
  void Prepare(const Case& c) { BlockFixture::Prepare(c.layers, c.spec, c.form); }

  Bytes Slices(const std::vector<uint8_t>& object, uint32_t index) const {
    return Bytes(object).subspan(shape_.map(index == 0).header_bytes());
  }

  // tq_prod's codes of one stream of one head, [channel][token].
  std::vector<uint8_t> Codes(uint32_t index, const std::vector<uint8_t>& object, uint32_t l, uint32_t s,
                             uint32_t h, uint32_t dim) const {
    const LayerCodec& codec = shape_.codecs()[l];
    const LayerLayout& layer = layout_.layers[l];
    FlatSlice slice = FlatSlice::At(codec, layer.key_dim(), layer.value_dim());
    const uint8_t* base = object.data() + shape_.map(index == 0).slice(0, l, h).offset +
                          (s == 1 ? slice.v : slice.k).codes.offset;
    int bits = s == 1 ? codec.v_bits : codec.k_bits;
    std::vector<const uint8_t*> planes{base};
    for (int b = 2; b < bits; ++b) planes.push_back(base + PlaneBytes(dim, b));
    std::vector<uint8_t> codes(size_t{dim} * kBlockTokens);
    UnpackPlanes(s == 1 ? FragmentOrder::kValue : FragmentOrder::kKey, dim, bits, planes.data(),
                 codes.data());
    return codes;
  }

  // At most 0.5 % of codes differ; the errors agree to 0.1 %.
  void CompareProd(uint32_t index, const std::vector<uint8_t>& host, const std::vector<uint8_t>& device) {
    size_t different = 0, count = 0;
    double host_miss = 0, device_miss = 0;
    BlockTensors a = DecodeOnHost(index, 1, host, kF32), b = DecodeOnHost(index, 1, device, kF32);
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t dim) {
      std::vector<uint8_t> x = Codes(index, host, l, s, h, dim), y = Codes(index, device, l, s, h, dim);
      for (size_t i = 0; i < x.size(); ++i) different += x[i] != y[i];
      count += x.size();
      host_miss += Distance(tensors_, a, l, s, h, dim).first;
      device_miss += Distance(tensors_, b, l, s, h, dim).first;
    });
    EXPECT_LE(static_cast<double>(different), 0.005 * static_cast<double>(count));
    if (host_miss > 0) {
      EXPECT_NEAR(device_miss / host_miss, 1.0, 1e-3);
    }
  }

  void CompareHeaders(const std::vector<uint8_t>& host, const std::vector<uint8_t>& device, double within) {
    BlockHeader want = *ParseHeader(Bytes(host)), got = *ParseHeader(Bytes(device));
    ASSERT_EQ(want.levels.size(), got.levels.size());
    for (size_t l = 0; l < layout_.layers.size(); ++l) {
      for (size_t s = 0; s < 2; ++s)
        EXPECT_NEAR(got.relative_error[0][l][s], want.relative_error[0][l][s],
                    within * want.relative_error[0][l][s])
            << "layer " << l << " stream " << s;
    }
  }
};

TEST_P(FlatTest, EncodesAsTheHostDoes) {
  const Case& c = GetParam();
  Prepare(c);
  bool fp8 = spec_.codec() == CodecId::kFp8;
  for (uint32_t index : {0u, 1u}) {
    SCOPED_TRACE(index);
    FillRandom(layout_, 7 + index, c.scale, &tensors_);
    std::vector<uint8_t> host = EncodeOnHost(index);
    auto device = EncodeOnDevice(index);
    ASSERT_TRUE(device.ok()) << device.status();
    ASSERT_EQ(host.size(), device->size());
    if (fp8) {
      EXPECT_TRUE(std::ranges::equal(Slices(host, index), Slices(*device, index)));
    } else {
      CompareProd(index, host, *device);
    }
    CompareHeaders(host, *device, fp8 ? 1e-5 : 2e-3);
  }
}

TEST_P(FlatTest, DecodesAsTheHostDoes) {
  const Case& c = GetParam();
  Prepare(c);
  bool fp8 = spec_.codec() == CodecId::kFp8;
  for (uint32_t index : {0u, 1u}) {
    FillRandom(layout_, 11 + index, c.scale, &tensors_);
    std::vector<uint8_t> object = EncodeOnHost(index);
    for (DType dtype : {DType::kBf16, DType::kF32, DType::kF16}) {
      if (dtype == DType::kF16 && c.scale != 1) continue;
      SCOPED_TRACE(std::string(Name(dtype)));
      TensorForm form = c.form;
      form.dtype = dtype;
      BlockTensors want = DecodeOnHost(index, 1, object, form), got = DecodeOnDevice(index, 1, object, form);
      double rounding = dtype == DType::kBf16 ? 0x1p-7 : dtype == DType::kF16 ? 0x1p-9 : 0;
      ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t dim) {
        double square = Distance(want, got, l, s, h, dim).second;
        double rms = std::sqrt(square / (kBlockTokens * dim)), worst = 0;
        for (uint32_t t = 0; t < kBlockTokens; ++t) {
          for (uint32_t i = 0; i < dim; ++i) {
            double x = Get(want, l, s, t, h, i), y = Get(got, l, s, t, h, i);
            bool exact = fp8 || (index == 0 && t < kMaxSinkTokens);
            double allowed = exact ? 0 : std::abs(x) * rounding + 1e-5 * rms;
            worst = std::max(worst, std::isfinite(y) ? std::abs(x - y) - allowed : INFINITY);
          }
        }
        EXPECT_LE(worst, 0) << "layer " << l << " stream " << s << " head " << h;
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, FlatTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

class FlatAdversaryTest : public FlatTest {};

// Zeros of both signs, denormals, and what is decoded from them.
TEST_P(FlatAdversaryTest, ZeroAndTinyVectors) {
  const Case& c = GetParam();
  Prepare(c);
  uint32_t dim = layout_.layers[0].key_dim();
  for (int all = 0; all < 2; ++all) {
    FillRandom(layout_, 3, c.scale, &tensors_);
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
      static constexpr float kTiny[] = {0.0f, -0.0f, 1e-40f, 1e-33f, 1e-28f, 1e-7f};
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        if (all == 0 && t % 3 != 0) continue;
        for (uint32_t i = 0; i < dim; ++i)
          Put(&tensors_, l, s, t, h, i,
              kTiny[t / 3 % 6] * (i % 2 == 0 ? 1.0f : -1.0f) * (1.0f + static_cast<float>(i * 29 % 31) / 31));
      }
    });
    std::vector<uint8_t> host = EncodeOnHost(1);
    auto device = EncodeOnDevice(1);
    ASSERT_TRUE(device.ok()) << device.status();
    if (spec_.codec() == CodecId::kFp8) {
      EXPECT_TRUE(std::ranges::equal(Slices(host, 1), Slices(*device, 1)));
    } else {
      CompareProd(1, host, *device);
    }
    CompareHeaders(host, *device, 2e-3);
    BlockTensors a = DecodeOnHost(1, 1, host, kF32), b = DecodeOnDevice(1, 1, host, kF32);
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        double square = 0, miss = 0;
        for (uint32_t i = 0; i < dim; ++i) {
          double x = Get(a, l, s, t, h, i), y = Get(b, l, s, t, h, i);
          square += x * x;
          miss += (x - y) * (x - y);
        }
        EXPECT_LE(miss, 1e-10 * square)
            << "layer " << l << " stream " << s << " head " << h << " token " << t;
      }
    });
  }
}

// e4m3's values, the ties between them and their neighbours at scale 1: 448 in each vector sets it.
TEST_P(FlatAdversaryTest, ValuesAndTiesOfFp8) {
  const Case& c = GetParam();
  Prepare(c);
  uint32_t dim = layout_.layers[0].key_dim(), next = 0;
  auto magnitude = [](uint32_t code) {
    return code < 8 ? std::ldexp(static_cast<float>(code), -9)
                    : std::ldexp(1 + static_cast<float>(code % 8) / 8, static_cast<int>(code / 8) - 7);
  };
  auto probe = [&](uint32_t n) {
    uint32_t code = n / 12 % 126;
    float x = n % 2 == 0 ? magnitude(code) : (magnitude(code) + magnitude(code + 1)) / 2;
    if (n / 2 % 3 == 1) x = std::nextafter(x, 1000.0f);
    if (n / 2 % 3 == 2) x = std::nextafter(x, -1000.0f);
    return n / 6 % 2 == 0 ? x : -x;
  };
  // At scales with all mantissas, the ties are those of x / scale.
  for (float scale : {1.0f, 1.0078125f, 1.3125f, 1.9921875f, 0.71484375f}) {
    FillRandom(layout_, 3, c.scale, &tensors_);
    ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        for (uint32_t i = 0; i < dim; ++i)
          Put(&tensors_, l, s, t, h, i, scale * (i == t % dim ? 448.0f : probe(next++)));
      }
    });
    std::vector<uint8_t> host = EncodeOnHost(1);
    auto device = EncodeOnDevice(1);
    ASSERT_TRUE(device.ok()) << device.status();
    if (spec_.codec() == CodecId::kFp8) {
      EXPECT_TRUE(std::ranges::equal(Slices(host, 1), Slices(*device, 1))) << scale;
    } else {
      CompareProd(1, host, *device);
    }
  }
}

TEST_P(FlatAdversaryTest, NamesTheVectorThatIsNotFinite) {
  const Case& c = GetParam();
  Prepare(c);
  struct Place {
    uint32_t stream, head, token, index;
    float value;
  };
  for (const Place& p : {Place{0, 1, 17, 1, NAN},
                         {1, 1, 63, 1, INFINITY},
                         {1, 0, 5, 0, NAN},
                         {0, 0, 2, 0, NAN},
                         {1, 1, 3, 0, -INFINITY},
                         {0, 0, 0, 1, -INFINITY}}) {
    FillRandom(layout_, 5, 1, &tensors_);
    Put(&tensors_, 0, p.stream, p.token, p.head, 9, p.value);
    Put(&tensors_, 0, p.stream, 63, p.head, 2, p.value);  // the first of two is named
    auto device = EncodeOnDevice(p.index);
    ASSERT_TRUE(absl::IsInvalidArgument(device.status())) << device.status();
    std::string want = "layer 0, head " + std::to_string(p.head) + ", token " + std::to_string(p.token) +
                       (p.stream == 0 ? ": K" : ": V");
    // Sinks are raw rows, reported after the codes of the same block.
    if (p.index == 0 && p.token < kMaxSinkTokens) want = (p.stream == 0 ? ": K" : ": V");
    EXPECT_NE(device.status().message().find(want), absl::string_view::npos) << device.status();
  }
}

std::vector<Case> AdversaryCases() {
  std::vector<Case> cases;
  for (std::string spec : {"fp8", "tq_prod:k4v4", "tq_prod:k2v3"}) {
    std::string name = spec == "fp8" ? "fp8" : "prod" + spec.substr(9, 1);
    cases.push_back({name + "_d64_bf16", {Plain(2, 64)}, spec, kBf16});
    cases.push_back({name + "_d80_f32", {Plain(2, 80)}, spec, kF32});
    cases.push_back({name + "_d128_f32_odd", {Plain(2, 128)}, spec, {DType::kF32, false, 1}});
    cases.push_back({name + "_d272_f16", {Plain(2, 272)}, spec, kF16});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Shapes, FlatAdversaryTest, ::testing::ValuesIn(AdversaryCases()),
                         [](const auto& info) { return info.param.name; });

class ProdTest : public BlockFixture {};

// Pairs whose inner product is known to be far from zero, q = ρ·x + √(1 − ρ²)·noise, over many seeds of R and
// S. x is not isotropic: its channels' sizes span a factor of 50, and it has a common part.
TEST_F(ProdTest, InnerProductsAreUnbiased) {
  constexpr double kRho = 0.7;
  for (auto [dim, bits, seeds] :
       {std::tuple(64u, 2, 300), {64u, 4, 100}, {80u, 3, 150}, {128u, 3, 80}, {128u, 8, 30}}) {
    double xx = 0, xy = 0, spread = 0, theory = 0;
    const Codebook& book = Codebook::Get(dim, bits - 1);
    std::string bit = std::to_string(bits);
    for (int seed = 1; seed <= seeds; ++seed) {
      Prepare({Plain(1, dim)}, "tq_prod:k" + bit + "v" + bit, kF32, static_cast<uint64_t>(seed));
      FillRandom(layout_, static_cast<uint32_t>(seed), 1, &tensors_);
      ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
        for (uint32_t t = 0; t < kBlockTokens; ++t) {
          for (uint32_t c = 0; c < dim; ++c) {
            float size = std::pow(50.0f, static_cast<float>(c) / static_cast<float>(dim));
            Put(&tensors_, l, s, t, h, c, size * Get(tensors_, l, s, t, h, c) + (c == 1 ? 30.0f : 2.0f));
          }
        }
      });
      auto object = EncodeOnDevice(1);
      ASSERT_TRUE(object.ok()) << object.status();
      BlockTensors decoded = DecodeOnDevice(1, 1, *object, kF32);
      Rotation rotation(dim, static_cast<uint64_t>(seed));
      std::mt19937 engine(static_cast<uint32_t>(seed) + 100000);
      std::normal_distribution<float> normal;
      ForEachHead([&](uint32_t l, uint32_t s, uint32_t h, uint32_t) {
        for (uint32_t t = 0; t < kBlockTokens; ++t) {
          std::vector<float> x(dim), noise(dim), q(dim), r(dim);
          for (uint32_t c = 0; c < dim; ++c) {
            x[c] = Get(tensors_, l, s, t, h, c);
            noise[c] = normal(engine);
          }
          double norm = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
          double noise_norm = std::sqrt(std::inner_product(noise.begin(), noise.end(), noise.begin(), 0.0));
          double exact = 0, coded = 0, qq = 0, rr = 0, qr = 0;
          for (uint32_t c = 0; c < dim; ++c) {
            q[c] =
                static_cast<float>(kRho * x[c] / norm + std::sqrt(1 - kRho * kRho) * noise[c] / noise_norm);
            exact += double{q[c]} * x[c] / norm;
            coded += double{q[c]} * Get(decoded, l, s, t, h, c) / norm;
            r[c] = x[c];
          }
          rotation.Apply(r.data());
          rotation.Apply(q.data());
          for (uint32_t c = 0; c < dim; ++c) {
            double z = r[c] / norm * std::sqrt(dim);
            size_t cell = 0;
            for (double threshold : book.thresholds()) cell += threshold < std::fabs(z);
            double rest = (z - std::copysign(book.centroids()[cell], z)) / std::sqrt(dim);
            qq += double{q[c]} * q[c];
            rr += rest * rest;
            qr += q[c] * rest;
          }
          xx += exact * exact;
          xy += exact * coded;
          spread += (coded - exact) * (coded - exact);
          theory += (std::numbers::pi / 2 * qq * rr - qr * qr) / dim;
        }
      });
    }
    std::printf("d=%u b=%d: slope %.4f, variance %.3f of theory's\n", dim, bits, xy / xx, spread / theory);
    EXPECT_NEAR(xy / xx, 1.0, 0.005) << "d=" << dim << " b=" << bits;
    EXPECT_NEAR(spread / theory, 1.0, 0.05) << "d=" << dim << " b=" << bits;
  }
}

TEST_F(ProdTest, NeedsItsProjection) {
  Prepare({Plain(1, 64)}, "tq_prod:k4v4", kBf16);
  std::vector<uint32_t> dims{64}, other{128};
  EXPECT_TRUE(absl::IsInvalidArgument(TqCodec::Create(1, dims, other).status()));
  auto plain = *TqCodec::Create(1, dims);
  EXPECT_GE(codec_->table_bytes(), plain->table_bytes() + 64 * 64 * 4);
  DeviceBuffer raw = *DeviceBuffer::Allocate(tensors_.host.size());
  DeviceBuffer coded = *DeviceBuffer::Allocate(shape_.map(false).ObjectBytes(1));
  TqBatch batch = *TqBatch::Create(plain, TqBatch::Direction::kEncode, shape_.TasksPerBlock());
  BlockTasks tasks;
  CheckOk(tasks.AddEncode(shape_, false, ViewsOf<LayerView>(tensors_, raw.data()), coded.data()));
  absl::Status status = batch.Set(tasks.tasks, tasks.rows, CodecSpec());
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("projection of head size 64"), absl::string_view::npos) << status;
  tasks.tasks[0].codec = CodecId::kFp8;
  tasks.tasks[0].task.levels = 2;
  EXPECT_TRUE(absl::IsInvalidArgument(batch.Set({tasks.tasks.data(), 1}, {}, CodecSpec())));
}

}  // namespace
}  // namespace quire::cuda
