// The gRPC server of a store with a device: what clients with a buffer there and all others get. A test file
// includes this and says which device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/store/client/device_client.h"
#include "services/store/engine/put_session.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/gpu/device_store.h"
#include "tests/services/store/gpu/raw_distance.h"

namespace quire::store {

// A server whose store has a device, and a chain.
class ServedDevice {
 public:
  explicit ServedDevice(std::shared_ptr<Device> device, uint64_t gpu_bytes = 16 << 20)
      : device_(std::move(device)), served_(Options(*this, gpu_bytes)) {}
  Device& device() { return *device_; }
  ServedStore& served() { return served_; }
  LocalStore& engine() { return served_.engine(); }

 private:
  static LocalStoreOptions Options(ServedDevice& self, uint64_t gpu_bytes) {
    LocalStoreOptions options = SmallStore();
    options.gpu = *DeviceTier::Create(self.device_, gpu_bytes);
    return options;
  }
  std::shared_ptr<Device> device_;
  ServedStore served_;
};

// A Get of decoded tensors as any gRPC client does it; misses are left empty.
inline std::vector<std::vector<uint8_t>> GetDecoded(v1::KvStore::Stub& stub, const SampleChain& chain,
                                                    v1::GetRequest::Order order, DType dtype,
                                                    Part part = {}) {
  v1::GetRequest request;
  ToProto(chain.ns(), request.mutable_namespace_());
  for (const BlockIdentity& identity : chain.identities) ToProto(identity, 0, request.add_blocks());
  request.set_order(order);
  request.mutable_decode()->set_dtype(ToProto(dtype));
  if (part != Part{}) ToProto(part, request.mutable_part());
  grpc::ClientContext context;
  auto stream = stub.Get(&context, request);
  std::vector<std::vector<uint8_t>> out(chain.identities.size());
  v1::GetResponse response;
  while (stream->Read(&response)) {
    if (!response.has_data()) continue;
    const v1::BlockData& data = response.data();
    std::vector<uint8_t>& block = out[data.block()];
    block.resize(data.object_bytes());
    EXPECT_LE(data.offset() + data.data().size(), block.size());
    std::copy(data.data().begin(), data.data().end(), block.begin() + static_cast<ptrdiff_t>(data.offset()));
  }
  grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return out;
}

}  // namespace quire::store
