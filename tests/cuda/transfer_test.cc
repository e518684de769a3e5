// Blocks to the host and back through the ring, by either path, against core's reader. Skipped where there is
// no GPU.
#include "cuda/transfer.h"

#include <gtest/gtest.h>

#include "tests/cuda/device_blocks.h"

namespace quire::cuda {
namespace {

constexpr uint64_t kSeed = 9;
constexpr uint32_t kBlocks = 11;

void CheckOk(const absl::Status& status) { ASSERT_TRUE(status.ok()) << status.ToString(); }

class TransferTest : public ::testing::TestWithParam<Transfer::Path> {
 protected:
  void SetUp() override {
    if (absl::StatusOr<DeviceInfo> device = CurrentDevice(); !device.ok())
      GTEST_SKIP() << device.status().ToString();
    layout_ = Layout::Uniform(Digest(), 3, 2, 128);
    layout_.rotation_seed = kSeed;
    Part part = Part::Whole(layout_);
    CodecSpec spec = *CodecSpec::Parse("tq:k4v4,layers=1-1:k3v2");
    reference_ = *BlockCodec::Create(layout_, part);
    shape_ = *BlockShape::Create(layout_, part, spec);
    std::vector<uint32_t> dims = shape_.dims();
    codec_ = *TqCodec::Create(kSeed, dims);
    stream_ = std::make_unique<Stream>(*Stream::Create());
    // Chunks of two blocks and one left over, fewer slots than chunks.
    size_t block = shape_.map(false).ObjectBytes(shape_.map(false).levels());
    transfer_ = std::make_unique<Transfer>(*Transfer::Create(codec_, shape_, {block * 5 / 2, 2, 3}));
    for (uint32_t b = 0; b < kBlocks; ++b) {
      tensors_.push_back(MakeTensors(layout_, {}));
      FillRandom(layout_, 100 + b, 1, &tensors_.back());
      raw_.push_back(*DeviceBuffer::Allocate(tensors_[b].host.size()));
      CheckOk(CopyToDevice(stream_->ref(), tensors_[b].host.data(), tensors_[b].host.size(), raw_[b].data()));
      const SliceMap& map = shape_.map(b == 0);
      objects_.push_back(*PinnedBuffer::Allocate(map.ObjectBytes(map.levels())));
    }
  }

  static BlockIdentity Identity(uint32_t b) {
    BlockIdentity identity;
    identity.key.bytes[1] = static_cast<uint8_t>(b + 1);
    identity.index = b;
    return identity;
  }

  absl::Status Offload(std::vector<size_t>* order) {
    std::vector<std::vector<LayerView>> views;
    std::vector<Transfer::OffloadItem> items;
    for (uint32_t b = 0; b < kBlocks; ++b) views.push_back(ViewsOf<LayerView>(tensors_[b], raw_[b].data()));
    for (uint32_t b = 0; b < kBlocks; ++b) items.push_back({objects_[b].data(), b == 0, views[b]});
    return transfer_->Offload(
        items, GetParam(), stream_->ref(), [&](size_t item, const TqBatch& batch, size_t first_task) {
          order->push_back(item);
          return SealObject(shape_, Identity(static_cast<uint32_t>(item)), batch, first_task,
                            {objects_[item].data(), objects_[item].bytes()});
        });
  }

  Layout layout_;
  std::shared_ptr<const BlockCodec> reference_;
  BlockShape shape_;
  std::shared_ptr<const TqCodec> codec_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Transfer> transfer_;
  std::vector<BlockTensors> tensors_;
  std::vector<DeviceBuffer> raw_;
  std::vector<PinnedBuffer> objects_;
};

TEST_P(TransferTest, BlocksGoThereAndBack) {
  std::vector<size_t> order, want(kBlocks);
  for (uint32_t b = 0; b < kBlocks; ++b) want[b] = b;
  CheckOk(Offload(&order));
  EXPECT_EQ(order, want);
  for (int levels = 1; levels <= shape_.map(false).levels(); ++levels) {
    std::vector<std::vector<MutableLayerView>> views;
    std::vector<Transfer::RestoreItem> items;
    for (uint32_t b = 0; b < kBlocks; ++b) {
      CheckOk(Fill(stream_->ref(), 0xFF, raw_[b].bytes(), raw_[b].data()));
      views.push_back(ViewsOf<MutableLayerView>(tensors_[b], raw_[b].data()));
    }
    for (uint32_t b = 0; b < kBlocks; ++b) items.push_back({objects_[b].data(), b == 0, levels, views[b]});
    CheckOk(transfer_->Restore(items, GetParam(), stream_->ref()));
    for (uint32_t b = 0; b < kBlocks; ++b) {
      BlockTensors got = MakeTensors(layout_, {}), expected = MakeTensors(layout_, {});
      CheckOk(CopyToHost(stream_->ref(), raw_[b].data(), raw_[b].bytes(), got.host.data()));
      CheckOk(stream_->Synchronize());
      auto reader =
          BlockReader::Open(reference_, Identity(b), Bytes(objects_[b].data(), objects_[b].bytes()));
      ASSERT_TRUE(reader.ok()) << reader.status();
      CheckOk(reader->Verify());
      double miss = 0, square = 0;
      auto out = ViewsOf<MutableLayerView>(expected, expected.host.data());
      for (uint32_t l = 0; l < layout_.layers.size(); ++l) {
        CheckOk(reader->DecodeLayer(l, levels, out[l]));
        for (uint32_t s = 0; s < 2; ++s) {
          for (uint32_t t = 0; t < kBlockTokens; ++t) {
            for (uint32_t h = 0; h < 2; ++h) {
              for (uint32_t c = 0; c < 128; ++c) {
                double x = Get(expected, l, s, t, h, c), y = Get(got, l, s, t, h, c);
                miss += (x - y) * (x - y);
                square += x * x;
              }
            }
          }
        }
      }
      EXPECT_LE(miss, square / (512.0 * 512)) << "block " << b << " levels " << levels;
    }
  }
}

TEST_P(TransferTest, AVectorThatIsNotFiniteEndsIt) {
  Put(&tensors_[7], 2, 1, 40, 1, 3, NAN);
  CheckOk(CopyToDevice(stream_->ref(), tensors_[7].host.data(), tensors_[7].host.size(), raw_[7].data()));
  std::vector<size_t> order;
  absl::Status status = Offload(&order);
  ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(std::string(status.message()).find("layer 2, head 1, token 40: V"), std::string::npos) << status;
  EXPECT_LE(order.size(), 7u);
  Put(&tensors_[7], 2, 1, 40, 1, 3, 0.5f);
  CheckOk(CopyToDevice(stream_->ref(), tensors_[7].host.data(), tensors_[7].host.size(), raw_[7].data()));
  order.clear();
  CheckOk(Offload(&order));
  EXPECT_EQ(order.size(), kBlocks);
}

INSTANTIATE_TEST_SUITE_P(Paths, TransferTest,
                         ::testing::Values(Transfer::Path::kCopy, Transfer::Path::kZeroCopy),
                         [](const auto& info) {
                           return info.param == Transfer::Path::kCopy ? "copy" : "zero_copy";
                         });

}  // namespace
}  // namespace quire::cuda
