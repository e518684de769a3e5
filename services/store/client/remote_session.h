// A put session whose store is behind gRPC.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/put_progress.h"
#include "services/store/client/arena_put.h"
#include "services/store/client/remote_store.h"

namespace quire::store {

// The server commits a block when its last byte arrives, so the last bytes of each block are kept back until
// Commit.
class RemoteStore::Session : public PutSession {
 public:
  using Stream = grpc::ClientReaderWriter<v1::PutRequest, v1::PutResponse>;

  // Opens the stream, announces and waits for what is wanted.
  static absl::StatusOr<std::unique_ptr<Session>> Begin(v1::KvStore::Stub& stub,
                                                        std::shared_ptr<grpc::ClientContext> context,
                                                        v1::PutRequest announce,
                                                        std::span<const BlockAnnounce> blocks,
                                                        std::shared_ptr<AttachedArena> arena);
  ~Session() override;

  const std::vector<uint32_t>& wanted() const override { return wanted_; }
  absl::Status Write(uint32_t block, uint64_t offset, Bytes data) override;
  absl::StatusOr<uint64_t> Commit(uint32_t block) override;

 private:
  static constexpr size_t kKeptBack = 4096;  // at most, of each block

  Session(std::shared_ptr<grpc::ClientContext> context, std::unique_ptr<Stream> stream,
          std::shared_ptr<AttachedArena> arena)
      : context_(std::move(context)), stream_(std::move(stream)), arena_(std::move(arena)) {}
  absl::Status Send(uint32_t block, uint64_t offset, Bytes data);
  // Ends the stream after the server ended it, and tells its status.
  absl::Status Broken();

  std::shared_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
  ArenaPut arena_;
  v1::PutRequest request_;  // reused for every chunk
  std::vector<uint32_t> wanted_;
  std::vector<uint64_t> announced_;
  PutProgress progress_;
  absl::flat_hash_map<uint32_t, std::vector<uint8_t>> kept_back_;
  struct Result {
    absl::Status status;
    uint64_t stored_bytes = 0;
  };
  absl::flat_hash_map<uint32_t, Result> results_;
  std::optional<absl::Status> broken_;
};

}  // namespace quire::store
