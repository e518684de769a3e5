// Encode, open, decode: errors, levels, sinks, dtypes, strides, parts, and vectors no codec likes.
#include "core/block/object.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "core/codec/codebook.h"
#include "tests/core/block/coded_block.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

TEST(ObjectTest, EveryDimAndBitsRoundTrips) {
  for (uint32_t dim = 16; dim <= 576; dim += 16) {
    Layout layout = SampleLayout(1, 1, dim, DType::kF32);
    SampleBlock block(layout, Part::Whole(layout));
    FillGaussian(block, dim);
    for (int bits : {2, 3, 4, 5, 8}) {
      SCOPED_TRACE(testing::Message() << "d=" << dim << " b=" << bits);
      Coded coded = Encode(layout,
                           "tq:k" + std::string(1, static_cast<char>('0' + bits)) + "v" +
                               std::string(1, static_cast<char>('0' + bits)),
                           block);
      BlockReader reader = coded.reader();
      const Codebook& book = Codebook::Get(dim, bits);
      for (int levels = 1; levels <= reader.levels(); ++levels) {
        SampleBlock out = Decode(reader, block, levels);
        double k = RelativeError(block.layers[0].k, out.layers[0].k),
               v = RelativeError(block.layers[0].v, out.layers[0].v);
        double table = book.truncated_mse(levels == 4 ? bits : std::min(bits, levels + 1));
        EXPECT_NEAR(v, table, (0.14 + 2.0 / dim) * table + 3e-4) << levels;
        // K: the unbiased scale costs mse/(1−mse), the mean takes 1/64 of the energy away.
        EXPECT_NEAR(k, table / (1 - table), (0.14 + 2.0 / dim) * table + 3e-5) << levels;
        EXPECT_NEAR(reader.header().relative_error[levels - 1][0][0], k, 1e-3 * k + 1e-9);
        EXPECT_NEAR(reader.header().relative_error[levels - 1][0][1], v, 1e-3 * v + 1e-9);
      }
    }
  }
}

TEST(ObjectTest, MeanErrorOnGaussianDataIsNearTheTable) {
  Layout layout = SampleLayout(4, 4, 128, DType::kF32);
  SampleBlock block(layout, Part::Whole(layout));
  FillGaussian(block, 1);
  for (int bits = 2; bits <= 6; ++bits) {
    std::string digit(1, static_cast<char>('0' + bits));
    Coded coded = Encode(layout, "tq:k" + digit + "v" + digit + ",effort=0", block);
    SampleBlock out = Decode(coded.reader(), block, coded.reader().levels());
    double v = 0;
    for (int l = 0; l < 4; ++l) v += RelativeError(block.layers[l].v, out.layers[l].v) / 4;
    double table = Codebook::Get(128, bits).mse();
    EXPECT_NEAR(v, table, 0.02 * table + (bits <= 4 ? 2e-4 : 1e-5)) << bits;
  }
}

TEST(ObjectTest, CutShortIsNearlyAsGoodAsNative) {
  Layout layout = SampleLayout(2, 4, 64, DType::kF32);
  SampleBlock block(layout, Part::Whole(layout));
  FillGaussian(block, 2);
  auto error = [&](const char* spec, int levels) {
    Coded coded = Encode(layout, spec, block);
    std::vector<uint8_t> cut(
        coded.object.begin(),
        coded.object.begin() + static_cast<ptrdiff_t>(coded.reader().slices().ObjectBytes(levels)));
    auto reader = BlockReader::Open(coded.codec, SampleIdentity(1), cut);
    EXPECT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ(reader->levels(), levels);
    EXPECT_TRUE(reader->Verify().ok());
    SampleBlock out = Decode(*reader, block, levels);
    return std::pair(RelativeError(block.layers[0].k, out.layers[0].k),
                     RelativeError(block.layers[0].v, out.layers[0].v));
  };
  for (auto [spec, levels, native] :
       {std::tuple("tq:k4v4", 2, "tq:k3v3"), {"tq:k4v4", 1, "tq:k2v2"}, {"tq:k8v8", 3, "tq:k4v4"}}) {
    auto [k, v] = error(spec, levels);
    auto [k_native, v_native] = error(native, levels);
    EXPECT_LT(k, 1.08 * k_native) << spec << levels;
    EXPECT_LT(v, 1.08 * v_native) << spec << levels;
  }
}

