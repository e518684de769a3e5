#include "services/store/server/store_services.h"

#include <utility>

#include "services/store/server/access.h"
#include "services/store/server/admin_service.h"
#include "services/store/server/codec_service.h"
#include "services/store/server/kv_service.h"
#include "services/store/server/rpc_metrics.h"
#include "services/store/server/stream_watch.h"
#include "services/store/server/watch_stream.h"

namespace quire::store {

struct StoreServices::Impl {
  Impl(std::shared_ptr<LocalStore> s, prometheus::Registry& registry, const StoreServicesOptions& options)
      : store(std::move(s)),
        access(options.authenticator ? options.authenticator : runtime::Authenticator::OpenMode()),
        metrics(registry),
        watch(options.stream_idle_limit),
        watchers(options.max_watchers),
        kv(*store, access, metrics, watch, watchers),
        codec(access, metrics, watch, options.max_codec_block_bytes),
        admin(*store, access, metrics) {}

  std::shared_ptr<LocalStore> store;
  Access access;
  RpcMetrics metrics;
  StreamWatch watch;
  WatchLimit watchers;
  KvService kv;
  CodecService codec;
  AdminService admin;
};

StoreServices::StoreServices(std::shared_ptr<LocalStore> store, prometheus::Registry& registry,
                             StoreServicesOptions options)
    : impl_(std::make_unique<Impl>(std::move(store), registry, options)) {}

StoreServices::~StoreServices() = default;

std::vector<grpc::Service*> StoreServices::services() const {
  return {&impl_->kv, &impl_->codec, &impl_->admin};
}

}  // namespace quire::store
