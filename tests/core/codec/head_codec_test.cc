// Every kernel target against the scalar reference, bit for bit: planes, scales, corrections, measured
// errors, and every decoded element of every type.
#include "core/codec/head_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "core/codec/head_pass.h"
#include "tests/core/codec/each_target.h"
#include "tests/core/codec/scalar_reference.h"

// Counts this thread's allocations.
namespace {
thread_local uint64_t allocations = 0;
}
void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace quire {
namespace {

constexpr uint64_t kSeed = 5;

class HeadCodecTest : public EachTargetTest {
 protected:
  void SetUp() override {
    EachTargetTest::SetUp();
    std::string name = hwy::TargetName(GetParam());
    ASSERT_EQ(CodecTargetName(), name);
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, HeadCodecTest, ::testing::ValuesIn(RunnableTargets()), TargetTestName);

struct Planes {
  std::vector<std::vector<uint8_t>> bytes;
  Planes(uint32_t dim, int bits) {
    for (int p = 0; p < bits - 1; ++p) bytes.emplace_back(PlaneBytes(dim, p == 0 ? 2 : 1), 0xEE);
  }
  PlanePointers pointers() {
    PlanePointers at{};
    for (size_t p = 0; p < bytes.size(); ++p) at[p] = bytes[p].data();
    return at;
  }
  ConstPlanePointers const_pointers() const {
    ConstPlanePointers at{};
    for (size_t p = 0; p < bytes.size(); ++p) at[p] = bytes[p].data();
    return at;
  }
};

// Rows of one head inside a larger tensor, with something else between them.
struct Rows {
  DType dtype;
  uint32_t dim;
  ptrdiff_t stride;
  std::vector<uint8_t> bytes;

  Rows(DType type, uint32_t d, ptrdiff_t token_stride)
      : dtype(type), dim(d), stride(token_stride), bytes(64 * token_stride * SizeOf(type) + 2, 0x55) {}
  template <typename Value>
  void Fill(Value value) {
    for (uint32_t t = 0; t < 64; ++t) {
      for (uint32_t c = 0; c < dim; ++c) StoreElement(dtype, bytes.data(), t * stride + c, value(t, c));
    }
  }
  HeadRows view() const { return {bytes.data(), dtype, stride}; }
  MutableHeadRows room() { return {bytes.data(), dtype, stride}; }
};

struct Case {
  uint32_t dim;
  int bits, effort;
  uint32_t first_token;
  DType dtype;
  ptrdiff_t padding;
  bool shaped = false;  // by queries of a few directions
};

// Moments of queries that lie in an eighth of all directions.
QueryShape ShapeOf(const Rotation& rotation) {
  const uint32_t d = rotation.dim();
  std::mt19937 random(d);
  std::normal_distribution<double> normal;
  std::vector<double> moments(size_t{d} * d);
  for (uint32_t direction = 0; direction < d / 8; ++direction) {
    std::vector<double> q(d);
    for (double& x : q) x = normal(random);
    for (uint32_t i = 0; i < d; ++i) {
      for (uint32_t j = 0; j < d; ++j) moments[i * d + j] += q[i] * q[j];
    }
  }
  return *QueryShape::Create(rotation, moments);
}

// K and V of the same rows, encoded by both; then all their prefixes decoded by both.
void Compare(const Case& c, const Rows& rows) {
  SCOPED_TRACE(testing::Message() << "d=" << c.dim << " b=" << c.bits << " effort=" << c.effort
                                  << " first=" << c.first_token << " " << Name(c.dtype) << " padding "
                                  << c.padding << (c.shaped ? " shaped" : ""));
  Rotation rotation(c.dim, kSeed);
  reference::Rotation plain_rotation(c.dim, kSeed);
  const Codebook& book = Codebook::Get(c.dim, c.bits);
  TqKey key, plain_key;
  TqValue value, plain_value;
  Planes k_planes(c.dim, c.bits), v_planes = k_planes, plain_k_planes = k_planes, plain_v_planes = k_planes;
  HeadRows view = rows.view();
  std::optional<QueryShape> shape;
  if (c.shaped) shape = ShapeOf(rotation);
  ASSERT_EQ(EncodeKeyHead(rotation, book, c.effort, c.first_token, view, &key, k_planes.pointers(), &view,
                          shape ? &*shape : nullptr),
            -1);
  ASSERT_EQ(reference::EncodeKeyHead(plain_rotation, book, c.effort, c.first_token, view, &plain_key,
                                     plain_k_planes.pointers(), shape ? shape->feedback() : nullptr),
            -1);
  ASSERT_EQ(EncodeValueHead(rotation, book, c.effort, c.first_token, view, &value, v_planes.pointers()), -1);
  ASSERT_EQ(reference::EncodeValueHead(plain_rotation, book, c.effort, c.first_token, view, &plain_value,
                                       plain_v_planes.pointers()),
            -1);
  EXPECT_EQ(key.mean_step, plain_key.mean_step);
  EXPECT_EQ(key.mean, plain_key.mean);
  EXPECT_EQ(key.scales, plain_key.scales);
  EXPECT_EQ(key.corrections, plain_key.corrections);
  EXPECT_EQ(value.scale_base, plain_value.scale_base);
  EXPECT_EQ(value.scale_codes, plain_value.scale_codes);
  EXPECT_EQ(value.corrections, plain_value.corrections);
  EXPECT_EQ(k_planes.bytes, plain_k_planes.bytes);
  EXPECT_EQ(v_planes.bytes, plain_v_planes.bytes);
  for (auto [a, b] :
       {std::pair(&key.measured, &plain_key.measured), {&value.measured, &plain_value.measured}}) {
    EXPECT_EQ(a->energy, b->energy);
    for (int level = 0; level < kTqLevels; ++level) EXPECT_EQ(a->error[level], b->error[level]) << level;
  }
  float scales[64], mean[kMaxCodecDim];
  TqKeyMean(c.dim, key, mean);
  for (int levels = 1; levels <= kTqLevels; ++levels) {
    if (!HasLevel(c.bits, levels - 1)) continue;
    int kept = KeptBits(c.bits, levels - 1);
    for (bool is_key : {true, false}) {
      is_key ? TqKeyScales(book, levels, key, scales) : TqValueScales(book, levels, value, scales);
      FragmentOrder order = is_key ? FragmentOrder::kKey : FragmentOrder::kValue;
      const Planes& planes = is_key ? k_planes : v_planes;
      Rows out(c.dtype, c.dim, c.dim + c.padding), plain(c.dtype, c.dim, c.dim + c.padding);
      DecodeHead(&rotation, book, kept, order, planes.const_pointers(), scales, is_key ? mean : nullptr,
                 c.first_token, out.room());
      reference::DecodeHead(&plain_rotation, book, kept, order, planes.const_pointers(), scales,
                            is_key ? mean : nullptr, c.first_token, plain.room());
      EXPECT_TRUE(out.bytes == plain.bytes) << "decoded " << levels << (is_key ? " K" : " V");
      DecodeHead(nullptr, book, kept, order, planes.const_pointers(), scales, nullptr, 0, out.room());
      reference::DecodeHead(nullptr, book, kept, order, planes.const_pointers(), scales, nullptr, 0,
                            plain.room());
      EXPECT_TRUE(out.bytes == plain.bytes) << "rotated " << levels << (is_key ? " K" : " V");
    }
  }
}

TEST_P(HeadCodecTest, EveryDimAndBits) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    for (int bits = 2; bits <= 8; ++bits) {
      if (dim > 256 && (dim / 16 + bits) % 3 != 0) continue;  // enough of the large ones
      Case c{dim,
             bits,
             static_cast<int>(random() % 4),
             random() % 3 == 0 ? 4u : 0u,
             static_cast<DType>(random() % 3),
             static_cast<ptrdiff_t>(random() % 2 * dim + random() % 3),
             dim <= 128 && random() % 2 == 0};
      Rows rows(c.dtype, dim, dim + c.padding);
      rows.Fill([&](uint32_t t, uint32_t channel) { return normal(random) + (channel == 3 ? 6.0f : 0.0f); });
      ASSERT_NO_FATAL_FAILURE(Compare(c, rows));
      if (HasFailure()) return;
    }
  }
}

TEST_P(HeadCodecTest, VectorsNoCodecLikes) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<std::function<float(uint32_t, uint32_t)>> fills = {
      [](uint32_t, uint32_t) { return 0.0f; },
      [](uint32_t, uint32_t) { return -0.0f; },
      [](uint32_t t, uint32_t c) { return t == c ? 1.0f : 0.0f; },
      [](uint32_t t, uint32_t c) { return t == c ? -1.0f : -0.0f; },
      [](uint32_t, uint32_t) { return 3.0f; },
      [](uint32_t, uint32_t) { return 1e-42f; },
      [](uint32_t t, uint32_t) { return t % 2 ? 1e-16f : 2.0f; },
      [&](uint32_t t, uint32_t) { return normal(random) * std::ldexp(1.0f, -static_cast<int>(t % 40)); },
      [&](uint32_t, uint32_t c) { return normal(random) + (c == 5 ? 600.0f : 0.0f); },
      [&](uint32_t, uint32_t) { return normal(random) * 1e4f; },
      [&](uint32_t t, uint32_t) { return t < 4 ? 1e30f : normal(random); },  // sinks
      [&](uint32_t, uint32_t) { return static_cast<float>(static_cast<int>(random() % 3) - 1); },
  };
  for (uint32_t dim : {16u, 64u, 80u, 96u, 128u, 256u}) {
    for (int bits : {2, 4, 5, 8}) {
      for (const auto& fill : fills) {
        Case c{dim, bits, static_cast<int>(random() % 3), 4, DType::kF32, 1, dim <= 96 && random() % 2 == 0};
        Rows rows(c.dtype, dim, dim + c.padding);
        rows.Fill(fill);
        ASSERT_NO_FATAL_FAILURE(Compare(c, rows));
        if (HasFailure()) return;
      }
    }
  }
}

