// A client's arena: attached when it is first wanted, and again after the store was restarted or a call broke
// off.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/attached_arena.h"

namespace quire::store {

// Thread-safe.
class ArenaLink {
 public:
  // `stub` is borrowed. `bytes`: of the arena.
  ArenaLink(v1::KvStore::Stub& stub, uint64_t bytes) : stub_(stub), bytes_(bytes) {}
  ~ArenaLink();

  // An arena that can be used; null while there is none to be had (another machine's store, one that hands
  // out none, or no more). After a failure the next attempt waits, longer after each.
  std::shared_ptr<AttachedArena> Get();

 private:
  // The call that keeps the arena, for as long as nobody reads from it.
  struct Attachment {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::AttachArenaResponse>> stream;
    std::shared_ptr<AttachedArena> arena;
    ~Attachment();
  };
  absl::StatusOr<std::unique_ptr<Attachment>> Attach();

  v1::KvStore::Stub& stub_;
  const uint64_t bytes_;
  std::mutex mu_;  // guards all below
  std::unique_ptr<Attachment> attachment_;
  std::chrono::milliseconds pause_{0};
  std::chrono::steady_clock::time_point next_attempt_;
};

}  // namespace quire::store
