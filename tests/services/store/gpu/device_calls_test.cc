// The gRPC calls of a store with a device, over a device whose memory is the host's.
#include "tests/services/store/gpu/device_calls.h"

#include "quire/v1/codec.grpc.pb.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/gpu/host_device.h"

namespace quire::store {
namespace {

using absl::StatusCode;

class DeviceCalls : public testing::Test {
 protected:
  DeviceCalls() : stub_(served_.served().NewChannel()) {
    buffer_ = *device_->Allocate(kBytes);
    handle_ = device_->Share(buffer_, kBytes);
    EXPECT_TRUE(served_.engine().RegisterLayout(chain_.layout).ok());
  }
  DeviceBufferOptions Buffer() const { return {handle_, 0, kBytes, std::string(16, 'u')}; }
  std::unique_ptr<DeviceClient> Attach() {
    auto client = DeviceClient::Attach(served_.served().NewChannel(), Buffer());
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  absl::Status AttachFails(const DeviceBufferOptions& buffer) {
    return DeviceClient::Attach(served_.served().NewChannel(), buffer).status();
  }
  // Blocks of the chain one after the other in the buffer.
  std::vector<DeviceClient::PutItem> Fill(bool raw) {
    std::vector<DeviceClient::PutItem> items;
    uint64_t at = 0;
    for (size_t i = 0; i < chain_.identities.size(); ++i) {
      const std::vector<uint8_t>& bytes = raw ? chain_.raw[i] : chain_.objects[i];
      std::copy(bytes.begin(), bytes.end(), buffer_.get() + at);
      items.push_back({chain_.identities[i], at, bytes.size()});
      at += (bytes.size() + 255) / 256 * 256;
    }
    return items;
  }
  std::vector<PutOutcome> Put(DeviceClient& client, bool raw) {
    PutOptions options;
    if (raw) options.encode = "tq:k4v4";
    std::vector<PutOutcome> outcomes;
    absl::Status status = client.Put(chain_.ns(), Fill(raw), options, &outcomes);
    EXPECT_TRUE(status.ok()) << status;
    return outcomes;
  }
  void AwaitClosed() {
    while (device_->opened > 0) std::this_thread::yield();
  }

  static constexpr uint64_t kBytes = 2 << 20;
  std::shared_ptr<HostDevice> device_ = std::make_shared<HostDevice>();
  SampleChain chain_{SampleLayout(), 7};
  std::shared_ptr<uint8_t> buffer_;
  std::string handle_;
  ServedDevice served_{device_};
  v1::KvStore::Stub stub_;
};

TEST_F(DeviceCalls, RawKvGoesFromTheClientsBufferIntoTheStoreAndBackDecoded) {
  auto client = Attach();
  for (const PutOutcome& outcome : Put(*client, true)) {
    EXPECT_TRUE(outcome.wanted);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_GT(outcome.stored_bytes, 0u);
  }
  EXPECT_EQ(served_.engine().Stats()->tiers.front().tier, Tier::kGpu);
  EXPECT_EQ(served_.engine().Stats()->tiers.front().blocks, 7u);
  std::fill_n(buffer_.get(), kBytes, 0);
  std::vector<DeviceClient::GetItem> items;
  for (const BlockIdentity& identity : chain_.identities) items.push_back({identity});
  ASSERT_TRUE(client->Get(chain_.ns(), items, {}, DType::kBf16, 512, kBytes - 512).ok());
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_TRUE(items[i].status.ok()) << items[i].status;
    EXPECT_EQ(items[i].offset % 256, 0u);
    EXPECT_GE(items[i].offset, 512u);
    EXPECT_EQ(items[i].bytes, chain_.raw[i].size());
    EXPECT_EQ(items[i].levels, 3u);
    EXPECT_LT(RawDistance(DType::kBf16, {buffer_.get() + items[i].offset, items[i].bytes}, chain_.raw[i]),
              kFourBits);
  }
  EXPECT_EQ(device_->decoded, 7u);
}

TEST_F(DeviceCalls, CodesGoInAndOut) {
  auto client = Attach();
  for (const PutOutcome& outcome : Put(*client, false)) EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  std::fill_n(buffer_.get(), kBytes, 0);
  std::vector<DeviceClient::GetItem> items;
  for (const BlockIdentity& identity : chain_.identities) items.push_back({identity});
  BlockIdentity unknown = chain_.identities[0];
  unknown.key.bytes[0] ^= 1;
  items.push_back({unknown});
  GetOptions options;
  options.max_bits = 3;
  ASSERT_TRUE(client->Get(chain_.ns(), items, options, std::nullopt, 0, kBytes).ok());
  EXPECT_EQ(items.back().status.code(), StatusCode::kNotFound);
  items.pop_back();
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_TRUE(items[i].status.ok()) << items[i].status;
    EXPECT_EQ(items[i].levels, 2u);
    ASSERT_LT(items[i].bytes, chain_.objects[i].size());
    EXPECT_TRUE(std::equal(buffer_.get() + items[i].offset, buffer_.get() + items[i].offset + items[i].bytes,
                           chain_.objects[i].begin()));
  }
  // Put again: nothing is wanted.
  for (const PutOutcome& outcome : Put(*client, false)) EXPECT_FALSE(outcome.wanted);
}

TEST_F(DeviceCalls, WhatFindsNoRoomInTheBufferIsSaid) {
  auto client = Attach();
  Put(*client, true);
  std::vector<DeviceClient::GetItem> items;
  for (const BlockIdentity& identity : chain_.identities) items.push_back({identity});
  const uint64_t room = 2 * chain_.raw[0].size() + 100;
  ASSERT_TRUE(client->Get(chain_.ns(), items, {}, DType::kBf16, 0, room).ok());
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(items[i].status.code(), i < 2 ? StatusCode::kOk : StatusCode::kResourceExhausted) << i;
    EXPECT_LE(items[i].offset + items[i].bytes, room);
  }
}

