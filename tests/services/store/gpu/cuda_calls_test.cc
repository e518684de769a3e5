// The gRPC calls of a store on a GPU, with clients that are processes of their own on it.
#include <cstdio>
#include <iostream>

#include "cuda/memory.h"
#include "services/store/gpu/cuda_device.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/gpu/device_calls.h"
#include "tests/services/store/gpu/other_process.h"

namespace quire::store {
namespace {

constexpr uint64_t kBytes = 4 << 20;
constexpr uint32_t kBlocks = 9;

std::shared_ptr<CudaDevice> OpenCuda() {
  absl::StatusOr<std::shared_ptr<CudaDevice>> device = CudaDevice::Create({2, 8 << 20, 8});
  return device.ok() ? *device : nullptr;
}

// What the client finds wrong; "": nothing.
std::string RunClient(const std::string& address) {
  auto device = OpenCuda();
  if (device == nullptr) return "no GPU for a second process";
  std::shared_ptr<uint8_t> buffer = *device->Allocate(kBytes);
  DeviceBufferName name = *CudaDevice::Share(buffer.get(), kBytes);
  SampleChain chain(SampleLayout(), kBlocks);
  auto copy = [&](const uint8_t* from, uint8_t* to, uint64_t bytes) {
    Device::Copy one{from, to, bytes};
    return device->CopyAll({&one, 1});
  };
  std::vector<DeviceClient::PutItem> items;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    items.push_back({chain.identities[i], i * chain.raw[i].size(), chain.raw[i].size()});
    if (!copy(chain.raw[i].data(), buffer.get() + items[i].offset, items[i].bytes).ok()) return "cannot fill";
  }
  auto channel = *runtime::NewChannel(address);
  RemoteStore remote(channel);
  if (auto registered = remote.RegisterLayout(chain.layout); !registered.ok())
    return registered.status().ToString();
  auto client = DeviceClient::Attach(channel, {name.ipc_handle, name.offset, kBytes, name.device_uuid});
  if (!client.ok()) return client.status().ToString();
  PutOptions options;
  options.encode = "tq:k4v4";
  std::vector<PutOutcome> outcomes;
  if (absl::Status put = (*client)->Put(chain.ns(), items, options, &outcomes); !put.ok())
    return put.ToString();
  for (const PutOutcome& outcome : outcomes) {
    if (!outcome.status.ok()) return outcome.status.ToString();
  }
  std::vector<DeviceClient::GetItem> wanted;
  for (const BlockIdentity& identity : chain.identities) wanted.push_back({identity});
  for (bool decode : {true, false}) {
    std::vector<uint8_t> zeros(kBytes);
    if (!copy(zeros.data(), buffer.get(), kBytes).ok()) return "cannot clear";
    absl::Status got =
        (*client)->Get(chain.ns(), wanted, {}, decode ? std::optional<DType>(DType::kBf16) : std::nullopt,
                       256, kBytes - 256);
    if (!got.ok()) return got.ToString();
    for (uint32_t i = 0; i < kBlocks; ++i) {
      if (!wanted[i].status.ok()) return wanted[i].status.ToString();
      std::vector<uint8_t> bytes(wanted[i].bytes);
      if (!copy(buffer.get() + wanted[i].offset, bytes.data(), bytes.size()).ok()) return "cannot read";
      if (!decode) {
        auto reader = BlockReader::Open(chain.codec, chain.identities[i], bytes);
        if (!reader.ok() || !reader->Verify().ok()) return "an object with wrong bytes";
        continue;
      }
      double distance = RawDistance(DType::kBf16, bytes, chain.raw[i]);
      if (!(distance < kFourBits)) return "a tensor " + std::to_string(distance) + " off";
    }
  }
  // Stays attached until it is told or killed.
  std::cout << "done" << std::endl;
  char end;
  (void)!read(0, &end, 1);
  return "";
}

TEST(CudaCalls, AClientInAnotherProcessPutsAndGetsThroughItsBuffer) {
  std::shared_ptr<CudaDevice> device = OpenCuda();
  if (device == nullptr) GTEST_SKIP() << "no GPU here";
  ServedDevice served(device);
  const std::string address = served.served().address();
  for (bool killed : {false, true}) {
    OtherProcess client("QUIRE_DEVICE_CLIENT", address);
    ASSERT_EQ(client.Line(), "done");
    if (killed) {
      client.Kill();
    } else {
      EXPECT_TRUE(client.Say('.'));
      EXPECT_EQ(client.Wait(), 0);
    }
    // Its call ends with it, and the arena with the call.
    while (served.served().arenas().arenas() > 0) std::this_thread::yield();
  }
  EXPECT_EQ(served.engine().Stats()->tiers.front().tier, Tier::kGpu);
  EXPECT_EQ(served.engine().Stats()->tiers.front().blocks, kBlocks);
}

TEST(CudaCalls, TensorsForOtherClientsAreDecodedOnTheDevice) {
  std::shared_ptr<CudaDevice> device = OpenCuda();
  if (device == nullptr) GTEST_SKIP() << "no GPU here";
  ServedDevice served(device);
  SampleChain chain(SampleLayout(), kBlocks);
  RemoteStore remote(served.served().NewChannel());
  ASSERT_TRUE(PutChain(remote, chain).ok());
  v1::KvStore::Stub stub(served.served().NewChannel());
  for (v1::GetRequest::Order order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER}) {
    for (DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
      std::vector<std::vector<uint8_t>> got = GetDecoded(stub, chain, order, dtype);
      for (uint32_t i = 0; i < kBlocks; ++i) {
        std::vector<uint8_t> wide(chain.raw[i].size());
        for (size_t e = 0; e < wide.size() / 2; ++e)
          StoreElement(DType::kBf16, wide.data(), e, LoadElement(dtype, got[i].data(), e));
        EXPECT_LT(RawDistance(DType::kBf16, wide, chain.raw[i]), kFourBits);
      }
    }
  }
}

}  // namespace
}  // namespace quire::store

int main(int argc, char** argv) {
  if (const char* address = std::getenv("QUIRE_DEVICE_CLIENT")) {
    std::string wrong = quire::store::RunClient(address);
    if (!wrong.empty()) std::cerr << "client: " << wrong << std::endl;
    return wrong.empty() ? 0 : 1;
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
