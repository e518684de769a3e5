// What a store with a device must do, whatever the device. A test file includes this and says which:
//
//   INSTANTIATE_TEST_SUITE_P(Host, DeviceStore, testing::Values(DeviceBackend{"host", &Open}), DeviceName);
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "services/store/engine/device_tier.h"
#include "services/store/engine/local_store.h"
#include "services/store/engine/put_session.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {

struct DeviceBackend {
  std::string name;
  std::function<std::shared_ptr<Device>()> open;  // null: the test is skipped
};
inline std::string DeviceName(const testing::TestParamInfo<DeviceBackend>& info) { return info.param.name; }

// Bytes on a device.
class DeviceBytes {
 public:
  DeviceBytes(Device& device, uint64_t bytes)
      : device_(device), memory_(*device.Allocate(bytes)), bytes_(bytes) {}
  DeviceBytes(Device& device, Bytes content) : DeviceBytes(device, content.size()) {
    Device::Copy up{content.data(), memory_.get(), bytes_};
    EXPECT_TRUE(device_.CopyAll({&up, 1}).ok());
  }
  uint8_t* data() const { return memory_.get(); }
  std::vector<uint8_t> Content() const {
    std::vector<uint8_t> out(bytes_);
    Device::Copy down{memory_.get(), out.data(), bytes_};
    EXPECT_TRUE(device_.CopyAll({&down, 1}).ok());
    return out;
  }

 private:
  Device& device_;
  std::shared_ptr<uint8_t> memory_;
  uint64_t bytes_;
};

