#include "services/store/server/device_put.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/server/arena_calls.h"

namespace quire::store {

absl::Status DevicePut::Run() {
  std::thread committer([this] { Commit(); });
  absl::Status status = Read();
  {
    std::lock_guard lock(mu_);
    closed_ = true;
    // What comes after a chunk that makes no sense is not stored.
    if (!status.ok()) queue_.clear();
  }
  changed_.notify_all();
  committer.join();
  if (status.ok() && broken_) status = stream_.Broken();
  return status;
}

absl::StatusOr<LocalPutSession::DeviceSource> DevicePut::SourceOf(const v1::BlockData& chunk) const {
  const std::vector<uint32_t>& wanted = session_.wanted();
  if (!std::binary_search(wanted.begin(), wanted.end(), chunk.block()))
    return absl::InvalidArgumentError(absl::StrCat("block ", chunk.block(), " is not wanted"));
  const uint64_t bytes = blocks_[chunk.block()].bytes;
  if (!chunk.has_arena_range() || !chunk.data().empty() || chunk.offset() != 0 ||
      chunk.arena_range().length() != bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block ", chunk.block(), ": a block in a device buffer is one range of its ", bytes, " bytes"));
  }
  if (chunk.arena_range().offset() % kDeviceAlignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", chunk.block(), " at ", chunk.arena_range().offset(),
                     ": offsets in a device buffer are multiples of ", kDeviceAlignment));
  }
  QUIRE_ASSIGN_OR_RETURN(MutableBytes range, arena_.Range(chunk.arena_range().offset(), bytes));
  return LocalPutSession::DeviceSource{chunk.block(), range.data()};
}

absl::Status DevicePut::Read() {
  v1::PutRequest request;
  std::vector<bool> came(blocks_.size());
  while (messages_.Read(&request)) {
    stream_.Progress();
    if (!request.has_data()) return absl::InvalidArgumentError("after the announcement only data may come");
    QUIRE_ASSIGN_OR_RETURN(LocalPutSession::DeviceSource source, SourceOf(request.data()));
    if (came[source.block])
      return absl::InvalidArgumentError(absl::StrCat("block ", source.block, " comes a second time"));
    came[source.block] = true;
    {
      std::lock_guard lock(mu_);
      if (broken_) return absl::OkStatus();
      queue_.push_back(std::move(source));
    }
    changed_.notify_one();
  }
  return absl::OkStatus();
}

void DevicePut::Commit() {
  v1::PutResponse response;
  std::vector<LocalPutSession::DeviceSource> batch;
  while (true) {
    {
      std::unique_lock lock(mu_);
      changed_.wait(lock, [&] { return closed_ || !queue_.empty(); });
      if (queue_.empty() || broken_) return;
      auto end = queue_.begin() + static_cast<ptrdiff_t>(std::min(queue_.size(), kBatch));
      batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
      queue_.erase(queue_.begin(), end);
    }
    session_.CommitFromDevice(batch);
    for (const LocalPutSession::DeviceSource& source : batch) {
      v1::PutResult* result = response.mutable_result();
      result->set_block(source.block);
      result->set_code(static_cast<int32_t>(source.stored.status().code()));
      result->set_message(std::string(source.stored.status().message()));
      result->set_stored_bytes(source.stored.value_or(0));
      if (!messages_.Write(response)) {
        std::lock_guard lock(mu_);
        broken_ = true;
        return;
      }
      stream_.Progress();
    }
  }
}

}  // namespace quire::store
