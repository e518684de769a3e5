// One Get over gRPC: puts the chunks of each block together, verifies the object and hands it out.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

class RemoteGet {
 public:
  using CodecOf = std::function<absl::StatusOr<std::shared_ptr<const BlockCodec>>(const Part& part)>;

  // `blocks` and `sink` are borrowed. `wanted` must be covered by what comes.
  RemoteGet(const v1::GetRequest& request, const Part& wanted, std::span<const BlockIdentity> blocks,
            const GetSink& sink, CodecOf codec_of)
      : request_(request), wanted_(wanted), blocks_(blocks), sink_(sink), codec_of_(std::move(codec_of)) {}

  absl::Status Run(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline);
  // The sink has seen something: Run may not be called again.
  bool started() const { return started_; }

 private:
  absl::Status Take(const v1::BlockData& data);
  absl::Status Miss(uint32_t block, const absl::Status& why);
  absl::Status Complete();
  absl::Status Verify() const;

  const v1::GetRequest& request_;
  const Part wanted_;
  std::span<const BlockIdentity> blocks_;
  const GetSink& sink_;
  const CodecOf codec_of_;
  bool started_ = false;
  uint32_t next_ = 0;            // the block whose bytes are gathered, or come next
  uint64_t object_bytes_ = 0;    // of block next_, from its first chunk
  std::vector<uint8_t> object_;  // its bytes so far
};

}  // namespace quire::store