class DeviceStore : public testing::TestWithParam<DeviceBackend> {
 protected:
  void SetUp() override {
    device_ = GetParam().open();
    if (device_ == nullptr) GTEST_SKIP() << "no " << GetParam().name << " here";
    Start(16 << 20, 16 << 20);
  }
  void TearDown() override {
    if (store_ != nullptr) EXPECT_TRUE(store_->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
  }
  void Start(uint64_t gpu_bytes, uint64_t host_bytes) {
    store_.reset();
    LocalStoreOptions options;
    options.host_bytes = host_bytes;
    options.gpu = *DeviceTier::Create(device_, gpu_bytes);
    store_ = *LocalStore::Create(options);
  }

  std::unique_ptr<LocalPutSession> Begin(const SampleChain& chain, bool raw,
                                         const std::string& spec = "tq:k4v4") {
    EXPECT_TRUE(store_->RegisterLayout(chain.layout).ok());
    PutOptions options;
    if (raw) options.encode = spec;
    auto session =
        store_->BeginLocalPut(chain.ns(), raw ? chain.raw_announces() : chain.announces(), options);
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }
  // All blocks from device memory, in one batch.
  std::vector<absl::Status> PutFromDevice(const SampleChain& chain, bool raw,
                                          const std::string& spec = "tq:k4v4") {
    std::unique_ptr<LocalPutSession> session = Begin(chain, raw, spec);
    std::vector<DeviceBytes> memory;
    std::vector<LocalPutSession::DeviceSource> sources;
    for (uint32_t i : session->wanted()) {
      memory.emplace_back(*device_, raw ? Bytes(chain.raw[i]) : Bytes(chain.objects[i]));
      sources.push_back({i, memory.back().data()});
    }
    session->CommitFromDevice(sources);
    std::vector<absl::Status> out;
    for (auto& source : sources) {
      out.push_back(source.stored.status());
      // Asked again, the same answer.
      EXPECT_EQ(session->Commit(source.block).status(), source.stored.status());
    }
    return out;
  }
  std::vector<BlockState> Look(const SampleChain& chain) {
    LookupOptions options;
    options.all = true;
    return store_->Lookup(chain.ns(), chain.keys(), options)->blocks;
  }
  TierStats StatsOf(Tier tier) {
    const StoreStats stats = *store_->Stats();
    for (const TierStats& t : stats.tiers) {
      if (t.tier == tier) return t;
    }
    return {};
  }
  // ‖decoded − raw‖² / ‖raw‖² of an object that a Get handed out, which is verified on the way.
  static double Distance(const SampleChain& chain, uint32_t block, Bytes object) {
    auto reader = BlockReader::Open(chain.codec, chain.identities[block], object);
    EXPECT_TRUE(reader.ok()) << reader.status();
    if (!reader.ok()) return 1;
    EXPECT_TRUE(reader->Verify().ok()) << reader->Verify();
    std::vector<uint8_t> decoded(chain.raw[block].size());
    MutableBytes out(decoded);
    for (uint32_t l = 0; l < chain.part.layers(); ++l) {
      uint64_t bytes = RawLayerBytes(chain.layout, chain.part, l, chain.layout.dtype);
      EXPECT_TRUE(DecodeRawLayer(chain.layout, *reader, reader->levels(), chain.part, l, chain.layout.dtype,
                                 out.first(bytes))
                      .ok());
      out = out.subspan(bytes);
    }
    return Distance(chain, decoded, chain.raw[block]);
  }
  static double Distance(const SampleChain& chain, Bytes a, Bytes b) {
    double miss = 0, square = 0;
    for (size_t e = 0; e < a.size() / SizeOf(chain.layout.dtype); ++e) {
      double x = LoadElement(chain.layout.dtype, a.data(), e),
             y = LoadElement(chain.layout.dtype, b.data(), e);
      miss += (x - y) * (x - y);
      square += y * y;
    }
    return miss / square;
  }

  std::shared_ptr<Device> device_;
  std::shared_ptr<LocalStore> store_;
};

// Files that only want the fixture's parts include this, too.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceStore);

// At 4 bits a coordinate the mean squared error is below a hundredth of the vector's.
inline constexpr double kFourBits = 0.0125;

TEST_P(DeviceStore, RawKvOverTheWireIsEncodedOnTheDevice) {
  SampleChain chain(SampleLayout(), 5);
  auto session = Begin(chain, true);
  ASSERT_EQ(session->wanted().size(), 5u);
  for (uint32_t i : session->wanted()) ASSERT_TRUE(WriteAndCommit(*session, i, chain.raw[i]).ok());
  EXPECT_EQ(StatsOf(Tier::kGpu).blocks, 5u);
  for (const BlockState& state : Look(chain)) {
    EXPECT_EQ(state.state, BlockState::kHit);
    EXPECT_EQ(state.tier, Tier::kGpu);
    EXPECT_EQ(state.levels, 3u);
    EXPECT_EQ(state.codec, "tq:k4v4");
    EXPECT_GT(state.fetch_us, 0u);
  }
  Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
  ASSERT_TRUE(gotten.status.ok()) << gotten.status;
  for (uint32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(gotten.objects[i].size(), chain.objects[i].size());
    EXPECT_LT(Distance(chain, i, gotten.objects[i]), kFourBits) << i;
  }
}

TEST_P(DeviceStore, RawKvOnTheDeviceStaysThere) {
  SampleChain chain(SampleLayout(), 9);
  for (const absl::Status& status : PutFromDevice(chain, true)) EXPECT_TRUE(status.ok()) << status;
  for (const BlockState& state : Look(chain)) EXPECT_EQ(state.tier, Tier::kGpu);
  Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
  for (uint32_t i = 0; i < 9; ++i) EXPECT_LT(Distance(chain, i, gotten.objects[i]), kFourBits) << i;
  // Stored: not wanted a second time.
  EXPECT_TRUE(Begin(chain, true)->wanted().empty());
}

TEST_P(DeviceStore, CodesOnTheDeviceAreVerifiedAndComeBackAsTheyWere) {
  SampleChain chain(SampleLayout(), 4);
  for (const absl::Status& status : PutFromDevice(chain, false)) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(GetAll(*store_, chain.ns(), chain.identities).objects, chain.objects);

  SampleChain bad(SampleLayout(), 3, "tq:k4v4", 7);
  bad.objects[1][bad.objects[1].size() / 2] ^= 1;
  std::vector<absl::Status> put = PutFromDevice(bad, false);
  EXPECT_TRUE(put[0].ok()) << put[0];
  EXPECT_EQ(put[1].code(), absl::StatusCode::kDataLoss) << put[1];
  EXPECT_EQ(put[2].code(), absl::StatusCode::kFailedPrecondition) << put[2];
  EXPECT_EQ(StoredPrefix(*store_, bad), 1u);
}

TEST_P(DeviceStore, ABlockWithANanHarmsItsDescendantsOnly) {
  SampleChain chain(SampleLayout(), 4);
  StoreElement(chain.layout.dtype, chain.raw[2].data(), 77, std::numeric_limits<float>::quiet_NaN());
  std::vector<absl::Status> put = PutFromDevice(chain, true);
  EXPECT_TRUE(put[0].ok()) << put[0];
  EXPECT_TRUE(put[1].ok()) << put[1];
  EXPECT_EQ(put[2].code(), absl::StatusCode::kInvalidArgument) << put[2];
  EXPECT_THAT(std::string(put[2].message()), testing::HasSubstr("layer 0"));
  EXPECT_EQ(put[3].code(), absl::StatusCode::kFailedPrecondition) << put[3];
  EXPECT_EQ(StoredPrefix(*store_, chain), 2u);
  // And gives all its room back.
  ASSERT_TRUE(store_->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
  ASSERT_EQ(*store_->Delete(chain.ns(), chain.keys(), true), 2u);
  EXPECT_EQ(StatsOf(Tier::kGpu).used_bytes, 0u);
  EXPECT_EQ(StatsOf(Tier::kHost).used_bytes, 0u);
}

TEST_P(DeviceStore, ABlockOfTheHostIsBroughtUpForAReaderOnTheDevice) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(*store_, chain).ok());
  for (const BlockState& state : Look(chain)) EXPECT_EQ(state.tier, Tier::kHost);
  auto view = *store_->Resolve(chain.ns(), {});
  for (uint32_t i = 0; i < 3; ++i) {
    auto block = store_->OpenOnDevice(view, chain.identities[i]);
    ASSERT_TRUE(block.ok()) << block.status();
    std::vector<uint8_t> bytes(block->object->record.bytes());
    Device::Copy down{block->data.get(), bytes.data(), bytes.size()};
    ASSERT_TRUE(device_->CopyAll({&down, 1}).ok());
    EXPECT_EQ(bytes, chain.objects[i]);
    ASSERT_NE(block->object->header, nullptr);
    EXPECT_EQ(block->object->header->identity, chain.identities[i]);
  }
  for (const BlockState& state : Look(chain)) EXPECT_EQ(state.tier, Tier::kGpu);
  BlockIdentity unknown = chain.identities[0];
  unknown.key.bytes[0] ^= 1;
  EXPECT_EQ(store_->OpenOnDevice(view, unknown).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(DeviceStore, PrefetchBringsBlocksUp) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(*store_, chain).ok());
  EXPECT_EQ(*store_->Prefetch(chain.ns(), chain.keys(), Tier::kHost), 0u);
  EXPECT_EQ(*store_->Prefetch(chain.ns(), chain.keys(), Tier::kGpu), 3u);
  ASSERT_TRUE(store_->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
  for (const BlockState& state : Look(chain)) EXPECT_EQ(state.tier, Tier::kGpu);
  EXPECT_EQ(*store_->Prefetch(chain.ns(), chain.keys(), Tier::kNone), 0u);
}

TEST_P(DeviceStore, WhatTheDeviceGivesUpIsWholeInTheHostsArena) {
  Start(1 << 20, 32 << 20);
  // About five times what the device holds.
  SampleChain chain(SampleLayout(8), 40);
  for (const absl::Status& status : PutFromDevice(chain, true)) ASSERT_TRUE(status.ok()) << status;
  int on_device = 0;
  for (const BlockState& state : Look(chain)) {
    EXPECT_EQ(state.state, BlockState::kHit);
    EXPECT_EQ(state.levels, 3u);
    on_device += state.tier == Tier::kGpu ? 1 : 0;
  }
  EXPECT_GT(on_device, 0);
  EXPECT_LT(on_device, 20);
  EXPECT_LE(StatsOf(Tier::kGpu).used_bytes, uint64_t{1} << 20);
  Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
  for (uint32_t i = 0; i < 40; ++i) EXPECT_LT(Distance(chain, i, gotten.objects[i]), kFourBits) << i;
}

TEST_P(DeviceStore, WhereTheHostHasNoRoomBlocksOnTheDeviceLoseBitsFirst) {
  Start(1 << 20, 1 << 20);
  constexpr uint32_t kBlocks = 31;
  SampleChain chain(SampleLayout(8), kBlocks);
  ASSERT_GT(chain.objects[1].size() * kBlocks, uint64_t{2} << 20);
  for (const absl::Status& status : PutFromDevice(chain, true)) ASSERT_TRUE(status.ok()) << status;
  std::vector<BlockState> states = Look(chain);
  EXPECT_TRUE(std::any_of(states.begin(), states.end(), [](const BlockState& s) { return s.levels == 2; }));
  Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
  ASSERT_TRUE(gotten.status.ok()) << gotten.status;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    if (gotten.misses[i] == absl::StatusCode::kOk) {
      EXPECT_LT(Distance(chain, i, gotten.objects[i]), 4.5 * kFourBits) << i;
    }
  }
}

