#include "tests/services/store/gpu/ipc_client.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <sstream>
#include <vector>

#include "core/block/keys.h"
#include "services/runtime/server.h"
#include "services/store/client/device_client.h"
#include "services/store/engine/raw_form.h"
#include "services/store/gpu/cuda_device.h"

namespace quire::store {
namespace {

class Client {
 public:
  Client(const std::string& address, uint32_t blocks, int runs) : blocks_(blocks), runs_(runs) {
    layout_ = Layout::Uniform(Sha256().Update("quire-bench").Finish(), 32, 8, 128);
    block_bytes_ = RawFormBytes(layout_, Part::Whole(layout_), layout_.dtype);
    channel_ = *runtime::NewChannel(address);
    remote_ = std::make_unique<RemoteStore>(channel_);
    ns_.fingerprint = *remote_->RegisterLayout(layout_);
  }

  // Raw KV in the first half of the buffer; the second is for what comes back.
  absl::Status Prepare() {
    auto device = CudaDevice::Create({1, 16 << 20, 1});
    if (!device.ok()) return device.status();
    device_ = *device;
    const uint64_t half = block_bytes_ * blocks_;
    auto buffer = device_->Allocate(2 * half);
    if (!buffer.ok()) return buffer.status();
    buffer_ = *buffer;
    std::vector<uint8_t> block(block_bytes_);
    for (size_t e = 0; e < block.size() / 2; ++e)
      StoreElement(layout_.dtype, block.data(), e, static_cast<float>(e * 7919 % 2003) / 1000.0f - 1.0f);
    for (uint32_t i = 0; i < blocks_; ++i) {
      Device::Copy up{block.data(), buffer_.get() + i * block_bytes_, block_bytes_};
      if (absl::Status copied = device_->CopyAll({&up, 1}); !copied.ok()) return copied;
    }
    auto name = CudaDevice::Share(buffer_.get(), 2 * half);
    if (!name.ok()) return name.status();
    auto client =
        DeviceClient::Attach(channel_, {name->ipc_handle, name->offset, 2 * half, name->device_uuid});
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return absl::OkStatus();
  }

  absl::Status Run() {
    auto put = [&] {
      NextChain();
      PutOptions options;
      options.encode = "tq:k4v4";
      std::vector<PutOutcome> outcomes;
      absl::Status status = client_->Put(ns_, items_, options, &outcomes);
      for (const PutOutcome& outcome : outcomes) status.Update(outcome.status);
      return status;
    };
    absl::Status status = Measure("put", put, [&] { return remote_->Delete(ns_, keys_, true).status(); });
    status.Update(put());
    for (bool decode : {true, false}) {
      status.Update(Measure(
          decode ? "decoded" : "codes",
          [&] {
            std::vector<DeviceClient::GetItem> items;
            for (const auto& item : items_) items.push_back({item.identity, 0, 0, 0, {}});
            absl::Status got =
                client_->Get(ns_, items, {}, decode ? std::optional<DType>(DType::kBf16) : std::nullopt,
                             block_bytes_ * blocks_, block_bytes_ * blocks_);
            for (const auto& item : items) got.Update(item.status);
            return got;
          },
          [] { return absl::OkStatus(); }));
    }
    return status;
  }

 private:
  void NextChain() {
    Digest parent = RootKey(ns_.fingerprint, "ipc" + std::to_string(chains_++));
    items_.clear();
    keys_.clear();
    for (uint32_t i = 0; i < blocks_; ++i) {
      std::vector<uint32_t> tokens(kBlockTokens, i);
      BlockIdentity identity{parent, BlockKey(parent, tokens), i};
      items_.push_back({identity, i * block_bytes_, block_bytes_});
      keys_.push_back(identity.key);
      parent = identity.key;
    }
  }
  absl::Status Measure(const char* name, const std::function<absl::Status()>& work,
                       const std::function<absl::Status()>& between) {
    std::vector<double> times;
    for (int i = 0; i < runs_ + 2; ++i) {
      auto start = std::chrono::steady_clock::now();
      absl::Status status = work();
      std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      status.Update(between());
      if (!status.ok()) return status;
      if (i >= 2) times.push_back(took.count());
    }
    std::sort(times.begin(), times.end());
    std::printf("%s %.9f\n", name, times[times.size() / 2]);
    std::fflush(stdout);
    return absl::OkStatus();
  }

  const uint32_t blocks_;
  const int runs_;
  Layout layout_;
  uint64_t block_bytes_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<RemoteStore> remote_;
  Namespace ns_;
  std::shared_ptr<CudaDevice> device_;
  std::shared_ptr<uint8_t> buffer_;
  std::unique_ptr<DeviceClient> client_;  // before the buffer goes
  std::vector<DeviceClient::PutItem> items_;
  std::vector<Digest> keys_;
  int chains_ = 0;
};

}  // namespace

int RunBenchClient(const std::string& task) {
  std::istringstream in(task);
  std::string address;
  uint32_t blocks = 0;
  int runs = 0;
  in >> address >> blocks >> runs;
  Client client(address, blocks, runs);
  absl::Status status = client.Prepare();
  if (status.ok()) status = client.Run();
  if (!status.ok()) std::fprintf(stderr, "quire-gpu-bench: client: %s\n", status.ToString().c_str());
  std::printf("end\n");
  std::fflush(stdout);
  return status.ok() ? 0 : 1;
}

}  // namespace quire::store
