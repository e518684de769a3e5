// One codec on many threads, and many blocks over a caller's.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "tests/core/block/coded_block.h"

namespace quire {
namespace {

// One codec, many threads, streams of different d (each thread's working memory grows and is used again).
TEST(ThreadsTest, CodecsAreSharedBetweenThreads) {
  Layout layout = SampleLayout(4, 2, 64);
  layout.layers[1].streams[0].dim = layout.layers[1].streams[1].dim = 256;
  layout.layers[2].streams[1].dim = 16;
  layout.layers[3].streams = {{StreamKind::kLatent, 2, 576, 0}};
  SampleBlock block(layout, Part::Whole(layout));
  Coded coded = Encode(layout, "tq:k4v5", block, 0);
  SampleBlock expected = Decode(coded.reader(), block, 4);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      std::vector<uint8_t> object;
      SampleBlock mine = block;
      ASSERT_TRUE(
          coded.codec->Encode(*CodecSpec::Parse("tq:k4v5"), SampleIdentity(0), mine.Views(), &object).ok());
      EXPECT_EQ(object, coded.object);
      SampleBlock out = Decode(coded.reader(), block, 4);
      for (size_t l = 0; l < 4; ++l) {
        EXPECT_EQ(out.layers[l].k, expected.layers[l].k);
        EXPECT_EQ(out.layers[l].v, expected.layers[l].v);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

// Many blocks over a caller's threads give the objects and tensors of one at a time, and each its own
// outcome.
TEST(ThreadsTest, BlocksOverThreadsAreTheSame) {
  Layout layout = SampleLayout(3, 2, 64);
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  CodecSpec spec = *CodecSpec::Parse("tq:k4v3,effort=1");
  constexpr size_t kBlocks = 5, kBad = 2;
  std::vector<SampleBlock> blocks;
  std::vector<std::vector<LayerView>> views;
  std::vector<std::vector<uint8_t>> objects(kBlocks, std::vector<uint8_t>(100000, 0xAA));
  for (size_t i = 0; i < kBlocks; ++i) blocks.emplace_back(layout, Part::Whole(layout), i);
  blocks[kBad].layers[2].v[5 * 128] = NAN;  // token 5, head 0
  blocks[kBad].layers[1].k[63 * 128 + 64] = NAN;
  for (auto& block : blocks) views.push_back(block.Views());
  auto threads = [](size_t n, absl::FunctionRef<void(size_t)> body) {
    std::atomic<size_t> next = 0;
    std::vector<std::jthread> pool;
    for (int t = 0; t < 3; ++t) {
      pool.emplace_back([&] {
        for (size_t i = next++; i < n; i = next++) body(n - 1 - i);
      });
    }
  };
  std::vector<BlockCodec::EncodeJob> jobs;
  for (size_t i = 0; i < kBlocks; ++i) {
    jobs.push_back(
        {SampleIdentity(static_cast<uint32_t>(i)), views[i], &objects[i], absl::UnknownError("not set")});
  }
  codec->EncodeBlocks(spec, jobs, threads);
  std::vector<BlockReader> readers;
  for (size_t i = 0; i < kBlocks; ++i) {
    if (i == kBad) {
      EXPECT_EQ(jobs[i].status.message(), "layer 1, head 1, token 63: K has NaN in channel 0");
      EXPECT_TRUE(objects[i].empty());
      continue;
    }
    ASSERT_TRUE(jobs[i].status.ok()) << jobs[i].status;
    std::vector<uint8_t> alone;
    ASSERT_TRUE(codec->Encode(spec, SampleIdentity(static_cast<uint32_t>(i)), views[i], &alone).ok());
    EXPECT_TRUE(objects[i] == alone) << i;
    ASSERT_TRUE(
        codec->Encode(spec, SampleIdentity(static_cast<uint32_t>(i)), views[i], &alone, threads).ok());
    EXPECT_TRUE(objects[i] == alone) << i;
    readers.push_back(*BlockReader::OpenAny(codec, objects[i]));
  }
  std::vector<SampleBlock> outs(readers.size(), blocks[0].Blank());
  std::vector<std::vector<MutableLayerView>> rooms;
  for (auto& out : outs) rooms.push_back(out.MutableViews());
  std::vector<BlockReader::DecodeJob> decodes;
  for (size_t i = 0; i < readers.size(); ++i) {
    for (uint32_t l = 0; l < 3; ++l)
      decodes.push_back({&readers[i], l, 2, rooms[i][l], absl::UnknownError("not set")});
  }
  decodes.push_back({&readers[0], 3, 2, rooms[0][0], absl::OkStatus()});  // no such layer
  BlockReader::DecodeLayers(decodes, threads);
  EXPECT_EQ(decodes.back().status.code(), absl::StatusCode::kInvalidArgument);
  decodes.pop_back();
  for (const auto& job : decodes) EXPECT_TRUE(job.status.ok()) << job.status;
  for (size_t i = 0; i < readers.size(); ++i) {
    SampleBlock one = Decode(readers[i], blocks[0], 2);
    for (size_t l = 0; l < 3; ++l) {
      EXPECT_EQ(one.layers[l].k, outs[i].layers[l].k);
      EXPECT_EQ(one.layers[l].v, outs[i].layers[l].v);
    }
  }
}

}  // namespace
}  // namespace quire
