#include "services/store/server/store_services.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "services/store/server/access.h"
#include "services/store/server/admin_service.h"
#include "services/store/server/codec_service.h"
#include "services/store/server/drain_gate.h"
#include "services/store/server/drainer.h"
#include "services/store/server/kv_service.h"
#include "services/store/server/rpc_metrics.h"
#include "services/store/server/stream_watch.h"
#include "services/store/server/watch_stream.h"

namespace quire::store {

namespace {

// A store does without arenas rather than not at all.
std::unique_ptr<ArenaHost> StartArenas(const ArenaOptions& options) {
  if (options.max_bytes == 0) return nullptr;
  absl::StatusOr<std::unique_ptr<ArenaHost>> host = ArenaHost::Start(options);
  if (host.ok()) return *std::move(host);
  spdlog::error("the store hands out no arenas: {}", std::string(host.status().message()));
  return nullptr;
}

}  // namespace

struct StoreServices::Impl {
  Impl(std::shared_ptr<LocalStore> s, prometheus::Registry& registry, const StoreServicesOptions& options)
      : store(std::move(s)),
        access(options.authenticator ? options.authenticator : runtime::Authenticator::OpenMode()),
        metrics(registry),
        watch(options.stream_idle_limit),
        watchers(options.max_watchers),
        arenas(StartArenas(options.arena)),
        kv(*store, access, metrics, watch, watchers, gate, arenas.get()),
        codec(*store, access, metrics, watch, options.max_codec_block_bytes),
        drainer(*store, gate, watchers, watch),
        admin(*store, access, metrics, watch, drainer) {}

  std::shared_ptr<LocalStore> store;
  Access access;
  RpcMetrics metrics;
  StreamWatch watch;
  WatchLimit watchers;
  DrainGate gate;
  std::unique_ptr<ArenaHost> arenas;
  KvService kv;
  CodecService codec;
  Drainer drainer;
  AdminService admin;
};

StoreServices::StoreServices(std::shared_ptr<LocalStore> store, prometheus::Registry& registry,
                             StoreServicesOptions options)
    : impl_(std::make_unique<Impl>(std::move(store), registry, options)) {}

StoreServices::~StoreServices() = default;

void StoreServices::OnDrain(std::function<void()> begins) { impl_->drainer.OnDrain(std::move(begins)); }

absl::Status StoreServices::Drain(std::chrono::milliseconds deadline) {
  return impl_->drainer.Drain(deadline);
}

const ArenaHost* StoreServices::arenas() const { return impl_->arenas.get(); }

std::vector<grpc::Service*> StoreServices::services() const {
  return {&impl_->kv, &impl_->codec, &impl_->admin};
}

}  // namespace quire::store
