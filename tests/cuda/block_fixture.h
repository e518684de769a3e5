// Blocks coded on the device and by core's BlockCodec and BlockReader, for the tests that hold one against
// the other. Skips where there is no GPU.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/stream.h"
#include "tests/cuda/device_blocks.h"

namespace quire::cuda {

inline constexpr uint64_t kSeed = 20240917;

inline LayerLayout Plain(uint32_t heads, uint32_t dim) {
  return {{{StreamKind::kKey, heads, dim, 0}, {StreamKind::kValue, heads, dim, 0}}};
}
inline LayerLayout Latent(uint32_t dim) { return {{{StreamKind::kLatent, 1, dim, 0}}}; }

inline void CheckOk(const absl::Status& status) { ASSERT_TRUE(status.ok()) << status.ToString(); }

class BlockFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<DeviceInfo> device = CurrentDevice();
    if (!device.ok()) GTEST_SKIP() << device.status().ToString();
    fast_device_ = device->major == 9 && device->minor == 0;
  }

  void Prepare(const std::vector<LayerLayout>& layers, const std::string& spec, const TensorForm& form,
               uint64_t seed = kSeed) {
    layout_ = Layout();
    layout_.layers = layers;
    layout_.dtype = DType::kBf16;
    layout_.rotation_seed = seed;
    part_ = Part::Whole(layout_);
    spec_ = *CodecSpec::Parse(spec);
    auto reference = BlockCodec::Create(layout_, part_);
    ASSERT_TRUE(reference.ok()) << reference.status();
    reference_ = *reference;
    auto shape = BlockShape::Create(layout_, part_, spec_);
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *shape;
    auto codec = TqCodec::Create(seed, shape_.dims(), shape_.projected_dims());
    ASSERT_TRUE(codec.ok()) << codec.status();
    codec_ = *codec;
    auto stream = Stream::Create();
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = std::make_unique<Stream>(*std::move(stream));
    tensors_ = MakeTensors(layout_, form);
  }

  static BlockIdentity Identity(uint32_t index) {
    BlockIdentity identity;
    identity.key.bytes[0] = static_cast<uint8_t>(index + 1);
    identity.index = index;
    return identity;
  }

  std::vector<uint8_t> EncodeOnHost(uint32_t index) {
    std::vector<uint8_t> object;
    absl::Status status = reference_->Encode(spec_, Identity(index),
                                             ViewsOf<LayerView>(tensors_, tensors_.host.data()), &object);
    EXPECT_TRUE(status.ok()) << status;
    return object;
  }

  // The object, or what CheckReports says.
  absl::StatusOr<std::vector<uint8_t>> EncodeOnDevice(uint32_t index) {
    const SliceMap& map = shape_.map(index == 0);
    std::vector<uint8_t> object(map.ObjectBytes(map.levels()));
    DeviceBuffer raw = *DeviceBuffer::Allocate(tensors_.host.size()),
                 coded = *DeviceBuffer::Allocate(object.size());
    TqBatch batch = *TqBatch::Create(codec_, TqBatch::Direction::kEncode, shape_.TasksPerBlock());
    BlockTasks tasks;
    CheckOk(tasks.AddEncode(shape_, index == 0, ViewsOf<LayerView>(tensors_, raw.data()), coded.data()));
    CheckOk(batch.Set(tasks.tasks, tasks.rows, spec_));
    fast_tasks_ = batch.fast_tasks();
    all_tasks_ = tasks.tasks.size();
    CheckOk(CopyToDevice(stream_->ref(), tensors_.host.data(), tensors_.host.size(), raw.data()));
    CheckOk(Fill(stream_->ref(), 0xEE, object.size(), coded.data()));
    CheckOk(batch.Run(stream_->ref()));
    CheckOk(CopyToHost(stream_->ref(), coded.data(), object.size(), object.data()));
    CheckOk(stream_->Synchronize());
    if (absl::Status status = batch.CheckReports(); !status.ok()) return status;
    CheckOk(SealObject(shape_, Identity(index), batch, 0, object));
    return object;
  }

  BlockTensors DecodeOnDevice(uint32_t index, int levels, const std::vector<uint8_t>& object,
                              const TensorForm& form) {
    BlockTensors out = MakeTensors(layout_, form);
    DeviceBuffer raw = *DeviceBuffer::Allocate(out.host.size()),
                 coded = *DeviceBuffer::Allocate(object.size());
    TqBatch batch = *TqBatch::Create(codec_, TqBatch::Direction::kDecode, shape_.TasksPerBlock());
    BlockTasks tasks;
    CheckOk(tasks.AddDecode(shape_, index == 0, levels, coded.data(),
                            ViewsOf<MutableLayerView>(out, raw.data())));
    CheckOk(batch.Set(tasks.tasks, tasks.rows, CodecSpec()));
    CheckOk(CopyToDevice(stream_->ref(), object.data(), object.size(), coded.data()));
    CheckOk(Fill(stream_->ref(), 0xFF, out.host.size(), raw.data()));
    CheckOk(batch.Run(stream_->ref()));
    CheckOk(CopyToHost(stream_->ref(), raw.data(), out.host.size(), out.host.data()));
    CheckOk(stream_->Synchronize());
    return out;
  }

  BlockTensors DecodeOnHost(uint32_t index, int levels, const std::vector<uint8_t>& object,
                            const TensorForm& form) {
    BlockTensors out = MakeTensors(layout_, form);
    auto reader = BlockReader::Open(reference_, Identity(index), Bytes(object));
    EXPECT_TRUE(reader.ok()) << reader.status();
    if (!reader.ok()) return out;
    absl::Status verified = reader->Verify();
    EXPECT_TRUE(verified.ok()) << verified;
    auto views = ViewsOf<MutableLayerView>(out, out.host.data());
    for (uint32_t l = 0; l < layout_.layers.size(); ++l) {
      absl::Status status = reader->DecodeLayer(l, levels, views[l]);
      EXPECT_TRUE(status.ok()) << status;
    }
    return out;
  }

  template <typename Visit>
  void ForEachHead(Visit visit) const {
    for (uint32_t l = 0; l < layout_.layers.size(); ++l) {
      for (uint32_t s = 0; s < layout_.layers[l].streams.size(); ++s) {
        for (uint32_t h = 0; h < layout_.layers[l].streams[s].heads; ++h)
          visit(l, s, h, layout_.layers[l].streams[s].dim);
      }
    }
  }

  // Σ (a − b)² and Σ a² over one stream's head.
  std::pair<double, double> Distance(const BlockTensors& a, const BlockTensors& b, uint32_t l, uint32_t s,
                                     uint32_t h, uint32_t dim) const {
    double miss = 0, square = 0;
    for (uint32_t t = 0; t < kBlockTokens; ++t) {
      for (uint32_t c = 0; c < dim; ++c) {
        double x = Get(a, l, s, t, h, c), y = Get(b, l, s, t, h, c);
        miss += (x - y) * (x - y);
        square += x * x;
      }
    }
    return {miss, square};
  }

  Layout layout_;
  Part part_;
  CodecSpec spec_;
  std::shared_ptr<const BlockCodec> reference_;
  BlockShape shape_;
  std::shared_ptr<const TqCodec> codec_;
  std::unique_ptr<Stream> stream_;
  BlockTensors tensors_;
  bool fast_device_ = false;
  size_t fast_tasks_ = 0, all_tasks_ = 0;
};

}  // namespace quire::cuda