TEST(ObjectTest, SinksAreExactAndOutsideTheCodes) {
  for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    Layout layout = SampleLayout(2, 3, 80, dtype);
    SampleBlock block(layout, Part::Whole(layout));
    for (auto& layer : block.layers) {
      for (float& x : layer.k) x = FromBf16(ToBf16(x));
      for (float& x : layer.v) x = FromBf16(ToBf16(x));
      for (size_t i = 0; i < 4 * 3 * 80; ++i) layer.k[i] *= 1024;  // huge sinks must not touch the others
    }
    Coded coded = Encode(layout, "tq:k4v4", block, 0);
    BlockReader reader = coded.reader();
    EXPECT_EQ(reader.header().sink_tokens, 4u);
    SampleBlock out = Decode(reader, block, reader.levels());
    SampleBlock tame = block;
    for (auto& layer : tame.layers) std::fill_n(layer.k.begin(), 4 * 3 * 80, 1.0f);
    SampleBlock out_tame = Decode(Encode(layout, "tq:k4v4", tame, 0).reader(), block, 3);
    for (size_t l = 0; l < 2; ++l) {
      for (size_t i = 0; i < 4 * 3 * 80; ++i) {
        ASSERT_EQ(out.layers[l].k[i], block.layers[l].k[i]);
        ASSERT_EQ(out.layers[l].v[i], block.layers[l].v[i]);
      }
      for (size_t i = 4 * 3 * 80; i < out.layers[l].k.size(); ++i)
        ASSERT_EQ(out.layers[l].k[i], out_tame.layers[l].k[i]);
      EXPECT_LT(RelativeError(block.layers[l].k, out.layers[l].k, 4), 0.01);
    }
    std::vector<float> k(4 * 80), v(4 * 80), rk(64 * 80), mean(80), rv(64 * 80);
    ASSERT_TRUE(reader.DecodeSinks(1, 2, k, v).ok());
    for (size_t t = 0; t < 4; ++t) {
      for (size_t c = 0; c < 80; ++c) EXPECT_EQ(k[t * 80 + c], block.layers[1].k[(t * 3 + 2) * 80 + c]);
    }
    ASSERT_TRUE(reader.DecodeRotated(1, 2, 3, {rk, mean, rv}).ok());
    for (size_t i = 0; i < 4 * 80; ++i) {
      EXPECT_EQ(rk[i], 0);
      EXPECT_EQ(rv[i], 0);
    }
  }
}

