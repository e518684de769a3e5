// The store's gRPC services over a LocalStore, for quire-store and for whoever hosts a store in its own
// process.
#pragma once

#include <grpcpp/grpcpp.h>
#include <prometheus/registry.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "services/runtime/authenticator.h"
#include "services/store/arena/arena_host.h"
#include "services/store/engine/local_store.h"

namespace quire::store {

struct StoreServicesOptions {
  // Who may call. Null: open mode, anyone as anyone.
  std::shared_ptr<runtime::Authenticator> authenticator;
  // A stream whose client neither sends nor takes bytes for this long is ended, and what it held is given
  // back.
  std::chrono::milliseconds stream_idle_limit{30'000};
  // Watch calls served at a time, each of which takes one of the server's streams for as long as it runs.
  uint32_t max_watchers = 64;
  // Memory to share with clients on this machine.
  ArenaOptions arena;
  // Raw bytes of one block that Encode or Decode will hold.
  uint64_t max_codec_block_bytes = uint64_t{256} << 20;
};

class StoreServices {
 public:
  // `registry`: where the calls are counted; the engine's own metrics are in the registry that the store was
  // created with.
  StoreServices(std::shared_ptr<LocalStore> store, prometheus::Registry& registry,
                StoreServicesOptions options = {});
  ~StoreServices();  // REQUIRES: the server that runs the services has stopped

  // KvStore, Codec and StoreAdmin, owned by this.
  std::vector<grpc::Service*> services() const;
  // See drainer.h. `begins`: what to do when a drain begins, whoever asks for it.
  void OnDrain(std::function<void()> begins);
  absl::Status Drain(std::chrono::milliseconds deadline);
  const ArenaHost* arenas() const;  // null: none are handed out

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::store