TEST_P(DeviceStore, TheScrubFindsWrongBytesOnTheDevice) {
  SampleChain chain(SampleLayout(), 4);
  for (const absl::Status& status : PutFromDevice(chain, true)) ASSERT_TRUE(status.ok()) << status;
  ASSERT_TRUE(store_->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
  auto view = *store_->Resolve(chain.ns(), {});
  {
    auto block = store_->OpenOnDevice(view, chain.identities[1]);
    ASSERT_TRUE(block.ok());
    uint8_t wrong[16] = {1, 2, 3};
    ASSERT_TRUE(block->object->room->Write(block->object->record.bytes() - 100, wrong).ok());
  }
  LocalStore::VerifyProgress last;
  ASSERT_TRUE(store_
                  ->Verify(Tier::kGpu, 0,
                           [&](const LocalStore::VerifyProgress& p) {
                             last = p;
                             return true;
                           })
                  .ok());
  EXPECT_EQ(last.blocks, 4u);
  EXPECT_EQ(last.failures, 1u);
  // The host's copy, made before, is right.
  EXPECT_EQ(Look(chain)[1].tier, Tier::kHost);
  EXPECT_EQ(StatsOf(Tier::kGpu).blocks, 3u);
}

TEST_P(DeviceStore, ABlockWithAnyCodecCanBeDecodedThere) {
  for (const char* spec : {"tq:k4v4", "tq:k8v8", "tq:k3v2", "fp8", "raw"}) {
    SampleChain chain(SampleLayout(), 3, spec, 5);
    for (const absl::Status& status : PutFromDevice(chain, true, spec)) ASSERT_TRUE(status.ok()) << status;
    auto view = *store_->Resolve(chain.ns(), {});
    const CodedForm form{&view.layout->layout, view.layout->fingerprint, view.part};
    std::vector<DeviceBlock> blocks;
    std::vector<DeviceBytes> outs;
    std::vector<std::vector<uint8_t>> host_outs(3);
    std::vector<Device::DecodeJob> jobs;
    for (uint32_t i = 0; i < 3; ++i) {
      blocks.push_back(*store_->OpenOnDevice(view, chain.identities[i]));
      outs.emplace_back(*device_, chain.raw[i].size());
      host_outs[i].resize(chain.raw[i].size());
      const StoredObject& object = *blocks.back().object;
      int levels = static_cast<int>(object.record.levels);
      jobs.push_back({object.header.get(), levels, blocks.back().data.get(), outs[i].data(), true, {}});
      jobs.push_back({object.header.get(), levels, blocks.back().data.get(), host_outs[i].data(), false, {}});
    }
    device_->Decode(form, 0, view.part.layers(), chain.layout.dtype, jobs);
    Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
    for (uint32_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(jobs[2 * i].status.ok()) << spec << jobs[2 * i].status;
      EXPECT_EQ(outs[i].Content(), host_outs[i]) << spec;
      // The host's decoding of the same object, but for the last bit of the type.
      std::vector<uint8_t> twin(chain.raw[i].size());
      auto reader = BlockReader::Open(chain.codec, chain.identities[i], gotten.objects[i]);
      ASSERT_TRUE(reader.ok()) << reader.status();
      uint64_t at = 0;
      for (uint32_t l = 0; l < view.part.layers(); ++l) {
        uint64_t bytes = RawLayerBytes(chain.layout, chain.part, l, chain.layout.dtype);
        ASSERT_TRUE(DecodeRawLayer(chain.layout, *reader, reader->levels(), chain.part, l, chain.layout.dtype,
                                   MutableBytes(twin).subspan(at, bytes))
                        .ok());
        at += bytes;
      }
      EXPECT_LT(Distance(chain, host_outs[i], twin), 2e-5) << spec << i;
    }
    blocks.clear();
    ASSERT_TRUE(store_->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
    ASSERT_EQ(*store_->Delete(chain.ns(), chain.keys(), true), 3u);
  }
}

TEST_P(DeviceStore, CodesWithoutStoring) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(store_->RegisterLayout(chain.layout).ok());
  auto view = *store_->Resolve(chain.ns(), {});
  for (uint32_t i = 0; i < 2; ++i) {
    std::vector<uint8_t> object, raw(chain.raw[i].size());
    absl::Status encoded =
        store_->EncodeOnDevice(*view.layout, view.part, *CodecSpec::Parse("tq:k4v4"), chain.layout.dtype,
                               chain.identities[i], chain.raw[i], &object);
    ASSERT_TRUE(encoded.ok()) << encoded;
    EXPECT_LT(Distance(chain, i, object), kFourBits);
    BlockHeader header = *ParseHeader(object);
    absl::Status decoded =
        store_->DecodeOnDevice(*view.layout, view.part, header, 3, chain.layout.dtype, object, raw);
    ASSERT_TRUE(decoded.ok()) << decoded;
    EXPECT_LT(Distance(chain, raw, chain.raw[i]), kFourBits);
  }
  EXPECT_EQ(StatsOf(Tier::kGpu).used_bytes, 0u);
}

TEST_P(DeviceStore, ManyWritersAndReaders) {
  Start(2 << 20, 8 << 20);
  SampleChain shape(SampleLayout(), 1);
  ASSERT_TRUE(store_->RegisterLayout(shape.layout).ok());
  constexpr uint32_t kThreads = 4, kBlocks = 24;
  std::vector<std::unique_ptr<SampleChain>> chains;
  for (uint32_t t = 0; t < kThreads; ++t)
    chains.push_back(std::make_unique<SampleChain>(SampleLayout(), kBlocks, "tq:k4v4", 100 + t));
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const SampleChain& chain = *chains[t];
      for (const absl::Status& status : PutFromDevice(chain, t % 2 == 0)) EXPECT_TRUE(status.ok()) << status;
      auto view = *store_->Resolve(chain.ns(), {});
      for (uint32_t i = 0; i < kBlocks; ++i) {
        auto block = store_->OpenOnDevice(view, chain.identities[i]);
        ASSERT_TRUE(block.ok()) << block.status();
        std::vector<uint8_t> bytes(block->object->record.bytes());
        Device::Copy down{block->data.get(), bytes.data(), bytes.size()};
        ASSERT_TRUE(device_->CopyAll({&down, 1}).ok());
        EXPECT_LT(Distance(chain, i, bytes), kFourBits);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(StatsOf(Tier::kGpu).used_bytes, uint64_t{2} << 20);
}

}  // namespace quire::store
