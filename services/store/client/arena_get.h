// A Get whose objects come through the client's arena: the store copies them there, and they are verified and
// handed out where they lie.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/client/remote_get.h"

namespace quire::store {

// Two calls at a time, each with a window of the arena of its own: while one window's objects are handed out
// the store fills the other. What has no place in the arena comes as data.
class ArenaGet {
 public:
  // `request` has everything but blocks and ranges; `block_bytes`: about the size of an object, for the first
  // call. The rest as RemoteGet.
  ArenaGet(std::shared_ptr<AttachedArena> arena, const v1::GetRequest& request, const Part& wanted,
           std::span<const BlockIdentity> blocks, const GetSink& sink, RemoteGet::CodecOf codec_of,
           uint64_t block_bytes)
      : arena_(std::move(arena)),
        request_(request),
        wanted_(wanted),
        blocks_(blocks),
        sink_(sink),
        codec_of_(std::move(codec_of)),
        block_bytes_(block_bytes) {}

  // Where it fails, blocks before done() were handed out.
  absl::Status Run(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline);
  uint32_t done() const { return done_; }
  // Run has failed for want of the arena, or of room in it.
  bool arena_gone() const { return arena_gone_; }

 private:
  struct Batch;
  // The next call, if there are blocks left and room for their objects.
  std::unique_ptr<Batch> Start(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline);

  const std::shared_ptr<AttachedArena> arena_;
  const v1::GetRequest& request_;
  const Part wanted_;
  std::span<const BlockIdentity> blocks_;
  const GetSink& sink_;
  const RemoteGet::CodecOf codec_of_;
  uint64_t block_bytes_;  // of the largest object seen; before the first, a guess
  bool guessed_ = true;
  bool arena_gone_ = false, sink_stopped_ = false;
  uint32_t asked_ = 0;  // blocks of calls that were started
  uint32_t done_ = 0;   // blocks the sink has seen
};

}  // namespace quire::store
