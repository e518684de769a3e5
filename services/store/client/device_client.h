// A client whose KV is in the memory of the GPU that the store uses too: blocks go from its buffer into the
// store's GPU tier and back without leaving the GPU. What crosses gRPC says where they are.
//
// The caller names its buffer as CUDA's IPC does; nothing here needs CUDA.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/dtype.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/kv_store.h"
#include "services/store/client/remote_store.h"

namespace quire::store {

struct DeviceBufferOptions {
  std::string ipc_handle;   // 64 bytes: cudaIpcMemHandle_t of the allocation
  uint64_t offset = 0;      // of the buffer within the allocation, a multiple of 256
  uint64_t bytes = 0;       // of the buffer
  std::string device_uuid;  // 16 bytes: cudaDeviceProp.uuid
  std::chrono::milliseconds call_timeout{60'000};
};

// Thread-safe, but for the buffer's bytes. The buffer must stay while this lives.
class DeviceClient {
 public:
  // Registers the buffer. FAILED_PRECONDITION from a store without a GPU, or with another;
  // INVALID_ARGUMENT for a buffer that is not what it is said to be.
  static absl::StatusOr<std::unique_ptr<DeviceClient>> Attach(std::shared_ptr<grpc::Channel> channel,
                                                              const DeviceBufferOptions& options);
  ~DeviceClient();

  // A block at buffer offset `offset`, a multiple of 256: raw KV where PutOptions.encode is set, else an
  // object.
  struct PutItem {
    BlockIdentity identity;
    uint64_t offset = 0, bytes = 0;
  };
  // At most 4096 blocks, parents first; as RemoteStore::PutBlocks. The buffer may be written again when this
  // returns.
  absl::Status Put(const Namespace& ns, std::span<const PutItem> blocks, const PutOptions& options,
                   std::vector<PutOutcome>* outcomes);

  struct GetItem {
    BlockIdentity identity;
    // Out: where in the buffer its bytes are, and how many levels they hold; or why it did not come.
    uint64_t offset = 0, bytes = 0;
    uint32_t levels = 0;
    absl::Status status;
  };
  // At most 4096 blocks, into [offset, offset + bytes) of the buffer, each on a multiple of 256: the raw form
  // at `decode`, or objects. RESOURCE_EXHAUSTED, in a block's status, where there was no room for it any
  // more.
  absl::Status Get(const Namespace& ns, std::span<GetItem> blocks, const GetOptions& options,
                   std::optional<DType> decode, uint64_t offset, uint64_t bytes);

  const std::string& arena() const { return arena_; }

 private:
  explicit DeviceClient(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {}

  v1::KvStore::Stub stub_;
  grpc::ClientContext attach_context_;
  std::unique_ptr<grpc::ClientReader<v1::AttachArenaResponse>> attached_;
  std::string arena_;
  std::chrono::milliseconds call_timeout_{};
};

}  // namespace quire::store
