// A Get call that a device has part in: tensors decoded there, for any client, and codes or tensors for one
// that has a buffer there.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/arena_calls.h"
#include "services/store/server/checked_get.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

class DeviceGet {
 public:
  // As GetStream. REQUIRES: the store has a device.
  DeviceGet(LocalStore& store, Namespace ns, const v1::GetRequest& request, ArenaPlacer placer,
            grpc::ServerWriter<v1::GetResponse>& writer, StreamWatch::Stream& stream)
      : store_(store),
        ns_(std::move(ns)),
        request_(request),
        placer_(std::move(placer)),
        writer_(writer),
        stream_(stream) {}

  // Codes come to a device buffer as whole objects: INVALID_ARGUMENT for another order than BY_BLOCK.
  absl::Status Run();

 private:
  // Blocks worked on together; decoded tensors on their way to the host take so many bytes at most, but for
  // one block or layer.
  static constexpr size_t kBatch = 64;
  static constexpr uint64_t kHostBytes = 32 << 20;

  // A block that is there: on the device, or, where the device cannot have or decode it, on the host.
  struct Source {
    uint32_t block = 0;
    int levels = 0;
    std::optional<DeviceBlock> there;
    std::optional<OpenedBlock> here;

    const BlockHeader& header() const { return there ? *there->object->header : here->reader.header(); }
    uint64_t bytes() const { return header().levels[static_cast<size_t>(levels) - 1].end(); }
  };
  // Layers of a block, and where they go.
  struct Piece {
    const Source* source = nullptr;
    uint64_t offset = 0;  // in the block's raw form
    v1::ArenaRange range;
    MutableBytes to;        // in the client's arena, or
    bool in_arena = false;  // (this)
    std::vector<uint8_t> host;
  };

  // Opens a block, or tells the client that it is missing (none is returned then).
  absl::StatusOr<std::optional<Source>> Open(uint32_t block);
  absl::StatusOr<std::vector<Source>> OpenFrom(uint32_t first, uint32_t count);
  absl::Status SendObjects(std::span<const Source> sources);
  // Decodes and sends layers [begin, end) of all sources.
  absl::Status SendLayers(std::span<const Source> sources, uint32_t begin, uint32_t end);
  absl::Status Decode(std::span<Piece> pieces, uint32_t begin, uint32_t end);
  absl::Status DecodeHere(Piece& piece, uint32_t begin, uint32_t end);
  absl::Status SendPiece(const Piece& piece, uint32_t begin, uint32_t end);
  // A message about bytes that lie in the arena, or in chunks.
  absl::Status Tell(const Source& source, uint64_t offset, const v1::ArenaRange* range, Bytes bytes,
                    uint32_t layer, uint64_t total);

  const Layout& layout() const { return get_.view.layout->layout; }

  LocalStore& store_;
  const Namespace ns_;
  const v1::GetRequest& request_;
  ArenaPlacer placer_;
  grpc::ServerWriter<v1::GetResponse>& writer_;
  StreamWatch::Stream& stream_;
  CheckedGet get_;
  v1::GetResponse response_;  // reused for every message
};

}  // namespace quire::store
