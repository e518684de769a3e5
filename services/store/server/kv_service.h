// quire.v1.KvStore over a LocalStore.
#pragma once

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/arena_host.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/access.h"
#include "services/store/server/drain_gate.h"
#include "services/store/server/rpc_metrics.h"
#include "services/store/server/stream_watch.h"
#include "services/store/server/watch_stream.h"

namespace quire::store {

// All arguments are borrowed. Thread-safe.
class KvService final : public v1::KvStore::Service {
 public:
  KvService(LocalStore& store, const Access& access, const RpcMetrics& metrics, StreamWatch& watch,
            WatchLimit& watchers, DrainGate& gate, ArenaHost* arenas)
      : store_(store),
        access_(access),
        metrics_(metrics),
        watch_(watch),
        watchers_(watchers),
        gate_(gate),
        arenas_(arenas) {}

  template <typename Message>
  using Writer = grpc::ServerWriter<Message>;
  using PutStream = grpc::ServerReaderWriter<v1::PutResponse, v1::PutRequest>;

  grpc::Status RegisterLayout(grpc::ServerContext*, const v1::RegisterLayoutRequest*,
                              v1::RegisterLayoutResponse*) override;
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest*, v1::LookupResponse*) override;
  grpc::Status Put(grpc::ServerContext*, PutStream*) override;
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest*, Writer<v1::GetResponse>*) override;
  grpc::Status Delete(grpc::ServerContext*, const v1::DeleteRequest*, v1::DeleteResponse*) override;
  grpc::Status Pin(grpc::ServerContext*, const v1::PinRequest*, v1::PinResponse*) override;
  grpc::Status Unpin(grpc::ServerContext*, const v1::UnpinRequest*, v1::UnpinResponse*) override;
  grpc::Status Touch(grpc::ServerContext*, const v1::TouchRequest*, v1::TouchResponse*) override;
  grpc::Status Prefetch(grpc::ServerContext*, const v1::PrefetchRequest*, v1::PrefetchResponse*) override;
  grpc::Status Watch(grpc::ServerContext*, const v1::WatchRequest*, Writer<v1::WatchResponse>*) override;
  grpc::Status AttachArena(grpc::ServerContext*, const v1::AttachArenaRequest*,
                           Writer<v1::AttachArenaResponse>*) override;

 private:
  absl::Status DoLookup(const grpc::ServerContext& context, const v1::LookupRequest& request,
                        v1::LookupResponse* response);
  absl::Status DoGet(const grpc::ServerContext& context, StreamWatch::Stream& stream,
                     const v1::GetRequest& request, Writer<v1::GetResponse>& writer);
  absl::Status DoPut(const grpc::ServerContext& context, StreamWatch::Stream& stream, PutStream& messages);
  // A call about the keys of a namespace.
  template <typename Request, typename Each>
  absl::StatusOr<uint32_t> AboutKeys(const grpc::ServerContext& context, const Request& request,
                                     Each each) const;

  LocalStore& store_;
  const Access& access_;
  const RpcMetrics& metrics_;
  StreamWatch& watch_;
  WatchLimit& watchers_;
  DrainGate& gate_;
  ArenaHost* const arenas_;  // null: none are handed out
};

}  // namespace quire::store
