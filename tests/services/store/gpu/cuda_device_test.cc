// A GPU as the store's device: objects made there are whole and right, checksums included; memory is shared
// between processes and checked.
#include "services/store/gpu/cuda_device.h"

#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <random>

#include "cuda/memory.h"
#include "gmock/gmock.h"
#include "services/store/engine/raw_form.h"
#include "tests/services/store/gpu/other_process.h"
#include "tests/services/store/gpu/raw_distance.h"

namespace quire::store {
namespace {

LayerLayout Plain(uint32_t heads, uint32_t dim) {
  return {{{StreamKind::kKey, heads, dim, 0}, {StreamKind::kValue, heads, dim, 0}}};
}
LayerLayout Latent(uint32_t dim) { return {{{StreamKind::kLatent, 1, dim, 0}}}; }

struct Blocks {
  Layout layout;
  Part part;
  std::shared_ptr<const BlockCodec> codec;
  std::vector<BlockIdentity> identities;
  std::vector<std::vector<uint8_t>> raw;

  Blocks(std::vector<LayerLayout> layers, uint32_t count, DType dtype = DType::kBf16) {
    layout.layers = std::move(layers);
    layout.dtype = dtype;
    part = Part::Whole(layout);
    codec = *BlockCodec::Create(layout, part);
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (uint32_t i = 0; i < count; ++i) {
      BlockIdentity identity;
      identity.key.bytes[3] = static_cast<uint8_t>(i + 1);
      identity.parent.bytes[5] = static_cast<uint8_t>(i);
      identity.index = i;
      identities.push_back(identity);
      std::vector<uint8_t>& block = raw.emplace_back(RawFormBytes(layout, part, dtype));
      for (size_t e = 0; e < block.size() / SizeOf(dtype); ++e)
        StoreElement(dtype, block.data(), e, normal(random));
    }
  }
  CodedForm form() const { return {&layout, codec->fingerprint(), part}; }
};

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    CudaDeviceOptions options;
    options.staging_bytes = 8 << 20;
    options.batch_blocks = 6;
    absl::StatusOr<std::shared_ptr<CudaDevice>> device = CudaDevice::Create(options);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *device;
  }
  std::shared_ptr<uint8_t> OnDevice(Bytes content) {
    std::shared_ptr<uint8_t> memory = *device_->Allocate(content.size());
    Device::Copy up{content.data(), memory.get(), content.size()};
    EXPECT_TRUE(device_->CopyAll({&up, 1}).ok());
    return memory;
  }
  std::vector<uint8_t> OnHost(const uint8_t* memory, uint64_t bytes) {
    std::vector<uint8_t> out(bytes);
    Device::Copy down{memory, out.data(), bytes};
    EXPECT_TRUE(device_->CopyAll({&down, 1}).ok());
    return out;
  }
  static std::vector<uint8_t> DecodeOnHost(const Blocks& blocks, const BlockReader& reader, int levels) {
    std::vector<uint8_t> out(RawFormBytes(blocks.layout, blocks.part, blocks.layout.dtype));
    uint64_t at = 0;
    for (uint32_t l = 0; l < blocks.part.layers(); ++l) {
      uint64_t bytes = RawLayerBytes(blocks.layout, blocks.part, l, blocks.layout.dtype);
      EXPECT_TRUE(DecodeRawLayer(blocks.layout, reader, levels, blocks.part, l, blocks.layout.dtype,
                                 MutableBytes(out).subspan(at, bytes))
                      .ok());
      at += bytes;
    }
    return out;
  }

