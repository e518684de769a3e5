// One Get call: finds, verifies and keeps the blocks, then writes their bytes in the order asked for.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/arena_calls.h"
#include "services/store/server/block_chunks.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

class GetStream {
 public:
  // `ns`: the request's, resolved; `placer`: for its arena. All references are borrowed.
  GetStream(LocalStore& store, Namespace ns, const v1::GetRequest& request, ArenaPlacer placer,
            grpc::ServerWriter<v1::GetResponse>& writer, StreamWatch::Stream& stream)
      : store_(store),
        ns_(std::move(ns)),
        request_(request),
        writer_(writer),
        stream_(stream),
        chunks_(std::move(placer), writer, stream) {}

  absl::Status Run();

 private:
  // A block that is there, with as many of its levels as are to be sent.
  struct Source {
    uint32_t block = 0;
    int levels = 0;
    OpenedBlock opened;
  };

  absl::Status Check();
  absl::Status SendByBlock();
  absl::Status SendByLayer(std::vector<Source> sources);
  absl::Status SendByLevel(std::vector<Source> sources);

  // Opens a block, or tells the client that it is missing (none is returned then).
  absl::StatusOr<std::optional<Source>> Open(uint32_t block);
  absl::StatusOr<std::vector<Source>> OpenAll();
  absl::Status Miss(uint32_t block, const absl::Status& why);
  // Sends from each source, and of one whose bytes turn out wrong a miss; it is then left out.
  template <typename Each>
  absl::Status SendOfEach(std::vector<Source>& sources, Each each);

  // DATA_LOSS: the source's bytes were wrong. Every slice is verified right before it is copied.
  absl::Status SendObject(const Source& source);  // whole, from its first byte
  absl::Status SendHeader(const Source& source);  // as layer −1
  absl::Status SendLevelOfLayer(const Source& source, int level, uint32_t layer);
  absl::Status SendLayer(const Source& source, uint32_t layer);  // codes, or decoded
  absl::Status SendDecodedLayer(const Source& source, uint32_t layer);
  absl::Status SendExtent(const Source& source, const Extent& extent, int32_t layer);

  const Layout& layout() const { return view_.layout->layout; }

  LocalStore& store_;
  const Namespace ns_;
  const v1::GetRequest& request_;
  grpc::ServerWriter<v1::GetResponse>& writer_;
  StreamWatch::Stream& stream_;
  BlockChunks chunks_;
  LocalStore::View view_;
  std::vector<BlockIdentity> identities_;
  std::optional<DType> decode_;
  std::vector<uint8_t> decoded_;  // one layer
};

}  // namespace quire::store
