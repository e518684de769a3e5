#include "services/store/server/kv_service.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/put_session.h"
#include "services/store/server/arena_calls.h"
#include "services/store/server/device_get.h"
#include "services/store/server/device_put.h"
#include "services/store/server/get_stream.h"
#include "services/store/wire/convert.h"

namespace quire::store {
namespace {

absl::Status CheckKeys(int count) {
  if (static_cast<size_t>(count) <= kMaxKeys) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(count, " keys: at most ", kMaxKeys, " a request"));
}

absl::StatusOr<std::vector<Digest>> KeysOf(const v1::LookupRequest& request) {
  if (request.packed_keys().empty()) {
    QUIRE_RETURN_IF_ERROR(CheckKeys(request.keys_size()));
    return KeysFromProto(request.keys());
  }
  if (request.keys_size() > 0) return absl::InvalidArgumentError("keys and packed_keys: one of them");
  return PackedKeys(request.packed_keys());
}

struct Announce {
  Namespace ns;
  std::vector<BlockAnnounce> blocks;
  PutOptions options;
};
absl::StatusOr<Announce> AnnounceFromProto(Namespace ns, const v1::PutAnnounce& message) {
  Announce announce;
  announce.ns = std::move(ns);
  QUIRE_ASSIGN_OR_RETURN(announce.blocks, AnnouncesFromProto(message.blocks()));
  announce.options.part = FromProto(message.part());
  announce.options.encode = message.encode();
  if (message.ttl_ms() > kMaxTtlMs) {
    return absl::InvalidArgumentError(absl::StrCat("ttl_ms ", message.ttl_ms(), ": at most ", kMaxTtlMs));
  }
  announce.options.ttl = std::chrono::milliseconds(message.ttl_ms());
  announce.options.priority = message.priority();
  return announce;
}

// What of each wanted block has come, to know when one is whole.
struct Arrived {
  explicit Arrived(const std::vector<BlockAnnounce>& blocks, const std::vector<uint32_t>& wanted) {
    for (uint32_t i : wanted) left[i] = blocks[i].bytes;
    announced = &blocks;
  }
  // INVALID_ARGUMENT naming a block that was begun and not ended.
  absl::Status CheckEnd() const {
    for (const auto& [block, bytes] : left) {
      uint64_t all = (*announced)[block].bytes;
      if (bytes > 0 && bytes < all) {
        return absl::InvalidArgumentError(
            absl::StrCat("block ", block, ": the stream ended after ", all - bytes, " of ", all, " bytes"));
      }
    }
    return absl::OkStatus();
  }
  const std::vector<BlockAnnounce>* announced;
  absl::flat_hash_map<uint32_t, uint64_t> left;
};

}  // namespace

template <typename Request, typename Each>
absl::StatusOr<uint32_t> KvService::AboutKeys(const grpc::ServerContext& context, const Request& request,
                                              Each each) const {
  QUIRE_ASSIGN_OR_RETURN(Namespace ns, access_.Resolve(context, request.namespace_()));
  QUIRE_RETURN_IF_ERROR(CheckKeys(request.keys_size()));
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, KeysFromProto(request.keys()));
  return each(ns, keys);
}

grpc::Status KvService::RegisterLayout(grpc::ServerContext* context, const v1::RegisterLayoutRequest* request,
                                       v1::RegisterLayoutResponse* response) {
  RpcMetrics::Call call = metrics_.Start("RegisterLayout");
  if (absl::Status status = access_.CheckUser(*context); !status.ok()) return call.Done(status);
  absl::StatusOr<Layout> layout = FromProto(request->layout());
  if (!layout.ok()) return call.Done(layout.status());
  absl::StatusOr<Digest> fingerprint = store_.RegisterLayout(*layout);
  if (fingerprint.ok()) response->set_fingerprint(std::string(fingerprint->AsString()));
  return call.Done(fingerprint.status());
}

grpc::Status KvService::Lookup(grpc::ServerContext* context, const v1::LookupRequest* request,
                               v1::LookupResponse* response) {
  return metrics_.Start("Lookup").Done(DoLookup(*context, *request, response));
}