TEST(ObjectTest, RawIsBitExact) {
  for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (uint32_t index : {0u, 1u}) {
      Layout layout = SampleLayout(2, 2, 48, dtype);
      auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
      size_t element = SizeOf(dtype), n = 64 * 2 * 48;
      std::mt19937 random(5);
      // Every finite bit pattern that comes up, subnormals and minus zero too.
      std::vector<std::vector<uint8_t>> tensors(4, std::vector<uint8_t>(n * element)), out = tensors;
      for (auto& tensor : tensors) {
        for (size_t i = 0; i < n; ++i) {
          float value;
          do {
            uint32_t bits = random();
            std::memcpy(tensor.data() + i * element, &bits, element);
            value = LoadElement(dtype, tensor.data(), i);
          } while (!std::isfinite(value));
        }
      }
      std::vector<LayerView> views(2);
      std::vector<MutableLayerView> outs(2);
      for (size_t l = 0; l < 2; ++l) {
        views[l] = {{tensors[2 * l].data(), dtype, 96, 48}, {tensors[2 * l + 1].data(), dtype, 96, 48}};
        outs[l] = {{out[2 * l].data(), dtype, 96, 48}, {out[2 * l + 1].data(), dtype, 96, 48}};
      }
      std::vector<uint8_t> object;
      ASSERT_TRUE(codec->Encode(*CodecSpec::Parse("raw"), SampleIdentity(index), views, &object).ok());
      auto reader = BlockReader::Open(codec, SampleIdentity(index), object);
      ASSERT_TRUE(reader.ok() && reader->Verify().ok());
      EXPECT_EQ(reader->levels(), 1);
      for (uint32_t l = 0; l < 2; ++l) ASSERT_TRUE(reader->DecodeLayer(l, 1, outs[l]).ok());
      EXPECT_EQ(tensors, out);
      if (index == 0) {
        std::vector<float> k(4 * 48), v(4 * 48);
        ASSERT_TRUE(reader->DecodeSinks(1, 1, k, v).ok());
        for (size_t t = 0; t < 4; ++t)
          EXPECT_EQ(v[t * 48 + 7], LoadElement(dtype, tensors[3].data(), (t * 2 + 1) * 48 + 7));
      }
      std::vector<float> x(64 * 48), m(48);
      EXPECT_EQ(reader->DecodeRotated(0, 0, 1, {x, m, x}).code(), absl::StatusCode::kFailedPrecondition);
    }
  }
}

TEST(ObjectTest, RotatedAgreesWithDecoded) {
  Layout layout = SampleLayout(1, 2, 96, DType::kF32);
  SampleBlock block(layout, Part::Whole(layout));
  for (const char* spec : {"tq:k4v4", "tq:k8v5", "tq:k2v3"}) {
    Coded coded = Encode(layout, spec, block);
    BlockReader reader = coded.reader();
    for (int levels = 1; levels <= reader.levels(); ++levels) {
      SampleBlock out = Decode(reader, block, levels);
      for (uint32_t h = 0; h < 2; ++h) {
        std::vector<float> k(64 * 96), mean(96), v(64 * 96), row(96);
        ASSERT_TRUE(reader.DecodeRotated(0, h, levels, {k, mean, v}).ok());
        for (uint32_t t = 0; t < 64; ++t) {
          for (uint32_t c = 0; c < 96; ++c) row[c] = k[t * 96 + c] + mean[c];
          coded.codec->RotateBack(96, row.data(), row.data());
          for (uint32_t c = 0; c < 96; ++c) ASSERT_EQ(row[c], out.layers[0].k[(t * 2 + h) * 96 + c]);
          coded.codec->RotateBack(96, v.data() + t * 96, row.data());
          for (uint32_t c = 0; c < 96; ++c) ASSERT_EQ(row[c], out.layers[0].v[(t * 2 + h) * 96 + c]);
          // Rotating what was decoded gives the codes' own space back.
          coded.codec->Rotate(96, row.data(), row.data());
          for (uint32_t c = 0; c < 96; ++c) ASSERT_NEAR(row[c], v[t * 96 + c], 1e-5);
        }
      }
    }
  }
}