  // Encodes every block on the device, half of them from there; checks objects, headers and decodings against
  // the host's.
  void RoundTrip(const Blocks& blocks, const std::string& text, double most) {
    SCOPED_TRACE(text);
    const CodecSpec spec = *CodecSpec::Parse(text);
    const DType dtype = blocks.layout.dtype;
    std::vector<std::shared_ptr<uint8_t>> raws, objects;
    std::vector<uint64_t> sizes;
    std::vector<Device::EncodeJob> jobs;
    for (size_t i = 0; i < blocks.raw.size(); ++i) {
      auto bytes = device_->EncodedBytes(blocks.form(), spec, dtype, i == 0);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      sizes.push_back(*bytes);
      objects.push_back(*device_->Allocate(*bytes));
      raws.push_back(i % 2 == 0 ? OnDevice(blocks.raw[i]) : nullptr);
      jobs.push_back({blocks.identities[i],
                      i % 2 == 0 ? raws[i].get() : blocks.raw[i].data(),
                      i % 2 == 0,
                      objects[i].get(),
                      {},
                      {}});
    }
    device_->Encode(blocks.form(), spec, dtype, jobs);
    for (size_t i = 0; i < jobs.size(); ++i) {
      ASSERT_TRUE(jobs[i].status.ok()) << jobs[i].status;
      std::vector<uint8_t> object = OnHost(objects[i].get(), sizes[i]);
      auto reader = BlockReader::Open(blocks.codec, blocks.identities[i], object);
      ASSERT_TRUE(reader.ok()) << reader.status();
      ASSERT_TRUE(reader->Verify().ok()) << reader->Verify();
      EXPECT_EQ(SerializeHeader(jobs[i].header), SerializeHeader(reader->header()));
      EXPECT_LT(RawDistance(dtype, DecodeOnHost(blocks, *reader, reader->levels()), blocks.raw[i]), most);
      for (int levels = 1; levels <= reader->levels(); ++levels) {
        std::vector<uint8_t> twin = DecodeOnHost(blocks, *reader, levels), out(twin.size());
        std::shared_ptr<uint8_t> there = OnDevice(out);
        std::vector<Device::DecodeJob> decodes{
            {&jobs[i].header, levels, objects[i].get(), there.get(), true, {}},
            {&jobs[i].header, levels, objects[i].get(), out.data(), false, {}}};
        device_->Decode(blocks.form(), 0, blocks.part.layers(), dtype, decodes);
        ASSERT_TRUE(decodes[0].status.ok()) << decodes[0].status;
        ASSERT_TRUE(decodes[1].status.ok()) << decodes[1].status;
        EXPECT_EQ(OnHost(there.get(), out.size()), out);
        EXPECT_LT(RawDistance(dtype, out, twin), 2e-5) << levels;
      }
    }
  }

  std::shared_ptr<CudaDevice> device_;
};

TEST_F(CudaDeviceTest, ObjectsOfTheShapesThatModelsHave) {
  RoundTrip(Blocks({Plain(8, 128), Plain(8, 128), Plain(8, 128)}, 15), "tq:k4v4", 0.0125);
  RoundTrip(Blocks({Plain(3, 64), Plain(3, 64)}, 5), "tq:k3v2", 0.13);
  RoundTrip(Blocks({Plain(2, 80), Plain(2, 96)}, 3), "tq:k8v8", 1e-4);
  RoundTrip(Blocks({Plain(4, 256)}, 3), "tq:k4v4", 0.0125);
  RoundTrip(Blocks({Plain(2, 128)}, 3, DType::kF16), "tq:k4v4", 0.0125);
  RoundTrip(Blocks({Plain(2, 64)}, 3, DType::kF32), "tq:k4v4", 0.0125);
}

// Latents of 16 have slices of the lengths that XXH3 treats in ways of their own.
TEST_F(CudaDeviceTest, ObjectsWithShortSlices) {
  RoundTrip(Blocks({Latent(16), Latent(32), Latent(48), Latent(576)}, 3), "tq:k4v4", 0.0145);
  RoundTrip(Blocks({Latent(16), Latent(64)}, 3), "tq:k8v8", 5e-4);
  RoundTrip(Blocks({Plain(1, 16), Plain(5, 48)}, 3), "tq:k3v2", 0.14);
}

