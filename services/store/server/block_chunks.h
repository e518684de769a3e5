// A run of a block's bytes on its way to the client: in its arena where that has room, else in chunks.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>

#include "absl/status/status.h"
#include "core/base/bytes.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/server/arena_calls.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// Not thread-safe. Each call returns an error if the stream broke.
class BlockChunks {
 public:
  // All references are borrowed.
  BlockChunks(ArenaPlacer placer, grpc::ServerWriter<v1::GetResponse>& writer, StreamWatch::Stream& stream)
      : placer_(std::move(placer)), writer_(writer), stream_(stream) {}

  // Where a run lies, and what the client is told with each chunk of it.
  struct Run {
    uint32_t block = 0;
    int32_t layer = 0;
    uint32_t levels = 0;
    uint64_t object_bytes = 0;
    uint64_t offset = 0, bytes = 0;
  };
  // A run that was begun before and not ended is given up; some of it may have been sent.
  void Begin(const Run& run);
  absl::Status Append(Bytes bytes);  // the run's next bytes, copied
  absl::Status End();                // after the last of them

 private:
  absl::Status Flush();

  ArenaPlacer placer_;
  grpc::ServerWriter<v1::GetResponse>& writer_;
  StreamWatch::Stream& stream_;
  v1::GetResponse response_;  // reused for every chunk
  MutableBytes place_;        // in the client's arena; empty: the run goes as data
  uint64_t placed_ = 0;
};

}  // namespace quire::store