TEST(ObjectTest, StridesAndDTypesOfInputsAndOutputs) {
  Layout layout = SampleLayout(1, 3, 64, DType::kBf16);
  SampleBlock block(layout, Part::Whole(layout));
  auto& layer = block.layers[0];
  for (auto* x : {&layer.k, &layer.v}) {
    for (float& value : *x)
      value = FromBf16(ToBf16(value));  // exact in f16 too: 8 bits of mantissa, moderate exponents
  }
  Coded token_major = Encode(layout, "tq:k4v4", block, 0);
  for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    // Head-major [head][token][channel], padded rows of 70.
    std::vector<uint8_t> k(3 * 64 * 70 * 4), v(k.size());
    for (size_t h = 0; h < 3; ++h) {
      for (size_t t = 0; t < 64; ++t) {
        for (size_t c = 0; c < 64; ++c) {
          StoreElement(dtype, k.data(), (h * 64 + t) * 70 + c, layer.k[(t * 3 + h) * 64 + c]);
          StoreElement(dtype, v.data(), (h * 64 + t) * 70 + c, layer.v[(t * 3 + h) * 64 + c]);
        }
      }
    }
    std::vector<LayerView> views{{{k.data(), dtype, 70, 64 * 70}, {v.data(), dtype, 70, 64 * 70}}};
    std::vector<uint8_t> object;
    ASSERT_TRUE(
        token_major.codec->Encode(*CodecSpec::Parse("tq:k4v4"), SampleIdentity(0), views, &object).ok());
    EXPECT_EQ(object, token_major.object);
    SampleBlock reference = Decode(token_major.reader(), block, 3);
    MutableLayerView out{{k.data(), dtype, 70, 64 * 70}, {v.data(), dtype, 70, 64 * 70}};
    ASSERT_TRUE(token_major.reader().DecodeLayer(0, 3, out).ok());
    for (size_t i = 0; i < reference.layers[0].k.size(); ++i) {
      size_t t = i / 192, h = i / 64 % 3, c = i % 64;
      uint32_t rounded = 0;
      StoreElement(dtype, &rounded, 0, reference.layers[0].k[i]);
      ASSERT_EQ(LoadElement(dtype, k.data(), (h * 64 + t) * 70 + c), LoadElement(dtype, &rounded, 0));
    }
  }
}

// A part holds the same codes as the whole; layers of the spec are the layout's.
TEST(ObjectTest, PartsAreSlicesOfTheWhole) {
  Layout layout = SampleLayout(4, 4, 64, DType::kF32);
  layout.layers[3].streams[0].heads = layout.layers[3].streams[1].heads = 2;
  const char* spec = "tq:k4v4,layers=2:k8v8";
  SampleBlock whole_block(layout, Part::Whole(layout));
  BlockReader whole = Encode(layout, spec, whole_block).reader();
  Coded keep = Encode(layout, spec, whole_block);
  whole = keep.reader();
  Part part{2, 4, 1, 3};
  SampleBlock block(layout, part);
  for (uint32_t l = 0; l < 2; ++l) {
    const auto& from = whole_block.layers[2 + l];
    auto& to = block.layers[l];
    for (uint32_t t = 0; t < 64; ++t) {
      for (uint32_t h = 0; h < to.heads; ++h) {
        std::copy_n(from.k.begin() + (t * from.heads + h + 1) * 64, 64,
                    to.k.begin() + (t * to.heads + h) * 64);
        std::copy_n(from.v.begin() + (t * from.heads + h + 1) * 64, 64,
                    to.v.begin() + (t * to.heads + h) * 64);
      }
    }
  }
  Coded coded = Encode(layout, spec, block, 1, part);
  BlockReader reader = coded.reader();
  EXPECT_EQ(reader.header().codecs[0], (LayerCodec{CodecId::kTq, 8, 8}));
  for (int level = 0; level < reader.levels(); ++level) {
    for (uint32_t l = 0; l < 2; ++l) {
      for (uint32_t h = 0; h < block.layers[l].heads; ++h) {
        Extent a = reader.slices().slice(level, l, h), b = whole.slices().slice(level, 2 + l, 1 + h);
        ASSERT_EQ(a.length, b.length);
        EXPECT_TRUE(std::equal(coded.object.begin() + a.offset, coded.object.begin() + a.end(),
                               keep.object.begin() + b.offset));
      }
    }
  }
  EXPECT_EQ(block.layers[1].heads, 1u);
  SampleBlock out = Decode(reader, block, reader.levels());
  EXPECT_LT(RelativeError(block.layers[1].v, out.layers[1].v), 0.02);
}