// A head's way is made in memory that its thread keeps.
TEST_P(HeadCodecTest, NothingIsAllocatedPerCall) {
  for (uint32_t dim : {80u, 576u}) {
    Rotation rotation(dim, kSeed);
    const Codebook& book = Codebook::Get(dim, 4);
    Rows rows(DType::kBf16, dim, dim);
    rows.Fill([](uint32_t t, uint32_t c) { return static_cast<float>((t * 7 + c * 13) % 31) - 15; });
    HeadRows view = rows.view();
    TqKey key;
    TqValue value;
    Planes planes(dim, 4);
    float scales[64];
    uint64_t before = 0;
    for (int round = 0; round < 2; ++round) {  // the first call of a thread and of a codebook may
      before = allocations;
      EncodeKeyHead(rotation, book, 1, 0, view, &key, planes.pointers(), &view);
      TqKeyScales(book, 3, key, scales);
      DecodeHead(&rotation, book, 4, FragmentOrder::kKey, planes.const_pointers(), scales, nullptr, 0,
                 rows.room());
      EncodeValueHead(rotation, book, 1, 0, view, &value, planes.pointers(), &view);
    }
    EXPECT_EQ(allocations, before);
  }
}

// Rows that go past the caches hold the same, whatever their type and wherever they begin.
TEST_P(HeadCodecTest, PastTheCachesIsTheSame) {
  for (uint32_t dim : {16u, 64u, 80u, 128u}) {
    Rotation rotation(dim, kSeed);
    const Codebook& book = Codebook::Get(dim, 4);
    Rows rows(DType::kF32, dim, dim);
    rows.Fill([](uint32_t t, uint32_t c) { return static_cast<float>((t * 11 + c * 5) % 37) - 18; });
    TqValue value;
    Planes planes(dim, 4);
    EncodeValueHead(rotation, book, 0, 0, rows.view(), &value, planes.pointers());
    float scales[64];
    TqValueScales(book, 3, value, scales);
    for (DType type : {DType::kBf16, DType::kF16, DType::kF32}) {
      for (size_t shift : {0, 4}) {  // on 64 bytes and not
        const size_t stride = 128, bytes = 64 * stride * SizeOf(type);
        std::vector<uint8_t> cached(bytes + 128, 1), past(bytes + 128, 1);
        auto room = [&](std::vector<uint8_t>& memory) {
          auto at = (reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64 + shift;
          return MutableHeadRows{reinterpret_cast<void*>(at), type, static_cast<ptrdiff_t>(stride)};
        };
        for (auto* memory : {&cached, &past}) {
          DecodeHead(&rotation, book, 4, FragmentOrder::kValue, planes.const_pointers(), scales, nullptr, 3,
                     room(*memory), nullptr, memory == &past ? Destination::kMemory : Destination::kCaches);
        }
        EXPECT_EQ(std::memcmp(room(cached).data, room(past).data, bytes), 0) << dim << " " << Name(type);
      }
    }
  }
}

// Scales that only a broken object has: infinities, NaN and floats too large for what follows.
TEST_P(HeadCodecTest, NonsenseDecodesTheSameEverywhere) {
  std::mt19937 random(3);
  const Codebook& book = Codebook::Get(64, 4);
  Rotation rotation(64, kSeed);
  reference::Rotation plain_rotation(64, kSeed);
  Planes planes(64, 4);
  for (auto& plane : planes.bytes) {
    for (uint8_t& byte : plane) byte = static_cast<uint8_t>(random());
  }
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  float scales[64], mean[64];
  for (uint32_t t = 0; t < 64; ++t)
    scales[t] = std::vector<float>{1, kInf, kNan, 3e38f, 1e-41f, 0, 1e-30f}[t % 7];
  for (uint32_t c = 0; c < 64; ++c) mean[c] = c == 9 ? 2e38f : 0.5f;
  for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    Rows out(dtype, 64, 64), plain(dtype, 64, 64);
    DecodeHead(&rotation, book, 4, FragmentOrder::kKey, planes.const_pointers(), scales, mean, 0, out.room());
    reference::DecodeHead(&plain_rotation, book, 4, FragmentOrder::kKey, planes.const_pointers(), scales,
                          mean, 0, plain.room());
    for (size_t i = 0; i < 64 * 64; ++i) {
      float a = LoadElement(dtype, out.bytes.data(), i), b = LoadElement(dtype, plain.bytes.data(), i);
      // Which NaN comes of two is the processor's choice.
      ASSERT_TRUE(std::isnan(a) ? std::isnan(b) : a == b) << Name(dtype) << " " << i << ": " << a << " " << b;
    }
  }
}