TEST_F(DeviceCalls, OnlyTheClientsOwnBufferIsTouched) {
  auto client = Attach();
  PutOptions options;
  options.encode = "tq:k4v4";
  std::vector<PutOutcome> outcomes;
  for (uint64_t offset : {kBytes - 256, kBytes, uint64_t{1} << 40, UINT64_MAX - 255, uint64_t{8}}) {
    std::vector<DeviceClient::PutItem> items = Fill(true);
    items[2].offset = offset;
    absl::Status status = client->Put(chain_.ns(), items, options, &outcomes);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << offset << status;
  }
  std::vector<DeviceClient::GetItem> items{{chain_.identities[0]}};
  EXPECT_EQ(client->Get(chain_.ns(), items, {}, DType::kBf16, kBytes, 1).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(client->Get(chain_.ns(), items, {}, DType::kBf16, 256, kBytes).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(client->Get(chain_.ns(), items, {}, DType::kBf16, UINT64_MAX - 10, 100).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(DeviceCalls, RefusesWhatIsNoBuffer) {
  DeviceBufferOptions buffer = Buffer();
  buffer.bytes = kBytes + 1;
  EXPECT_EQ(AttachFails(buffer).code(), StatusCode::kInvalidArgument);
  buffer = Buffer();
  buffer.bytes = 0;
  EXPECT_EQ(AttachFails(buffer).code(), StatusCode::kInvalidArgument);
  buffer = Buffer();
  buffer.offset = 100;
  EXPECT_EQ(AttachFails(buffer).code(), StatusCode::kInvalidArgument);
  buffer = Buffer();
  buffer.ipc_handle = "short";
  EXPECT_EQ(AttachFails(buffer).code(), StatusCode::kInvalidArgument);
  buffer = Buffer();
  buffer.device_uuid = std::string(16, 'x');
  EXPECT_EQ(AttachFails(buffer).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(device_->opened, 0);

  ServedStore without(SmallStore());
  absl::Status none = DeviceClient::Attach(without.NewChannel(), Buffer()).status();
  EXPECT_EQ(none.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), testing::HasSubstr("no GPU"));
}

TEST_F(DeviceCalls, AClientThatGoesFreesItsBuffer) {
  {
    auto client = Attach();
    Put(*client, true);
    EXPECT_EQ(device_->opened, 1);
  }
  AwaitClosed();
  // And its name is worth nothing any more.
  auto client = Attach();
  const std::string arena = client->arena();
  client.reset();
  AwaitClosed();
  v1::GetRequest request;
  ToProto(chain_.ns(), request.mutable_namespace_());
  ToProto(chain_.identities[0], 0, request.add_blocks());
  request.set_arena(arena);
  grpc::ClientContext context;
  auto stream = stub_.Get(&context, request);
  v1::GetResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(DeviceCalls, ChunksThatMakeNoSense) {
  auto client = Attach();
  auto fails = [&](const std::function<void(v1::BlockData&)>& spoil, int times) {
    v1::PutRequest request;
    v1::PutAnnounce* announce = request.mutable_announce();
    ToProto(chain_.ns(), announce->mutable_namespace_());
    ToProto(chain_.identities[0], chain_.raw[0].size(), announce->add_blocks());
    announce->set_encode("tq:k4v4");
    announce->set_arena(client->arena());
    grpc::ClientContext context;
    auto stream = stub_.Put(&context);
    v1::PutResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
    v1::BlockData* data = request.mutable_data();
    data->mutable_arena_range()->set_length(chain_.raw[0].size());
    spoil(*data);
    for (int i = 0; i < times; ++i) stream->Write(request);
    stream->WritesDone();
    while (stream->Read(&response)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  };
  fails([](v1::BlockData& d) { d.set_block(1); }, 1);
  fails([](v1::BlockData& d) { d.set_block(UINT32_MAX); }, 1);
  fails([](v1::BlockData& d) { d.set_offset(256); }, 1);
  fails([](v1::BlockData& d) { d.mutable_arena_range()->set_length(100); }, 1);
  fails([](v1::BlockData& d) { d.set_data("x"); }, 1);
  fails(
      [](v1::BlockData& d) {
        d.clear_arena_range();
        d.set_data(std::string(1000, 'x'));
      },
      1);
  fails([](v1::BlockData&) {}, 2);
}

TEST_F(DeviceCalls, TensorsForOtherClientsAreDecodedOnTheDevice) {
  RemoteStore remote(served_.served().NewChannel());
  ASSERT_TRUE(PutChain(remote, chain_).ok());
  for (v1::GetRequest::Order order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER}) {
    for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
      std::vector<std::vector<uint8_t>> got = GetDecoded(stub_, chain_, order, dtype);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].size(), RawFormBytes(chain_.layout, chain_.part, dtype));
        std::vector<uint8_t> twin(got[i].size());
        auto reader = BlockReader::Open(chain_.codec, chain_.identities[i], chain_.objects[i]);
        MutableBytes out(twin);
        for (uint32_t l = 0; l < chain_.part.layers(); ++l) {
          uint64_t bytes = RawLayerBytes(chain_.layout, chain_.part, l, dtype);
          ASSERT_TRUE(
              DecodeRawLayer(chain_.layout, *reader, 3, chain_.part, l, dtype, out.first(bytes)).ok());
          out = out.subspan(bytes);
        }
        EXPECT_EQ(got[i], twin);
      }
    }
  }
  EXPECT_GT(device_->decoded, 0u);
  // A share of the heads is taken apart on the host.
  std::vector<std::vector<uint8_t>> half =
      GetDecoded(stub_, chain_, v1::GetRequest::BY_LAYER, DType::kBf16, {0, 2, 1, 2});
  EXPECT_EQ(half[0].size(), chain_.raw[0].size() / 2);
}

TEST_F(DeviceCalls, TheCodecServiceCodesThere) {
  auto codec = v1::Codec::NewStub(served_.served().NewChannel());
  grpc::ClientContext context;
  auto stream = codec->Encode(&context);
  v1::EncodeRequest request;
  ToProto(chain_.layout, request.mutable_start()->mutable_layout());
  request.mutable_start()->set_codec("tq:k4v4");
  request.mutable_start()->set_dtype(ToProto(DType::kBf16));
  ASSERT_TRUE(stream->Write(request));
  request.mutable_data()->set_data(std::string(chain_.raw[0].begin(), chain_.raw[0].end()));
  request.mutable_data()->set_last(true);
  ASSERT_TRUE(stream->Write(request));
  stream->WritesDone();
  v1::CodecData data;
  std::string object;
  while (stream->Read(&data)) object += data.data();
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(object.size(), chain_.objects[0].size());
  EXPECT_EQ(device_->encoded, 1u);
  auto reader = BlockReader::OpenAny(chain_.codec, AsBytes(object));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(reader->Verify().ok());
}

}  // namespace
}  // namespace quire::store
