// The ways to a store that the conformance suite runs on: the engine itself, and a client of a real server,
// without and with shared memory.
#pragma once

#include <memory>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"

namespace quire::store {

inline LocalStoreOptions SmallStore(uint64_t host_bytes = 16 << 20) {
  LocalStoreOptions options;
  options.host_bytes = host_bytes;
  return options;
}

class LocalBackend {
 public:
  explicit LocalBackend(const LocalStoreOptions& options) : engine_(*LocalStore::Create(options)) {}
  KvStore& store() { return *engine_; }
  LocalStore& engine() { return *engine_; }

 private:
  std::shared_ptr<LocalStore> engine_;
};

// A server on a port of its own and a channel to it.
class ServedStore {
 public:
  explicit ServedStore(const LocalStoreOptions& options, StoreServicesOptions services = {})
      : registry_(runtime::NewRegistry()),
        engine_(*LocalStore::Create(options)),
        services_(engine_, *registry_, services) {
    server_ = *runtime::Server::Start({}, services_.services());
  }
  ~ServedStore() { Stop(); }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::milliseconds(0));
    server_.reset();
  }
  LocalStore& engine() { return *engine_; }
  const std::string& address() const { return server_->address(); }
  std::shared_ptr<grpc::Channel> NewChannel() const { return *runtime::NewChannel(server_->address()); }
  const prometheus::Registry& registry() const { return *registry_; }
  StoreServices& services() { return services_; }
  const ArenaHost& arenas() const { return *services_.arenas(); }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::shared_ptr<LocalStore> engine_;
  StoreServices services_;
  std::unique_ptr<runtime::Server> server_;
};

class RemoteBackend {
 public:
  explicit RemoteBackend(const LocalStoreOptions& options)
      : served_(options), remote_(served_.NewChannel()) {}
  KvStore& store() { return remote_; }
  LocalStore& engine() { return served_.engine(); }

 private:
  ServedStore served_;
  RemoteStore remote_;
};

// The same, with the bytes through shared memory: little of it, so that some find no room.
class ArenaBackend {
 public:
  explicit ArenaBackend(const LocalStoreOptions& options)
      : served_(options), remote_(served_.NewChannel(), Options()) {
    EXPECT_NE(remote_.arena(), nullptr);
  }
  ~ArenaBackend() { EXPECT_NE(remote_.arena(), nullptr); }
  KvStore& store() { return remote_; }
  LocalStore& engine() { return served_.engine(); }

 private:
  static RemoteStoreOptions Options() {
    RemoteStoreOptions options;
    options.arena_bytes = 512 << 10;
    return options;
  }
  ServedStore served_;
  RemoteStore remote_;
};

// Waits until the server has noticed that the clients of all put sessions are gone.
inline void AwaitNoSessions(LocalStore& engine) {
  while (engine.Stats()->put_sessions > 0) std::this_thread::yield();
}
inline uint64_t UsedBytes(LocalStore& engine) { return engine.Stats()->tiers.front().used_bytes; }

}  // namespace quire::store
