#include "services/store/server/arena_calls.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"

namespace quire::store {
namespace {

// A call of the sync API is not told that its client has gone: it looks.
constexpr auto kLookAround = std::chrono::milliseconds(100);
constexpr uint64_t kAlignment = 64;  // of what is placed

absl::StatusOr<std::shared_ptr<Arena>> OpenBuffer(ArenaHost& host, Device* device, const std::string& owner,
                                                  const v1::AttachArenaRequest& request) {
  if (device == nullptr) return absl::FailedPreconditionError("this store has no GPU");
  if (request.bytes() == 0) return absl::InvalidArgumentError("a device buffer of no bytes");
  const v1::DeviceBuffer& buffer = request.device();
  if (buffer.offset() % kDeviceAlignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a device buffer at ", buffer.offset(),
                                                   ": offsets are multiples of ", kDeviceAlignment));
  }
  QUIRE_ASSIGN_OR_RETURN(
      std::shared_ptr<uint8_t> memory,
      device->Open({buffer.ipc_handle(), buffer.offset(), request.bytes(), buffer.device_uuid()}));
  return host.Adopt(owner, std::move(memory), request.bytes());
}

}  // namespace

absl::Status ServeArena(ArenaHost& host, Device* device, const std::string& owner,
                        const v1::AttachArenaRequest& request, const DrainGate& gate,
                        grpc::ServerContext& context, grpc::ServerWriter<v1::AttachArenaResponse>& writer,
                        StreamWatch::Stream& stream) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<Arena> arena, request.has_device()
                                                           ? OpenBuffer(host, device, owner, request)
                                                           : host.Create(owner, request.bytes()));
  v1::AttachArenaResponse response;
  if (!arena->on_device()) {
    response.set_socket(host.socket());
    response.set_token(std::string(arena->token().AsString()));
  }
  response.set_arena(arena->id());
  response.set_bytes(arena->bytes());
  absl::Status status;
  if (!writer.Write(response)) status = stream.Broken();
  while (status.ok() && !arena->WaitClosed(kLookAround)) {
    stream.Progress();
    if (context.IsCancelled()) status = stream.Broken();
    if (gate.finished()) status = DrainGate::Draining();
  }
  if (status.ok() && !arena->claimed())
    status = absl::DeadlineExceededError("nobody showed the arena's token in time");
  host.Close(*arena);
  return status;
}

absl::StatusOr<std::shared_ptr<Arena>> ArenaNamed(const ArenaHost* host, const std::string& owner,
                                                  const std::string& id) {
  if (id.empty()) return nullptr;
  if (host == nullptr) return absl::FailedPreconditionError("this store hands out no arenas");
  return host->Find(owner, id);
}

absl::StatusOr<Bytes> ChunkBytes(const v1::BlockData& chunk, const Arena* arena) {
  if (!chunk.has_arena_range()) {
    Bytes data = AsBytes(chunk.data());
    if (data.empty()) return absl::InvalidArgumentError("chunk without data");
    if (data.size() > kChunkBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("chunk of ", data.size(), " bytes: at most ", kChunkBytes));
    }
    return data;
  }
  if (arena == nullptr) return absl::InvalidArgumentError("a range of an arena, where none was announced");
  if (!chunk.data().empty()) return absl::InvalidArgumentError("a chunk with data and a range of an arena");
  if (chunk.arena_range().length() == 0) return absl::InvalidArgumentError("an empty range of an arena");
  QUIRE_ASSIGN_OR_RETURN(MutableBytes bytes,
                         arena->Range(chunk.arena_range().offset(), chunk.arena_range().length()));
  return Bytes(bytes);
}

absl::StatusOr<ArenaPlacer> ArenaPlacer::Create(std::shared_ptr<Arena> arena, const v1::GetRequest& request) {
  ArenaPlacer placer;
  if (request.arena_ranges_size() == 0) return placer;
  if (arena == nullptr) return absl::InvalidArgumentError("ranges of an arena, but no arena is named");
  if (request.arena_ranges_size() > kMaxRanges) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.arena_ranges_size(), " ranges of an arena: at most ", kMaxRanges));
  }
  for (const v1::ArenaRange& range : request.arena_ranges()) {
    QUIRE_RETURN_IF_ERROR(arena->Range(range.offset(), range.length()).status());
    placer.rooms_.push_back({range.offset(), range.offset() + range.length()});
  }
  placer.arena_ = std::move(arena);
  return placer;
}

MutableBytes ArenaPlacer::Take(uint64_t bytes, v1::ArenaRange* place) {
  const uint64_t alignment = on_device() ? kDeviceAlignment : kAlignment;
  // What does not fit into one range may fit into a later one; those before it are not gone back to, so that
  // blocks lie in the order they come.
  for (; next_ < rooms_.size(); ++next_) {
    Room& room = rooms_[next_];
    uint64_t begin = std::min((room.offset + alignment - 1) / alignment * alignment, room.end);
    if (room.end - begin < bytes) continue;
    absl::StatusOr<MutableBytes> to = arena_->Range(begin, bytes);
    if (!to.ok()) return {};
    room.offset = begin + bytes;
    place->set_offset(begin);
    place->set_length(bytes);
    return *to;
  }
  return {};
}

}  // namespace quire::store
