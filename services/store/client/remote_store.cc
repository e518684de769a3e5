#include "services/store/client/remote_store.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/runtime/status.h"
#include "services/store/client/arena_get.h"
#include "services/store/client/arena_link.h"
#include "services/store/client/block_put.h"
#include "services/store/client/layer_stream.h"
#include "services/store/client/remote_get.h"
#include "services/store/client/remote_session.h"
#include "services/store/wire/convert.h"

namespace quire::store {

using std::chrono::system_clock;

struct RemoteStore::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel) : kv(channel), admin(channel) {}
  v1::KvStore::Stub kv;
  v1::StoreAdmin::Stub admin;
};

RemoteStore::RemoteStore(std::shared_ptr<grpc::Channel> channel, RemoteStoreOptions options)
    : options_(options), stubs_(std::make_unique<Stubs>(channel)) {
  if (options_.arena_bytes > 0) arena_ = std::make_unique<ArenaLink>(stubs_->kv, options_.arena_bytes);
}

RemoteStore::~RemoteStore() = default;

std::shared_ptr<AttachedArena> RemoteStore::arena() { return arena_ != nullptr ? arena_->Get() : nullptr; }

absl::Status RemoteStore::Retry(Deadline deadline, const Call& call,
                                const std::function<bool()>& again) const {
  Pauses pauses(options_.max_tries, options_.first_pause, options_.longest_pause);
  for (;;) {
    absl::Status status = call();
    if (!absl::IsUnavailable(status) || (again && !again()) || !pauses.Take(deadline)) return status;
  }
}

absl::Status RemoteStore::WithLayout(Deadline deadline, const Digest& fingerprint, const Call& call,
                                     const std::function<bool()>& again) {
  absl::Status status = call();
  if (!absl::IsNotFound(status) || (again && !again())) return status;
  std::shared_ptr<const Layout> layout = Known(fingerprint);
  if (layout == nullptr) return status;
  QUIRE_RETURN_IF_ERROR(Register(*layout, deadline).status());
  return call();
}

std::shared_ptr<const Layout> RemoteStore::Known(const Digest& fingerprint) const {
  std::shared_lock lock(mu_);
  auto it = layouts_.find(fingerprint);
  return it == layouts_.end() ? nullptr : it->second;
}

absl::StatusOr<std::shared_ptr<const BlockCodec>> RemoteStore::Codec(const Digest& fingerprint,
                                                                     const Part& part) {
  constexpr size_t kCachedCodecs = 256;
  std::pair<Digest, Part> key(fingerprint, part);
  std::shared_ptr<const Layout> layout;
  {
    std::shared_lock lock(mu_);
    if (auto it = codecs_.find(key); it != codecs_.end()) return it->second;
    auto it = layouts_.find(fingerprint);
    if (it == layouts_.end())
      return absl::NotFoundError("this client was not told the layout: call RegisterLayout first");
    layout = it->second;
  }
  QUIRE_RETURN_IF_ERROR(part.Validate(*layout));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, BlockCodec::Create(*layout, part));
  std::lock_guard lock(mu_);
  if (codecs_.size() >= kCachedCodecs) codecs_.clear();
  return codecs_.try_emplace(key, std::move(codec)).first->second;
}

absl::StatusOr<Digest> RemoteStore::Register(const Layout& layout, Deadline deadline) {
  v1::RegisterLayoutRequest request;
  ToProto(layout, request.mutable_layout());
  v1::RegisterLayoutResponse response;
  QUIRE_RETURN_IF_ERROR(Retry(deadline, [&] {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    return runtime::FromGrpc(stubs_->kv.RegisterLayout(&context, request, &response));
  }));
  return DigestFromProto("fingerprint", response.fingerprint());
}

