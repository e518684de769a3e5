// The blocks of one Put call whose bytes are in the client's buffer on the store's device.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/arena_host.h"
#include "services/store/engine/put_session.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// While one batch of blocks is being encoded and committed the next gathers: the faster they come, the larger
// the batches.
class DevicePut {
 public:
  using Stream = grpc::ServerReaderWriter<v1::PutResponse, v1::PutRequest>;

  // All are borrowed. `messages`: after PutWanted.
  DevicePut(LocalPutSession& session, std::span<const BlockAnnounce> blocks, const Arena& arena,
            Stream& messages, StreamWatch::Stream& stream)
      : session_(session), blocks_(blocks), arena_(arena), messages_(messages), stream_(stream) {}

  // Until the client ends the stream and all that it sent is answered.
  absl::Status Run();

 private:
  static constexpr size_t kBatch = 64;

  // Reads chunks into the queue.
  absl::Status Read();
  absl::StatusOr<LocalPutSession::DeviceSource> SourceOf(const v1::BlockData& chunk) const;
  // Takes from the queue what there is, again and again, until it is closed and empty.
  void Commit();

  LocalPutSession& session_;
  const std::span<const BlockAnnounce> blocks_;
  const Arena& arena_;
  Stream& messages_;
  StreamWatch::Stream& stream_;

  std::mutex mu_;  // guards all below
  std::condition_variable changed_;
  std::vector<LocalPutSession::DeviceSource> queue_;
  bool closed_ = false;  // nothing more comes
  bool broken_ = false;  // the client does not take its answers
};

}  // namespace quire::store
