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

  absl::Status Run(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline) {
    Start(stub, deadline);
    return Finish();
  }
  // Run in two: the store begins to send after Start, the sink sees it in Finish.
  void Start(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline);
  absl::Status Finish();

  // The request names [offset, offset + window.size()) of an arena, which is `window` here: objects there are
  // verified and handed out in place, and a call that is given up is read to its end, so that the store does
  // not write there afterwards.
  void UseWindow(uint64_t offset, Bytes window) {
    window_offset_ = offset;
    window_ = window;
  }
  // After Start, instead of Finish: reads to the end. Whether the store has ended the call as it should: it
  // will not touch the window any more.
  bool Drain();
  bool settled() const { return settled_; }
  // The sink has seen something: Run may not be called again.
  bool started() const { return started_; }

 private:
  absl::Status Take(const v1::BlockData& data);
  absl::Status Miss(uint32_t block, const absl::Status& why);
  absl::Status Complete(Bytes object);
  absl::Status Verify(Bytes object) const;
  bool within_window(const v1::ArenaRange& range) const {
    return range.offset() >= window_offset_ && range.offset() - window_offset_ <= window_.size() &&
           range.length() <= window_.size() - (range.offset() - window_offset_);
  }

  const v1::GetRequest& request_;
  const Part wanted_;
  std::span<const BlockIdentity> blocks_;
  const GetSink& sink_;
  const CodecOf codec_of_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::GetResponse>> stream_;
  uint64_t window_offset_ = 0;
  Bytes window_;
  bool settled_ = false;
  bool started_ = false;
  uint32_t next_ = 0;            // the block whose bytes are gathered, or come next
  uint64_t object_bytes_ = 0;    // of block next_, from its first chunk
  std::vector<uint8_t> object_;  // its bytes so far
};

}  // namespace quire::store