absl::StatusOr<Digest> RemoteStore::RegisterLayout(const Layout& layout) {
  QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, Register(layout, system_clock::now() + options_.call_timeout));
  if (fingerprint != layout.Fingerprint()) {
    return absl::InternalError(
        "store and client disagree on the layout's fingerprint: their versions differ");
  }
  std::lock_guard lock(mu_);
  layouts_.try_emplace(fingerprint, std::make_shared<const Layout>(layout));
  return fingerprint;
}

absl::StatusOr<LookupResult> RemoteStore::Lookup(const Namespace& ns, std::span<const Digest> keys,
                                                 const LookupOptions& options) {
  if (options.lease.count() < 0 || options.lease.count() > UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("lease of ", options.lease.count(), " ms"));
  }
  v1::LookupRequest request;
  ToProto(ns, request.mutable_namespace_());
  request.mutable_packed_keys()->reserve(keys.size() * sizeof(Digest::bytes));
  for (const Digest& key : keys) request.mutable_packed_keys()->append(key.AsString());
  request.set_runs(true);
  if (options.part != Part{}) ToProto(options.part, request.mutable_part());
  request.set_lease_ms(static_cast<uint32_t>(options.lease.count()));
  request.set_all(options.all);

  Deadline deadline = system_clock::now() + options_.call_timeout;
  v1::LookupResponse response;
  QUIRE_RETURN_IF_ERROR(WithLayout(deadline, ns.fingerprint, [&] {
    return Retry(deadline, [&] {
      grpc::ClientContext context;
      context.set_deadline(deadline);
      return runtime::FromGrpc(stubs_->kv.Lookup(&context, request, &response));
    });
  }));
  absl::StatusOr<std::vector<BlockState>> states = StatesFromProto(response.blocks(), keys.size());
  if (!states.ok() || response.prefix_blocks() > states->size())
    return absl::InternalError("store answered a lookup with more blocks than were asked for");
  LookupResult result;
  result.blocks = *std::move(states);
  result.prefix_blocks = response.prefix_blocks();
  result.lease_id = response.lease_id();
  return result;
}

namespace {

v1::PutRequest AnnounceOf(const Namespace& ns, const PutOptions& options) {
  v1::PutRequest request;
  v1::PutAnnounce* announce = request.mutable_announce();
  ToProto(ns, announce->mutable_namespace_());
  if (options.part != Part{}) ToProto(options.part, announce->mutable_part());
  announce->set_encode(options.encode);
  announce->set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(options.ttl.count(), 0)));
  announce->set_priority(options.priority);
  return request;
}

