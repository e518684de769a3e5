// One Get in order BY_LAYER: blocks of a chain, layer after layer, each verified before it is handed out.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/kv_store.h"
#include "services/store/client/remote_get.h"

namespace quire::store {

// Not thread-safe, but for Cancel.
class LayerStream {
 public:
  // Sends the request and takes what comes before the first layer: misses and headers. `part`: the part asked
  // for, in the layout's numbers; `blocks` are those of the request.
  static absl::StatusOr<std::unique_ptr<LayerStream>> Open(v1::KvStore::Stub& stub,
                                                           std::shared_ptr<grpc::ClientContext> context,
                                                           const v1::GetRequest& request, const Part& part,
                                                           std::vector<BlockIdentity> blocks,
                                                           const RemoteGet::CodecOf& codec_of);
  ~LayerStream();

  // Blocks before the first that is missing: those that come. Why that one is missing; OK where none is.
  uint32_t blocks() const { return present_; }
  const absl::Status& miss() const { return miss_; }

  // The next layer of every block that comes, verified. The readers (one a block, in order; their layers are
  // those of the stored part, which may be larger than the one asked for) have bytes for the layers returned
  // so far only, and are valid for as long as this lives. DATA_LOSS naming the block if its bytes are wrong.
  // OUT_OF_RANGE after the last layer.
  absl::StatusOr<std::span<const BlockReader>> Next();
  // Of the reader's part, for its VerifyLayer and DecodeLayer: the layer that Next returned last.
  uint32_t reader_layer(uint32_t block) const;

  // Ends the stream; Next then fails. Thread-safe.
  void Cancel() { context_->TryCancel(); }

 private:
  struct Object {
    std::unique_ptr<uint8_t[]> bytes;
    uint64_t size = 0;
    Bytes view() const { return {bytes.get(), size}; }
  };
  using Stream = grpc::ClientReader<v1::GetResponse>;

  LayerStream(std::shared_ptr<grpc::ClientContext> context, std::unique_ptr<Stream> stream, const Part& part,
              std::vector<BlockIdentity> blocks)
      : context_(std::move(context)), stream_(std::move(stream)), part_(part), blocks_(std::move(blocks)) {}
  // Moves to the next chunk of a block that comes; the status of the stream if it ended.
  absl::Status Advance();
  absl::Status ReadMisses();
  absl::Status ReadHeader(uint32_t block, const RemoteGet::CodecOf& codec_of);
  // Fills an extent of a block with the chunks that come next.
  absl::Status ReadExtent(uint32_t block, int32_t layer, const Extent& extent);
  // The layer's bytes of one block, and their checksums.
  absl::Status ReadLayer(uint32_t block, uint32_t layer);
  absl::Status Unexpected(uint32_t block, int32_t layer, uint64_t offset) const;

  std::shared_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
  const Part part_;
  const std::vector<BlockIdentity> blocks_;
  v1::GetResponse response_;  // reused for every chunk
  bool pending_ = false;      // response_ holds a chunk that was not used yet
  bool finished_ = false;
  uint32_t present_ = 0;
  absl::Status miss_;
  std::vector<Object> objects_;
  std::vector<BlockReader> readers_;
  uint32_t next_layer_ = 0;  // within part_
};

}  // namespace quire::store
