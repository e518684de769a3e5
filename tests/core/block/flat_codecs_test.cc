// fp8 and tq_prod through whole objects: every d, latents, parts, strides, threads, and bytes that mean
// nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <thread>

#include "core/codec/codebook.h"
#include "tests/core/block/coded_block.h"

namespace quire {
namespace {

// tq_prod: the residual's energy times what one sign a row of S leaves of it, π/2 − 1/d.
TEST(FlatCodecsTest, EveryDimRoundTripsWithTheExpectedError) {
  for (uint32_t dim = 16; dim <= 576; dim += 16) {
    Layout layout = SampleLayout(1, 1, dim, DType::kF32);
    SampleBlock block(layout, Part::Whole(layout));
    FillGaussian(block, dim);
    for (auto [spec, k_bits, v_bits] :
         {std::tuple("fp8", 0, 0), {"tq_prod:k2v3", 2, 3}, {"tq_prod:k8v4", 8, 4}}) {
      SCOPED_TRACE(testing::Message() << "d=" << dim << " " << spec);
      Coded coded = Encode(layout, spec, block);
      BlockReader reader = coded.reader();
      EXPECT_EQ(reader.levels(), 1);
      SampleBlock out = Decode(reader, block, 1);
      for (auto [in, back, bits, header] :
           {std::tuple(&block.layers[0].k, &out.layers[0].k, k_bits, reader.header().relative_error[0][0][0]),
            {&block.layers[0].v, &out.layers[0].v, v_bits, reader.header().relative_error[0][0][1]}}) {
        double error = RelativeError(*in, *back);
        if (bits == 0) {
          EXPECT_LT(error, 8e-4);
          EXPECT_GT(error, 4e-4);
        } else {
          // One S of d rows: the smaller, the further from the mean of all. And one coordinate in the tail of
          // a fine codebook counts for thousands of others.
          double expected = Codebook::Get(dim, bits - 1).mse() * (std::numbers::pi / 2 - 1.0 / dim);
          EXPECT_NEAR(error, expected, (0.14 + 8.0 / dim) * expected + (bits > 4 ? 3e-4 : 1e-5));
        }
        EXPECT_NEAR(header, error, 1e-3 * error);
      }
    }
  }
}

TEST(FlatCodecsTest, LatentsAreCodedLikeKeys) {
  Layout layout = SampleLayout(2, 2, 576, DType::kBf16);
  for (auto& layer : layout.layers) layer.streams = {{StreamKind::kLatent, 2, 576, 0}};
  SampleBlock block(layout, Part::Whole(layout));
  for (auto [spec, limit, codec] : {std::tuple("fp8", 1e-3, LayerCodec{CodecId::kFp8, 0, 0}),
                                    {"tq_prod:k8v4", 1e-3, LayerCodec{CodecId::kTqProd, 8, 0}}}) {
    Coded coded = Encode(layout, spec, block, 0);
    BlockReader reader = coded.reader();
    EXPECT_EQ(reader.header().codecs[0], codec);
    SampleBlock out = Decode(reader, block, 1);
    EXPECT_LT(RelativeError(block.layers[1].k, out.layers[1].k), limit) << spec;
    std::vector<float> k(4 * 576), none, all(64 * 576), mean(576);
    ASSERT_TRUE(reader.DecodeSinks(1, 1, k, none).ok());
    for (uint32_t t = 0; t < 4; ++t) {
      for (uint32_t c = 0; c < 576; ++c)
        ASSERT_EQ(k[t * 576 + c], FromBf16(ToBf16(block.layers[1].k[(t * 2 + 1) * 576 + c])));
    }
    EXPECT_EQ(reader.DecodeRotated(0, 0, 1, {all, mean, none}).code(), absl::StatusCode::kFailedPrecondition);
  }
}

// A part's slices are the whole's, layers may differ in bits, and rows may lie anywhere.
TEST(FlatCodecsTest, PartsAndStrides) {
  Layout layout = SampleLayout(3, 3, 80, DType::kBf16);
  layout.layers[2].streams[0].heads = layout.layers[2].streams[1].heads = 2;
  for (const char* spec : {"fp8", "tq_prod:k3v4,layers=2:k5v2"}) {
    SCOPED_TRACE(spec);
    SampleBlock whole_block(layout, Part::Whole(layout));
    Coded whole = Encode(layout, spec, whole_block);
    SampleBlock expected = Decode(whole.reader(), whole_block, 1);
    Part part{1, 3, 1, 3};
    auto codec = *BlockCodec::Create(layout, part);
    // Views into the whole's tensors, head 1 first.
    std::vector<LayerView> views = whole_block.Views();
    views.erase(views.begin());
    for (LayerView& view : views) {
      view.key.data = static_cast<const float*>(view.key.data) + 80;
      view.value.data = static_cast<const float*>(view.value.data) + 80;
    }
    std::vector<uint8_t> object;
    ASSERT_TRUE(codec->Encode(*CodecSpec::Parse(spec), SampleIdentity(1), views, &object).ok());
    auto reader = *BlockReader::OpenAny(codec, object);
    for (uint32_t l = 0; l < 2; ++l) {
      uint32_t heads = l == 0 ? 2 : 1;
      for (uint32_t h = 0; h < heads; ++h) {
        Extent a = reader.slices().slice(0, l, h), b = whole.reader().slices().slice(0, l + 1, h + 1);
        ASSERT_EQ(a.length, b.length);
        EXPECT_TRUE(
            std::equal(object.begin() + a.offset, object.begin() + a.end(), whole.object.begin() + b.offset));
      }
      // Head-major rows of 83 in f16.
      std::vector<uint16_t> k(2 * 64 * 83, 0x5555), v = k;
      MutableLayerView out{{k.data(), DType::kF16, 83, 64 * 83}, {v.data(), DType::kF16, 83, 64 * 83}};
      ASSERT_TRUE(reader.DecodeLayer(l, 1, out).ok());
      const auto& layer = expected.layers[l + 1];
      for (uint32_t i = 0; i < heads * 64 * 80; ++i) {
        uint32_t h = i / (64 * 80), t = i / 80 % 64, c = i % 80, from = (t * layer.heads + h + 1) * 80 + c;
        ASSERT_EQ(k[(h * 64 + t) * 83 + c], ToF16(layer.k[from]));
        ASSERT_EQ(v[(h * 64 + t) * 83 + c], ToF16(layer.v[from]));
      }
      EXPECT_EQ(k[80], 0x5555);
    }
  }
}

// The projection is made once, by whoever comes first; objects are the same bytes from every thread.
TEST(FlatCodecsTest, SharedBetweenThreads) {
  Layout layout = SampleLayout(2, 2, 96);
  layout.layers[1].streams[1].dim = 16;
  SampleBlock block(layout, Part::Whole(layout));
  for (const char* spec : {"fp8", "tq_prod:k4v5"}) {
    Coded coded = Encode(layout, spec, block, 0);
    SampleBlock expected = Decode(coded.reader(), block, 1);
    auto fresh = *BlockCodec::Create(layout, Part::Whole(layout));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        SampleBlock mine = block;
        std::vector<uint8_t> object;
        ASSERT_TRUE(fresh->Encode(*CodecSpec::Parse(spec), SampleIdentity(0), mine.Views(), &object).ok());
        EXPECT_EQ(object, coded.object);
        SampleBlock out = Decode(*BlockReader::OpenAny(fresh, object), block, 1);
        for (size_t l = 0; l < 2; ++l) {
          EXPECT_EQ(out.layers[l].k, expected.layers[l].k);
          EXPECT_EQ(out.layers[l].v, expected.layers[l].v);
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

// Whoever can write checksums can write any bytes: they decode to something, within bounds.
TEST(FlatCodecsTest, GarbageIsHarmless) {
  Layout layout = SampleLayout(1, 2, 48);
  SampleBlock block(layout, Part::Whole(layout));
  std::mt19937 random(7);
  for (const char* spec : {"fp8", "tq_prod:k2v3"}) {
    Coded coded = Encode(layout, spec, block, 0);
    BlockReader reader = coded.reader();
    SampleBlock before = Decode(reader, block, 1);
    for (int round = 0; round < 20; ++round) {
      for (size_t i = reader.slices().header_bytes(); i < coded.object.size(); ++i)
        coded.object[i] = static_cast<uint8_t>(round == 0 ? 0xFF : random());
      EXPECT_EQ(reader.VerifyLayer(0, 1).code(), absl::StatusCode::kDataLoss);
      Decode(reader, block, 1);
    }
  }
}

}  // namespace
}  // namespace quire