v1::GetRequest GetRequestOf(const Namespace& ns, std::span<const BlockIdentity> blocks, const Part& part,
                            const GetOptions& options) {
  v1::GetRequest request;
  ToProto(ns, request.mutable_namespace_());
  for (const BlockIdentity& block : blocks) ToProto(block, 0, request.add_blocks());
  ToProto(part, request.mutable_part());
  request.set_max_bits(options.max_bits);
  request.set_max_relative_error(options.max_relative_error);
  return request;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PutSession>> RemoteStore::BeginPut(const Namespace& ns,
                                                                  std::span<const BlockAnnounce> blocks,
                                                                  const PutOptions& options) {
  v1::PutRequest request = AnnounceOf(ns, options);
  for (const BlockAnnounce& block : blocks)
    ToProto(block.identity, block.bytes, request.mutable_announce()->add_blocks());
  Deadline deadline = system_clock::now() + options_.stream_timeout;
  std::unique_ptr<Session> session;
  QUIRE_RETURN_IF_ERROR(WithLayout(deadline, ns.fingerprint, [&] {
    auto context = std::make_shared<grpc::ClientContext>();
    context->set_deadline(deadline);
    absl::StatusOr<std::unique_ptr<Session>> begun =
        Session::Begin(stubs_->kv, std::move(context), request, blocks, arena());
    if (begun.ok()) session = *std::move(begun);
    return begun.status();
  }));
  return session;
}

absl::Status RemoteStore::PutBlocks(const Namespace& ns, std::span<const PutBlock> blocks,
                                    const PutOptions& options, std::vector<PutOutcome>* outcomes) {
  v1::PutRequest request = AnnounceOf(ns, options);
  for (const PutBlock& block : blocks)
    ToProto(block.identity, block.data.size(), request.mutable_announce()->add_blocks());
  Deadline deadline = system_clock::now() + options_.stream_timeout;
  return WithLayout(deadline, ns.fingerprint, [&] {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    return PutWholeBlocks(stubs_->kv, context, request, blocks, arena(), *outcomes);
  });
}

Deadline RemoteStore::StreamDeadline(const GetOptions& options) const {
  auto timeout = options.timeout.count() > 0 ? std::min(options.timeout, options_.stream_timeout)
                                             : options_.stream_timeout;
  return system_clock::now() + timeout;
}

absl::StatusOr<Part> RemoteStore::PartOf(const Digest& fingerprint, const Part& part) const {
  std::shared_ptr<const Layout> layout = Known(fingerprint);
  if (layout == nullptr)
    return absl::NotFoundError("this client was not told the layout: call RegisterLayout first");
  Part wanted = part == Part{} ? Part::Whole(*layout) : part;
  QUIRE_RETURN_IF_ERROR(wanted.Validate(*layout));
  return wanted;
}

absl::Status RemoteStore::Get(const Namespace& ns, std::span<const BlockIdentity> blocks,
                              const GetOptions& options, const GetSink& sink) {
  QUIRE_ASSIGN_OR_RETURN(Part wanted, PartOf(ns.fingerprint, options.part));
  Deadline deadline = StreamDeadline(options);
  auto codec_of = [&](const Part& part) { return Codec(ns.fingerprint, part); };
  auto run = [&](auto& get, auto again) {
    return WithLayout(
        deadline, ns.fingerprint,
        [&] {
          return Retry(
              deadline, [&] { return get.Run(stubs_->kv, deadline); }, again);
        },
        again);
  };
  uint32_t done = 0;
  if (std::shared_ptr<AttachedArena> attached = arena(); attached != nullptr && !blocks.empty()) {
    v1::GetRequest request = GetRequestOf(ns, {}, wanted, options);
    ArenaGet get(attached, request, wanted, blocks, sink, codec_of, Known(ns.fingerprint)->RawBlockBytes());
    absl::Status status = run(get, [&] { return get.done() == 0; });
    if (!get.arena_gone()) return status;
    done = get.done();  // the rest without it
  }
  GetSink rest;
  rest.on_block = [&](uint32_t block, Bytes object) { return sink.on_block(done + block, object); };
  rest.on_miss = [&](uint32_t block, const absl::Status& why) { return sink.on_miss(done + block, why); };
  v1::GetRequest request = GetRequestOf(ns, blocks.subspan(done), wanted, options);
  RemoteGet get(request, wanted, blocks.subspan(done), rest, codec_of);
  return run(get, [&] { return !get.started(); });
}

absl::StatusOr<std::unique_ptr<LayerStream>> RemoteStore::OpenLayers(const Namespace& ns,
                                                                     std::span<const BlockIdentity> blocks,
                                                                     const GetOptions& options,
                                                                     uint64_t lease_id) {
  QUIRE_ASSIGN_OR_RETURN(Part wanted, PartOf(ns.fingerprint, options.part));
  v1::GetRequest request = GetRequestOf(ns, blocks, wanted, options);
  request.set_order(v1::GetRequest::BY_LAYER);
  request.set_lease_id(lease_id);
  Deadline deadline = StreamDeadline(options);
  std::unique_ptr<LayerStream> layers;
  auto open = [&] {
    auto context = std::make_shared<grpc::ClientContext>();
    context->set_deadline(deadline);
    absl::StatusOr<std::unique_ptr<LayerStream>> opened =
        LayerStream::Open(stubs_->kv, std::move(context), request, wanted, {blocks.begin(), blocks.end()},
                          [&](const Part& part) { return Codec(ns.fingerprint, part); });
    if (opened.ok()) layers = *std::move(opened);
    return opened.status();
  };
  QUIRE_RETURN_IF_ERROR(WithLayout(deadline, ns.fingerprint, [&] { return Retry(deadline, open); }));
  return layers;
}

template <typename Response, typename Method, typename Request>
absl::StatusOr<Response> RemoteStore::Ask(Method method, const Namespace& ns, Request request) {
  ToProto(ns, request.mutable_namespace_());
  Deadline deadline = system_clock::now() + options_.call_timeout;
  Response response;
  QUIRE_RETURN_IF_ERROR(WithLayout(deadline, ns.fingerprint, [&] {
    return Retry(deadline, [&] {
      grpc::ClientContext context;
      context.set_deadline(deadline);
      return runtime::FromGrpc((stubs_->kv.*method)(&context, request, &response));
    });
  }));
  return response;
}

namespace {

template <typename Request>
Request WithKeys(std::span<const Digest> keys) {
  Request request;
  request.mutable_keys()->Reserve(static_cast<int>(keys.size()));
  for (const Digest& key : keys) request.add_keys(std::string(key.AsString()));
  return request;
}

}  // namespace

absl::StatusOr<uint32_t> RemoteStore::Delete(const Namespace& ns, std::span<const Digest> keys, bool force) {
  auto request = WithKeys<v1::DeleteRequest>(keys);
  request.set_force(force);
  QUIRE_ASSIGN_OR_RETURN(v1::DeleteResponse response,
                         Ask<v1::DeleteResponse>(&v1::KvStore::Stub::Delete, ns, std::move(request)));
  return response.deleted();
}

absl::StatusOr<uint32_t> RemoteStore::Pin(const Namespace& ns, std::span<const Digest> keys) {
  QUIRE_ASSIGN_OR_RETURN(v1::PinResponse response,
                         Ask<v1::PinResponse>(&v1::KvStore::Stub::Pin, ns, WithKeys<v1::PinRequest>(keys)));
  return response.pinned();
}

absl::StatusOr<uint32_t> RemoteStore::Unpin(const Namespace& ns, std::span<const Digest> keys) {
  QUIRE_ASSIGN_OR_RETURN(
      v1::UnpinResponse response,
      Ask<v1::UnpinResponse>(&v1::KvStore::Stub::Unpin, ns, WithKeys<v1::UnpinRequest>(keys)));
  return response.unpinned();
}

absl::StatusOr<uint32_t> RemoteStore::Touch(const Namespace& ns, std::span<const Digest> keys) {
  QUIRE_ASSIGN_OR_RETURN(
      v1::TouchResponse response,
      Ask<v1::TouchResponse>(&v1::KvStore::Stub::Touch, ns, WithKeys<v1::TouchRequest>(keys)));
  return response.touched();
}

absl::StatusOr<uint32_t> RemoteStore::Prefetch(const Namespace& ns, std::span<const Digest> keys, Tier tier) {
  auto request = WithKeys<v1::PrefetchRequest>(keys);
  request.set_tier(static_cast<v1::Tier>(tier));
  QUIRE_ASSIGN_OR_RETURN(v1::PrefetchResponse response,
                         Ask<v1::PrefetchResponse>(&v1::KvStore::Stub::Prefetch, ns, std::move(request)));
  return response.queued();
}

absl::StatusOr<StoreStats> RemoteStore::Stats() {
  Deadline deadline = system_clock::now() + options_.call_timeout;
  v1::StatsResponse response;
  QUIRE_RETURN_IF_ERROR(Retry(deadline, [&] {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    return runtime::FromGrpc(stubs_->admin.Stats(&context, v1::StatsRequest(), &response));
  }));
  return FromProto(response);
}

}  // namespace quire::store
