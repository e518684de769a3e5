// quire.v1.Codec: compression as a service. Nothing is stored.
#pragma once

#include "quire/v1/codec.grpc.pb.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/access.h"
#include "services/store/server/rpc_metrics.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// References are borrowed. Thread-safe.
class CodecService final : public v1::Codec::Service {
 public:
  // Codes on the store's device where it has one. A block whose raw form has more bytes than
  // `max_block_bytes` is refused.
  CodecService(LocalStore& store, const Access& access, const RpcMetrics& metrics, StreamWatch& watch,
               uint64_t max_block_bytes)
      : store_(store), access_(access), metrics_(metrics), watch_(watch), max_block_bytes_(max_block_bytes) {}

  using EncodeStream = grpc::ServerReaderWriter<v1::CodecData, v1::EncodeRequest>;
  using DecodeStream = grpc::ServerReaderWriter<v1::CodecData, v1::DecodeRequest>;

  grpc::Status Encode(grpc::ServerContext*, EncodeStream*) override;
  grpc::Status Decode(grpc::ServerContext*, DecodeStream*) override;
  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest*, v1::DescribeResponse*) override;

 private:
  absl::Status DoEncode(StreamWatch::Stream& stream, EncodeStream& messages);
  absl::Status DoDecode(StreamWatch::Stream& stream, DecodeStream& messages);

  LocalStore& store_;
  const Access& access_;
  const RpcMetrics& metrics_;
  StreamWatch& watch_;
  const uint64_t max_block_bytes_;
};

}  // namespace quire::store