TEST(ObjectTest, LatentsAreCodedLikeKeys) {
  Layout layout = SampleLayout(2, 1, 576, DType::kF32);
  for (auto& layer : layout.layers) layer.streams = {{StreamKind::kLatent, 1, 576, 0}};
  SampleBlock block(layout, Part::Whole(layout));
  Coded coded = Encode(layout, "tq:k4v8", block, 0);
  BlockReader reader = coded.reader();
  EXPECT_EQ(reader.levels(), 3);
  EXPECT_EQ(reader.header().codecs[0], (LayerCodec{CodecId::kTq, 4, 0}));
  SampleBlock out = Decode(reader, block, 3);
  EXPECT_LT(RelativeError(block.layers[1].k, out.layers[1].k), 0.011);
  std::vector<float> k(64 * 576), mean(576), none;
  EXPECT_TRUE(reader.DecodeRotated(0, 0, 3, {k, mean, none}).ok());
  EXPECT_EQ(reader.DecodeRotated(0, 0, 3, {k, mean, k}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ObjectTest, VectorsNoCodecLikes) {
  Layout layout = SampleLayout(1, 1, 64, DType::kF32);
  auto run = [&](std::function<float(uint32_t t, uint32_t c)> value, const char* spec = "tq:k4v4") {
    SampleBlock block(layout, Part::Whole(layout));
    for (uint32_t t = 0; t < 64; ++t) {
      for (uint32_t c = 0; c < 64; ++c)
        block.layers[0].k[t * 64 + c] = block.layers[0].v[t * 64 + c] = value(t, c);
    }
    Coded coded = Encode(layout, spec, block);
    SampleBlock out = Decode(coded.reader(), block, coded.reader().levels());
    for (float x : out.layers[0].k) EXPECT_TRUE(std::isfinite(x));
    for (float x : out.layers[0].v) EXPECT_TRUE(std::isfinite(x));
    return std::pair(RelativeError(block.layers[0].k, out.layers[0].k),
                     RelativeError(block.layers[0].v, out.layers[0].v));
  };
  using Pair = std::pair<double, double>;
  EXPECT_EQ(run([](uint32_t, uint32_t) { return 0.0f; }), Pair(0, 0));    // zeros
  EXPECT_LT(run([](uint32_t, uint32_t) { return 1e-42f; }).second, 1.1);  // denormals: nothing
  EXPECT_LT(run([](uint32_t, uint32_t) { return 3.0f; }).first, 1e-5);    // all equal: the mean
  EXPECT_LT(run([](uint32_t, uint32_t) { return 3.0f; }).second, 0.03);
  EXPECT_LT(run([](uint32_t t, uint32_t c) { return t == c ? 1.0f : 0.0f; }).second, 0.03);  // one-hot
  EXPECT_LT(run([](uint32_t t, uint32_t c) { return t == c ? 1.0f : 0.0f; }).first, 0.03);
  auto noise = [](uint32_t t, uint32_t c) { return SampleValue(t * 64 + c); };
  Pair plain = run(noise), scaled = run([&](uint32_t t, uint32_t c) { return 1e4f * noise(t, c); });
  EXPECT_NEAR(scaled.first, plain.first, 2e-4);
  EXPECT_NEAR(scaled.second, plain.second, 5e-4);
  Pair tiny = run([&](uint32_t t, uint32_t c) { return 1e-10f * noise(t, c); });
  EXPECT_NEAR(tiny.first, plain.first, 2e-4);
  // A K bias of 600 in one channel: the mean takes it.
  auto biased = [&](uint32_t t, uint32_t c) { return noise(t, c) + (c == 5 ? 600.0f : 0.0f); };
  EXPECT_LT(run(biased).first * (64 * 600.0 * 600.0) / (64 * 64 * 4.0 / 3), 1.3 * plain.first);
  // One vector 2^20 times the others: V's scales span 16 octaves, no more, and what is smaller becomes
  // nothing, not noise.
  Pair spread = run([&](uint32_t t, uint32_t c) { return noise(t, c) * (t == 9 ? 1048576.0f : 1.0f); });
  EXPECT_LT(spread.second, 0.02);
}

TEST(ObjectTest, NotFiniteIsRefusedByLayerHeadAndToken) {
  Layout layout = SampleLayout(3, 4, 64, DType::kF16);
  Part part{1, 3, 2, 4};
  auto codec = *BlockCodec::Create(layout, part);
  auto refuse = [&](const char* spec, uint32_t index, uint32_t token, bool key, float bad) {
    SampleBlock block(layout, part);
    auto& tensor = key ? block.layers[1].k : block.layers[1].v;
    tensor[(token * 2 + 1) * 64 + 9] = bad;
    std::vector<uint8_t> object{1, 2, 3};
    absl::Status status =
        codec->Encode(*CodecSpec::Parse(spec), SampleIdentity(index), block.Views(), &object);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(object.empty());
    return std::string(status.message());
  };
  for (const char* spec : {"tq:k4v4", "raw", "fp8", "tq_prod:k4v4"}) {
    EXPECT_EQ(refuse(spec, 1, 17, true, NAN), "layer 2, head 3, token 17: K has NaN in channel 9");
    EXPECT_EQ(refuse(spec, 0, 2, false, -INFINITY),
              "layer 2, head 3, token 2: V has infinity in channel 9");  // a sink
    EXPECT_THAT(refuse(spec, 0, 63, false, NAN), HasSubstr("token 63: V has NaN"));
  }
  for (const char* spec : {"tq:k4v4", "tq_prod:k4v4"}) {
    EXPECT_THAT(refuse(spec, 1, 5, true, 3e38f),
                HasSubstr("token 5: K has a value beyond the codec's range"));
  }
  EXPECT_THAT(refuse("tq:k4v4", 0, 1, true, 1e6f), HasSubstr("token 1: K has a value beyond"));  // no f16
}

TEST(ObjectTest, WrongArgumentsAreRefused) {
  Layout layout = SampleLayout(2, 1, 64);
  SampleBlock block(layout, Part::Whole(layout));
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  std::vector<uint8_t> object;
  auto views = block.Views();
  auto encode = [&](const char* spec, std::span<const LayerView> layers) {
    return codec->Encode(*CodecSpec::Parse(spec), SampleIdentity(1), layers, &object);
  };
  EXPECT_EQ(encode("tq", std::span(views).first(1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(encode("tq:k4v4,layers=2:k8v8", views).message()),
              HasSubstr("names layer 2, the layout has 2 layers"));
  ASSERT_TRUE(encode("tq", views).ok());
  auto reader = BlockReader::OpenAny(codec, object);
  ASSERT_TRUE(reader.ok());
  EXPECT_FALSE(reader->DecodeLayer(2, 1, {}).ok());
  EXPECT_FALSE(reader->DecodeLayer(0, 0, {}).ok());
  EXPECT_FALSE(reader->DecodeLayer(0, 4, {}).ok());
  EXPECT_EQ(reader->DecodeLayer(0, 1, {}).code(), absl::StatusCode::kInvalidArgument);
  views[1].value.data = nullptr;
  EXPECT_EQ(encode("tq", views).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(object.empty());
  views = block.Views();
  ASSERT_TRUE(encode("tq", views).ok());
  std::vector<float> x(64 * 64), mean(64);
  EXPECT_FALSE(reader->DecodeRotated(0, 1, 3, {x, mean, x}).ok());
  EXPECT_FALSE(reader->DecodeRotated(0, 0, 3, {mean, mean, x}).ok());
  EXPECT_FALSE(BlockCodec::Create(layout, Part{0, 3, 0, 1}).ok());
  layout.layers[0].streams[0].dim = 24;
  EXPECT_FALSE(BlockCodec::Create(layout, Part::Whole(layout)).ok());
}

TEST(ObjectTest, EncodingIsDeterministic) {
  Layout layout = SampleLayout(2, 2, 80);
  SampleBlock block(layout, Part::Whole(layout));
  EXPECT_EQ(Encode(layout, "tq:k5v4,effort=3", block).object,
            Encode(layout, "tq:k5v4,effort=3", block).object);
}

}  // namespace
}  // namespace quire
