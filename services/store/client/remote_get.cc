#include "services/store/client/remote_get.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"

namespace quire::store {

void RemoteGet::Start(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline) {
  next_ = 0;
  object_.clear();
  settled_ = false;
  context_ = std::make_unique<grpc::ClientContext>();
  context_->set_deadline(deadline);
  stream_ = stub.Get(context_.get(), request_);
}

bool RemoteGet::Drain() {
  v1::GetResponse response;
  while (stream_->Read(&response)) {
  }
  settled_ = stream_->Finish().ok();
  return settled_;
}

absl::Status RemoteGet::Finish() {
  v1::GetResponse response;  // reused for every chunk
  absl::Status status;
  while (status.ok() && stream_->Read(&response)) {
    if (response.has_miss()) {
      const v1::GetMiss& miss = response.miss();
      status = Miss(miss.block(), absl::Status(static_cast<absl::StatusCode>(miss.code()), miss.message()));
    } else if (response.has_data()) {
      status = Take(response.data());
    }
  }
  if (!status.ok()) {
    if (window_.empty()) context_->TryCancel();
    Drain();
    return status;
  }
  QUIRE_RETURN_IF_ERROR(runtime::FromGrpc(stream_->Finish()));
  settled_ = true;
  if (next_ != blocks_.size()) {
    return absl::InternalError(
        absl::StrCat("store ended a Get after ", next_, " of ", blocks_.size(), " blocks"));
  }
  return absl::OkStatus();
}

absl::Status RemoteGet::Miss(uint32_t block, const absl::Status& why) {
  if (block != next_ || block >= blocks_.size() || why.ok()) {
    return absl::InternalError(
        absl::StrCat("store reported a miss of block ", block, " where block ", next_, " comes next"));
  }
  ++next_;
  object_.clear();  // the store found wrong bytes behind those it has sent
  started_ = true;
  return sink_.on_miss(block, why);
}

absl::Status RemoteGet::Take(const v1::BlockData& data) {
  if (data.has_arena_range()) {
    // A whole object, in place.
    const v1::ArenaRange& range = data.arena_range();
    if (data.block() != next_ || next_ >= blocks_.size() || data.offset() != 0 || !object_.empty() ||
        range.length() == 0 || range.length() != data.object_bytes() || !within_window(range)) {
      return absl::InternalError(absl::StrCat(
          "store put block ", data.block(), " where it may not lie, or where block ", next_, " comes next"));
    }
    return Complete(window_.subspan(range.offset() - window_offset_, range.length()));
  }
  constexpr uint64_t kReserveAtMost = 64 << 20;  // a length is believed only as its bytes come
  if (data.block() != next_ || next_ >= blocks_.size() || data.offset() != object_.size() ||
      data.data().empty()) {
    return absl::InternalError(absl::StrCat("store sent block ", data.block(), " at ", data.offset(),
                                            " where block ", next_, " at ", object_.size(), " comes next"));
  }
  if (object_.empty()) {
    object_bytes_ = data.object_bytes();
    object_.reserve(std::min(object_bytes_, kReserveAtMost));
  }
  if (data.data().size() > object_bytes_ - object_.size()) {
    return absl::InternalError(
        absl::StrCat("store sent more than ", object_bytes_, " bytes of block ", next_));
  }
  Bytes bytes = AsBytes(data.data());
  object_.insert(object_.end(), bytes.begin(), bytes.end());
  return object_.size() == object_bytes_ ? Complete(object_) : absl::OkStatus();
}

absl::Status RemoteGet::Verify(Bytes object) const {
  QUIRE_ASSIGN_OR_RETURN(BlockHeader header, ParseHeader(object));
  if (!header.part.Covers(wanted_))
    return absl::DataLossError("the block that came does not cover the part asked for");
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, codec_of_(header.part));
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(std::move(codec), blocks_[next_], object));
  return reader.Verify();
}

absl::Status RemoteGet::Complete(Bytes object) {
  absl::Status verified = Verify(object);
  uint32_t block = next_++;
  started_ = true;
  absl::Status status =
      verified.ok()
          ? sink_.on_block(block, object)
          : sink_.on_miss(block,
                          absl::DataLossError(absl::StrCat("the block did not arrive as it was stored: ",
                                                           std::string(verified.message()))));
  object_.clear();
  return status;
}

}  // namespace quire::store