TEST_F(CudaDeviceTest, ObjectsOfTheOtherCodecs) {
  for (auto [spec, most] : {std::pair{"fp8", 1.5e-3}, {"raw", 1e-12}, {"tq_prod:k4v4", 0.08}})
    RoundTrip(Blocks({Plain(2, 64), Plain(4, 128)}, 4), spec, most);
}

TEST_F(CudaDeviceTest, ABlockWithAnInfinityFailsAlone) {
  Blocks blocks({Plain(2, 64), Plain(2, 64)}, 5);
  StoreElement(DType::kBf16, blocks.raw[3].data(), 64 * 2 * 64 * 3 + 10,
               std::numeric_limits<float>::infinity());
  const CodecSpec spec = *CodecSpec::Parse("tq:k4v4");
  std::vector<std::shared_ptr<uint8_t>> objects;
  std::vector<Device::EncodeJob> jobs;
  for (size_t i = 0; i < 5; ++i) {
    objects.push_back(*device_->Allocate(*device_->EncodedBytes(blocks.form(), spec, DType::kBf16, i == 0)));
    jobs.push_back({blocks.identities[i], blocks.raw[i].data(), false, objects[i].get(), {}, {}});
  }
  device_->Encode(blocks.form(), spec, DType::kBf16, jobs);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(jobs[i].status.ok(), i != 3) << jobs[i].status;
  EXPECT_EQ(jobs[3].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(jobs[3].status.message()), testing::HasSubstr("layer 1, head 0, token 0: V"));
}

TEST_F(CudaDeviceTest, ALayerAtATime) {
  Blocks blocks({Plain(2, 64), Plain(4, 128), Plain(2, 80)}, 2);
  const CodecSpec spec = *CodecSpec::Parse("tq:k4v4");
  std::vector<uint8_t> all(RawFormBytes(blocks.layout, blocks.part, DType::kBf16)), layers(all.size());
  std::shared_ptr<uint8_t> object =
      *device_->Allocate(*device_->EncodedBytes(blocks.form(), spec, DType::kBf16, false));
  Device::EncodeJob encode{blocks.identities[1], blocks.raw[1].data(), false, object.get(), {}, {}};
  device_->Encode(blocks.form(), spec, DType::kBf16, {&encode, 1});
  ASSERT_TRUE(encode.status.ok()) << encode.status;
  Device::DecodeJob whole{&encode.header, 3, object.get(), all.data(), false, {}};
  device_->Decode(blocks.form(), 0, 3, DType::kBf16, {&whole, 1});
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  uint8_t* to = layers.data();
  for (uint32_t l = 0; l < 3; ++l) {
    Device::DecodeJob one{&encode.header, 3, object.get(), to, false, {}};
    device_->Decode(blocks.form(), l, l + 1, DType::kBf16, {&one, 1});
    ASSERT_TRUE(one.status.ok()) << one.status;
    to += RawLayerBytes(blocks.layout, blocks.part, l, DType::kBf16);
  }
  EXPECT_EQ(layers, all);
}

TEST_F(CudaDeviceTest, SaysWhatItDoesNotDo) {
  Blocks blocks({Plain(2, 64)}, 1);
  EXPECT_EQ(
      device_->EncodedBytes(blocks.form(), *CodecSpec::Parse("raw"), DType::kF16, false).status().code(),
      absl::StatusCode::kUnimplemented);
  Blocks large({Plain(64, 512)}, 0);
  EXPECT_EQ(
      device_->EncodedBytes(large.form(), *CodecSpec::Parse("tq:k4v4"), DType::kF32, false).status().code(),
      absl::StatusCode::kUnimplemented);
  absl::Status memory = device_->Allocate(uint64_t{1} << 50).status();
  EXPECT_EQ(memory.code(), absl::StatusCode::kResourceExhausted) << memory;
  EXPECT_THAT(std::string(memory.message()), testing::HasSubstr("bytes left"));
}