absl::Status KvService::DoLookup(const grpc::ServerContext& context, const v1::LookupRequest& request,
                                 v1::LookupResponse* response) {
  QUIRE_ASSIGN_OR_RETURN(Namespace ns, access_.Resolve(context, request.namespace_()));
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, KeysOf(request));
  LookupOptions options;
  options.part = FromProto(request.part());
  options.lease = std::chrono::milliseconds(request.lease_ms());
  options.all = request.all();
  QUIRE_ASSIGN_OR_RETURN(LookupResult result, store_.Lookup(ns, keys, options));
  ToProto(result.blocks, request.runs(), response->mutable_blocks());
  response->set_prefix_blocks(result.prefix_blocks);
  response->set_lease_id(result.lease_id);
  return absl::OkStatus();
}

grpc::Status KvService::Put(grpc::ServerContext* context, PutStream* messages) {
  RpcMetrics::Call call = metrics_.Start("Put");
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(DoPut(*context, stream, *messages));
}

absl::Status KvService::DoPut(const grpc::ServerContext& context, StreamWatch::Stream& stream,
                              PutStream& messages) {
  QUIRE_ASSIGN_OR_RETURN(std::string owner, access_.UserName(context));
  QUIRE_ASSIGN_OR_RETURN(DrainGate::Pass pass, gate_.Enter());
  v1::PutRequest request;  // reused for every chunk
  v1::PutResponse response;
  if (!messages.Read(&request)) return absl::InvalidArgumentError("the stream ended without an announcement");
  if (!request.has_announce()) return absl::InvalidArgumentError("a put stream begins with an announcement");
  QUIRE_ASSIGN_OR_RETURN(Namespace ns, access_.Resolve(context, request.announce().namespace_()));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<Arena> arena,
                         ArenaNamed(arenas_, owner, request.announce().arena()));
  QUIRE_ASSIGN_OR_RETURN(Announce announce, AnnounceFromProto(std::move(ns), request.announce()));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<LocalPutSession> session,
                         store_.BeginLocalPut(announce.ns, announce.blocks, announce.options));
  Arrived arrived(announce.blocks, session->wanted());
  response.mutable_wanted()->mutable_blocks()->Add(session->wanted().begin(), session->wanted().end());
  if (!messages.Write(response)) return stream.Broken();
  if (arena != nullptr && arena->on_device())
    return DevicePut(*session, announce.blocks, *arena, messages, stream).Run();

  while (messages.Read(&request)) {
    stream.Progress();
    if (!request.has_data()) return absl::InvalidArgumentError("after the announcement only data may come");
    const v1::BlockData& data = request.data();
    QUIRE_ASSIGN_OR_RETURN(Bytes bytes, ChunkBytes(data, arena.get()));
    QUIRE_RETURN_IF_ERROR(session->Write(data.block(), data.offset(), bytes));
    if (uint64_t& left = arrived.left.at(data.block()); (left -= bytes.size()) > 0) continue;
    absl::StatusOr<uint64_t> stored = session->Commit(data.block());
    v1::PutResult* result = response.mutable_result();
    result->set_block(data.block());
    result->set_code(static_cast<int32_t>(stored.status().code()));
    result->set_message(std::string(stored.status().message()));
    result->set_stored_bytes(stored.value_or(0));
    store_.faults().CrashHere(Fault::kCrashBeforeAnswer);
    if (!messages.Write(response)) return stream.Broken();
    store_.faults().CrashHere(Fault::kCrashAfterAnswer);
  }
  // Either the client has ended the stream or it is gone: what was not committed is given back with the
  // session.
  return arrived.CheckEnd();
}

grpc::Status KvService::Get(grpc::ServerContext* context, const v1::GetRequest* request,
                            Writer<v1::GetResponse>* writer) {
  RpcMetrics::Call call = metrics_.Start("Get");
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(DoGet(*context, stream, *request, *writer));
}

