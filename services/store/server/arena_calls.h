// What the store's calls do with a client's arena: hand it out, take a Put's bytes from it, place a Get's
// bytes in it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/arena_host.h"
#include "services/store/engine/device.h"
#include "services/store/server/drain_gate.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// One AttachArena call: makes an arena for `owner`, or opens its buffer on `device` (null: there is none),
// and keeps it until the client or its connection goes, or the store has drained.
absl::Status ServeArena(ArenaHost& host, Device* device, const std::string& owner,
                        const v1::AttachArenaRequest& request, const DrainGate& gate,
                        grpc::ServerContext& context, grpc::ServerWriter<v1::AttachArenaResponse>& writer,
                        StreamWatch::Stream& stream);

// The arena that a request names; null if it names none. `host` null: this store has none to name.
absl::StatusOr<std::shared_ptr<Arena>> ArenaNamed(const ArenaHost* host, const std::string& owner,
                                                  const std::string& id);

// What a device needs of the places of buffers: kernels read 16 bytes at once, and more is as cheap.
inline constexpr uint64_t kDeviceAlignment = 256;

// The bytes of a Put's chunk: its data, or what it names in the arena (null: none was announced). The client
// may change the latter at any time: they are to be copied before they are looked at.
absl::StatusOr<Bytes> ChunkBytes(const v1::BlockData& chunk, const Arena* arena);

// The ranges a Get may fill, one after the other. Not thread-safe.
class ArenaPlacer {
 public:
  static constexpr int kMaxRanges = 256;

  // Of no ranges: places nothing.
  ArenaPlacer() = default;
  // INVALID_ARGUMENT for too many ranges, or one that is not within the arena.
  static absl::StatusOr<ArenaPlacer> Create(std::shared_ptr<Arena> arena, const v1::GetRequest& request);

  // Takes a place with room for so many bytes and says where it is; empty: there is none (or no arena any
  // more), and they go as data.
  MutableBytes Take(uint64_t bytes, v1::ArenaRange* place);
  bool on_device() const { return arena_ != nullptr && arena_->on_device(); }

 private:
  std::shared_ptr<Arena> arena_;
  struct Room {
    uint64_t offset = 0, end = 0;
  };
  std::vector<Room> rooms_;
  size_t next_ = 0;  // the first room that may hold something yet
};

}  // namespace quire::store
