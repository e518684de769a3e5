// Where the bytes of a put stream lie in the client's arena until the store has answered for their blocks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/attached_arena.h"

namespace quire::store {

// Thread-safe.
class ArenaPut {
 public:
  // Null: there is no arena, all goes as data.
  explicit ArenaPut(std::shared_ptr<AttachedArena> arena) : arena_(std::move(arena)) {}

  // The most bytes of one message, for a stream whose blocks may go through the arena.
  static constexpr uint64_t kPieceBytes = 1 << 20;

  // The id to announce; "" without an arena.
  std::string id() const { return arena_ != nullptr ? arena_->id() : std::string(); }
  // Copies bytes of a block to the arena and has the chunk name them. False: they are to go as data (too few
  // to be worth it, or no room). `wait`: for the room of blocks that are yet to be answered.
  bool Place(uint32_t block, Bytes data, bool wait, v1::BlockData* chunk);
  // The store has answered for a block, so it has copied its bytes.
  void Answered(uint32_t block);
  // The stream broke off: the store may still be reading what is not answered for.
  void Abandon();

 private:
  const std::shared_ptr<AttachedArena> arena_;
  std::mutex mu_;  // guards all below
  std::condition_variable changed_;
  bool abandoned_ = false;
  absl::flat_hash_map<uint32_t, std::vector<AttachedArena::Range>> held_;  // by block
  uint64_t held_bytes_ = 0;
};

}  // namespace quire::store