absl::Status KvService::DoGet(const grpc::ServerContext& context, StreamWatch::Stream& stream,
                              const v1::GetRequest& request, Writer<v1::GetResponse>& writer) {
  QUIRE_ASSIGN_OR_RETURN(Namespace ns, access_.Resolve(context, request.namespace_()));
  QUIRE_ASSIGN_OR_RETURN(std::string owner, access_.UserName(context));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<Arena> arena, ArenaNamed(arenas_, owner, request.arena()));
  const bool to_device = arena != nullptr && arena->on_device();
  QUIRE_ASSIGN_OR_RETURN(ArenaPlacer placer, ArenaPlacer::Create(std::move(arena), request));
  if (to_device || (store_.device() != nullptr && request.has_decode()))
    return DeviceGet(store_, std::move(ns), request, std::move(placer), writer, stream).Run();
  return GetStream(store_, std::move(ns), request, std::move(placer), writer, stream).Run();
}

grpc::Status KvService::Delete(grpc::ServerContext* context, const v1::DeleteRequest* request,
                               v1::DeleteResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Delete");
  absl::StatusOr<uint32_t> deleted = AboutKeys(*context, *request, [&](const auto& ns, const auto& keys) {
    return store_.Delete(ns, keys, request->force());
  });
  response->set_deleted(deleted.value_or(0));
  return call.Done(deleted.status());
}

grpc::Status KvService::Pin(grpc::ServerContext* context, const v1::PinRequest* request,
                            v1::PinResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Pin");
  absl::StatusOr<uint32_t> pinned =
      AboutKeys(*context, *request, [&](const auto& ns, const auto& keys) { return store_.Pin(ns, keys); });
  response->set_pinned(pinned.value_or(0));
  return call.Done(pinned.status());
}

grpc::Status KvService::Unpin(grpc::ServerContext* context, const v1::UnpinRequest* request,
                              v1::UnpinResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Unpin");
  absl::StatusOr<uint32_t> unpinned =
      AboutKeys(*context, *request, [&](const auto& ns, const auto& keys) { return store_.Unpin(ns, keys); });
  response->set_unpinned(unpinned.value_or(0));
  return call.Done(unpinned.status());
}

grpc::Status KvService::Touch(grpc::ServerContext* context, const v1::TouchRequest* request,
                              v1::TouchResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Touch");
  absl::StatusOr<uint32_t> touched =
      AboutKeys(*context, *request, [&](const auto& ns, const auto& keys) { return store_.Touch(ns, keys); });
  response->set_touched(touched.value_or(0));
  return call.Done(touched.status());
}

grpc::Status KvService::Prefetch(grpc::ServerContext* context, const v1::PrefetchRequest* request,
                                 v1::PrefetchResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Prefetch");
  absl::StatusOr<uint32_t> queued = AboutKeys(*context, *request, [&](const auto& ns, const auto& keys) {
    return store_.Prefetch(ns, keys, static_cast<Tier>(request->tier()));
  });
  response->set_queued(queued.value_or(0));
  return call.Done(queued.status());
}

grpc::Status KvService::Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                              Writer<v1::WatchResponse>* writer) {
  RpcMetrics::Call call = metrics_.Start("Watch");
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(WatchStream(store_, access_, watchers_, *context, *request, *writer, stream).Run());
}
grpc::Status KvService::AttachArena(grpc::ServerContext* context, const v1::AttachArenaRequest* request,
                                    Writer<v1::AttachArenaResponse>* writer) {
  RpcMetrics::Call call = metrics_.Start("AttachArena");
  absl::StatusOr<std::string> owner = access_.UserName(*context);
  if (!owner.ok()) return call.Done(owner.status());
  if (arenas_ == nullptr) return call.Done(absl::FailedPreconditionError("this store hands out no arenas"));
  if (gate_.closed()) return call.Done(DrainGate::Draining());
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(ServeArena(*arenas_, store_.device(), *owner, *request, gate_, *context, *writer, stream));
}

}  // namespace quire::store