// 16-bit floats come in exactly: every pattern of f16 and bf16, through an encoder that has nothing to round.
TEST_P(HeadCodecTest, EverySixteenBitPatternIsReadAsItIs) {
  Rotation rotation(16, kSeed);
  reference::Rotation plain_rotation(16, kSeed);
  const Codebook& book = Codebook::Get(16, 8);
  for (DType dtype : {DType::kBf16, DType::kF16}) {
    for (uint32_t first = 0; first < 65536; first += 1024) {
      Rows rows(dtype, 16, 16);
      for (uint32_t i = 0; i < 1024; ++i) {
        auto pattern = static_cast<uint16_t>(first + i);
        std::memcpy(rows.bytes.data() + 2 * i, &pattern, 2);
      }
      TqValue value, plain;
      Planes planes(16, 8), plain_planes(16, 8);
      int bad = EncodeValueHead(rotation, book, 0, 0, rows.view(), &value, planes.pointers());
      int plain_bad = reference::EncodeValueHead(plain_rotation, book, 0, 0, rows.view(), &plain,
                                                 plain_planes.pointers());
      ASSERT_EQ(bad, plain_bad) << first;
      if (bad >= 0) continue;
      ASSERT_EQ(planes.bytes, plain_planes.bytes) << first;
      ASSERT_EQ(value.measured.energy, plain.measured.energy) << first;
    }
  }
}

