#include "services/store/server/block_chunks.h"

#include <algorithm>
#include <cstring>

#include "core/base/status_macros.h"
#include "services/store/api/limits.h"

namespace quire::store {

void BlockChunks::Begin(const Run& run) {
  v1::BlockData* data = response_.mutable_data();
  data->set_block(run.block);
  data->set_layer(run.layer);
  data->set_levels(run.levels);
  data->set_object_bytes(run.object_bytes);
  data->set_offset(run.offset);
  data->mutable_data()->clear();  // keeps its room
  placed_ = 0;
  place_ = placer_.Take(run.bytes, data->mutable_arena_range());
  if (!place_.empty()) return;
  data->clear_arena_range();
  data->mutable_data()->reserve(std::min<uint64_t>(run.bytes, kChunkBytes));
}

absl::Status BlockChunks::Append(Bytes bytes) {
  if (!place_.empty()) {
    std::memcpy(place_.data() + placed_, bytes.data(), bytes.size());
    placed_ += bytes.size();
    return absl::OkStatus();
  }
  std::string& chunk = *response_.mutable_data()->mutable_data();
  while (!bytes.empty()) {
    Bytes some = bytes.first(std::min<size_t>(bytes.size(), kChunkBytes - chunk.size()));
    chunk.append(reinterpret_cast<const char*>(some.data()), some.size());
    bytes = bytes.subspan(some.size());
    if (chunk.size() == kChunkBytes) QUIRE_RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

absl::Status BlockChunks::Flush() {
  v1::BlockData* data = response_.mutable_data();
  if (!writer_.Write(response_)) return stream_.Broken();
  stream_.Progress();
  data->set_offset(data->offset() + data->data().size());
  data->mutable_data()->clear();
  return absl::OkStatus();
}

absl::Status BlockChunks::End() {
  return place_.empty() && response_.data().data().empty() ? absl::OkStatus() : Flush();
}

}  // namespace quire::store
