// A store with a device above the host's arena, over a device whose memory is the host's.
#include "tests/services/store/gpu/device_store.h"

#include "tests/services/store/gpu/host_device.h"

namespace quire::store {
namespace {

INSTANTIATE_TEST_SUITE_P(Host, DeviceStore,
                         testing::Values(DeviceBackend{"host",
                                                       [] { return std::make_shared<HostDevice>(); }}),
                         DeviceName);

TEST(DeviceTierStart, FailsClearlyWhereTheDeviceHasTooLittle) {
  auto device = std::make_shared<HostDevice>(8 << 20);
  absl::Status none = DeviceTier::Create(device, 64 << 20).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.message()), testing::HasSubstr("gpu tier of 67108864 bytes"));
  EXPECT_THAT(std::string(none.message()), testing::HasSubstr("8388608 bytes left"));
  EXPECT_EQ(DeviceTier::Create(device, 1000).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(DeviceTierStart, PinsTheHostsArena) {
  auto device = std::make_shared<HostDevice>();
  {
    LocalStoreOptions options;
    options.host_bytes = 4 << 20;
    options.gpu = *DeviceTier::Create(device, 4 << 20);
    auto store = *LocalStore::Create(options);
    options.gpu = nullptr;
    EXPECT_EQ(device->pinned(), uint64_t{4} << 20);
  }
  EXPECT_EQ(device->pinned(), 0u);
}

struct WithHostDevice {
  std::shared_ptr<HostDevice> device = std::make_shared<HostDevice>();
  std::shared_ptr<LocalStore> store;
  WithHostDevice() {
    LocalStoreOptions options;
    options.host_bytes = 8 << 20;
    options.gpu = *DeviceTier::Create(device, 8 << 20);
    store = *LocalStore::Create(options);
  }
};

TEST(DeviceStoreLimits, WhatTheDeviceDoesNotCodeTheHostDoes) {
  WithHostDevice with;
  SampleChain chain(SampleLayout(), 2, "tq_prod:k4v4");
  ASSERT_TRUE(with.store->RegisterLayout(chain.layout).ok());
  PutOptions options;
  options.encode = "tq_prod:k4v4";
  auto session = *with.store->BeginLocalPut(chain.ns(), chain.raw_announces(), options);
  ASSERT_TRUE(WriteAndCommit(*session, 0, chain.raw[0]).ok());
  std::shared_ptr<uint8_t> raw = *with.device->Allocate(chain.raw[1].size());
  std::copy(chain.raw[1].begin(), chain.raw[1].end(), raw.get());
  LocalPutSession::DeviceSource source{1, raw.get()};
  session->CommitFromDevice({&source, 1});
  EXPECT_TRUE(source.stored.ok()) << source.stored.status();
  EXPECT_EQ(GetAll(*with.store, chain.ns(), chain.identities).objects, chain.objects);
  EXPECT_EQ(with.device->encoded, 0u);
}

TEST(DeviceStoreLimits, ABrokenDeviceLosesNothingThatTheHostHas) {
  WithHostDevice with;
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(with.store->RegisterLayout(chain.layout).ok());
  PutOptions options;
  options.encode = "tq:k4v4";
  auto session = *with.store->BeginLocalPut(chain.ns(), chain.raw_announces(), options);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(WriteAndCommit(*session, i, chain.raw[i]).ok());
  ASSERT_TRUE(with.store->AwaitMoved(std::chrono::milliseconds(20'000)).ok());
  with.device->fail_copies = true;
  EXPECT_EQ(GetAll(*with.store, chain.ns(), chain.identities).objects, chain.objects);
  with.device->fail_copies = false;
}

TEST(DeviceStoreLimits, BlocksOfOneCallAreEncodedTogether) {
  WithHostDevice with;
  SampleChain chain(SampleLayout(), 12);
  ASSERT_TRUE(with.store->RegisterLayout(chain.layout).ok());
  PutOptions options;
  options.encode = "tq:k4v4";
  auto session = *with.store->BeginLocalPut(chain.ns(), chain.raw_announces(), options);
  std::vector<std::shared_ptr<uint8_t>> memory;
  std::vector<LocalPutSession::DeviceSource> sources;
  for (uint32_t i = 0; i < 12; ++i) {
    memory.push_back(*with.device->Allocate(chain.raw[i].size()));
    std::copy(chain.raw[i].begin(), chain.raw[i].end(), memory.back().get());
    sources.push_back({i, memory.back().get()});
  }
  sources.push_back({3, memory[3].get()});     // twice
  sources.push_back({4711, memory[3].get()});  // not announced
  session->CommitFromDevice(sources);
  for (uint32_t i = 0; i < 12; ++i) EXPECT_TRUE(sources[i].stored.ok()) << sources[i].stored.status();
  EXPECT_EQ(sources[12].stored.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sources[13].stored.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with.device->largest_batch, 12u);
}

}  // namespace
}  // namespace quire::store