TEST_P(HeadCodecTest, NotFiniteIsReportedByToken) {
  Rotation rotation(96, kSeed);
  for (float bad : {NAN, INFINITY, -INFINITY, 3e38f}) {
    for (uint32_t token : {4u, 17u, 63u}) {
      Rows rows(DType::kF32, 96, 96);
      rows.Fill([&](uint32_t t, uint32_t c) { return t == token && c == 9 ? bad : 1.0f; });
      TqKey key;
      TqValue value;
      Planes planes(96, 4);
      EXPECT_EQ(EncodeKeyHead(rotation, Codebook::Get(96, 4), 0, 4, rows.view(), &key, planes.pointers()),
                static_cast<int>(token));
      EXPECT_EQ(EncodeValueHead(rotation, Codebook::Get(96, 4), 0, 4, rows.view(), &value, planes.pointers()),
                static_cast<int>(token));
    }
  }
}

// The claim behind choosing V's scale codes by comparing: base · 2^((2i+1)/32) is never so near a float that
// rounding a logarithm in double could differ.
TEST(ScaleCodeTest, NoEdgeIsNearAFloat) {
  for (uint32_t mantissa = 0; mantissa < 128; ++mantissa) {
    long double base = 1 + mantissa / 128.0L;
    for (int i = 0; i < 16; ++i) {
      long double edge = base * std::exp2((2 * i + 1) / 32.0L);
      EXPECT_NEAR(kScaleHalves[i], static_cast<double>(edge / base), 2.3e-16);
      auto nearest = static_cast<float>(edge);
      EXPECT_GT(std::fabs((nearest - edge) / edge), 1e-14L) << mantissa << " " << i;
    }
  }
  for (int code = 0; code < 255; ++code) {
    EXPECT_EQ(kScalePowers[code],
              std::ldexp(static_cast<float>(std::exp2(-(code % 16) / 16.0)), -(code / 16)));
  }
}

}  // namespace
}  // namespace quire