TEST_F(CudaDeviceTest, PinsMemoryOfOthers) {
  std::vector<uint8_t> memory(8 << 20);
  auto pinned = device_->PinHost(memory);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_FALSE(device_->PinHost(memory).ok());  // it is
  pinned->reset();
  EXPECT_TRUE(device_->PinHost(memory).ok());
}

constexpr uint64_t kSharedBytes = 3 << 20, kSharedAt = 1 << 20;

// In the other process: tells its buffer's name, then, when asked, what the buffer's first byte is.
int ShareABuffer() {
  auto memory = cuda::DeviceBuffer::Allocate(kSharedAt + kSharedBytes);
  auto stream = cuda::Stream::Create();
  if (!memory.ok() || !stream.ok()) return 1;
  uint8_t* buffer = memory->data() + kSharedAt;
  if (!cuda::Fill(stream->ref(), 0x5A, kSharedBytes, buffer).ok() || !stream->Synchronize().ok()) return 1;
  auto name = CudaDevice::Share(buffer, kSharedBytes);
  if (!name.ok() || name->offset != kSharedAt) return 1;
  std::string text = name->ipc_handle + name->device_uuid;
  if (write(1, text.data(), text.size()) != static_cast<ssize_t>(text.size())) return 1;
  char go;
  while (read(0, &go, 1) == 1) {
    uint8_t first = 0;
    if (!cuda::CopyToHost(stream->ref(), buffer, 1, &first).ok() || !stream->Synchronize().ok()) return 1;
    if (write(1, &first, 1) != 1) return 1;
  }
  return 0;
}

TEST_F(CudaDeviceTest, OpensABufferOfAnotherProcess) {
  OtherProcess other("QUIRE_SHARE_A_BUFFER", "1");
  std::string text = other.Read(80);
  if (text.empty()) GTEST_SKIP() << "no second process can use the GPU here";
  DeviceBufferName name{text.substr(0, 64), kSharedAt, kSharedBytes, text.substr(64)};
  auto buffer = device_->Open(name);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(OnHost(buffer->get(), kSharedBytes), std::vector<uint8_t>(kSharedBytes, 0x5A));
  uint8_t mine = 0x77;
  Device::Copy copy{&mine, buffer->get(), 1};
  ASSERT_TRUE(device_->CopyAll({&copy, 1}).ok());
  ASSERT_TRUE(other.Say('?'));
  EXPECT_EQ(other.Read(1), "\x77");

  DeviceBufferName wrong = name;
  wrong.bytes = uint64_t{1} << 40;
  EXPECT_EQ(device_->Open(wrong).status().code(), absl::StatusCode::kInvalidArgument);
  wrong = name;
  wrong.offset = uint64_t{1} << 40;
  EXPECT_EQ(device_->Open(wrong).status().code(), absl::StatusCode::kInvalidArgument);
  wrong = name;
  wrong.ipc_handle.resize(63);
  EXPECT_EQ(device_->Open(wrong).status().code(), absl::StatusCode::kInvalidArgument);
  wrong = name;
  wrong.device_uuid[0] ^= 1;
  EXPECT_EQ(device_->Open(wrong).status().code(), absl::StatusCode::kFailedPrecondition);
  wrong = name;
  std::fill(wrong.ipc_handle.begin(), wrong.ipc_handle.end(), 0x11);
  EXPECT_FALSE(device_->Open(wrong).ok());

  // Its death takes nothing from under a copy.
  other.Kill();
  EXPECT_EQ(OnHost(buffer->get() + 1, 100), std::vector<uint8_t>(100, 0x5A));
}

}  // namespace
}  // namespace quire::store

int main(int argc, char** argv) {
  if (std::getenv("QUIRE_SHARE_A_BUFFER") != nullptr) return quire::store::ShareABuffer();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
