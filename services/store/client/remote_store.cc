#include "services/store/client/remote_store.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/runtime/status.h"
#include "services/store/client/remote_get.h"
#include "services/store/client/remote_session.h"
#include "services/store/wire/convert.h"

namespace quire::store {

using std::chrono::milliseconds;
using std::chrono::system_clock;

struct RemoteStore::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel) : kv(channel), admin(channel) {}
  v1::KvStore::Stub kv;
  v1::StoreAdmin::Stub admin;
};

RemoteStore::RemoteStore(std::shared_ptr<grpc::Channel> channel, RemoteStoreOptions options)
    : options_(options), stubs_(std::make_unique<Stubs>(channel)) {}

RemoteStore::~RemoteStore() = default;

absl::Status RemoteStore::Retry(Deadline deadline, const Call& call,
                                const std::function<bool()>& again) const {
  absl::BitGen random;
  auto pause = options_.first_pause;
  for (int tries = 1;; ++tries) {
    absl::Status status = call();
    if (!absl::IsUnavailable(status) || tries >= options_.max_tries || (again && !again())) return status;
    milliseconds wait(
        static_cast<int64_t>(static_cast<double>(pause.count()) * absl::Uniform(random, 0.5, 1.5)));
    if (system_clock::now() + wait >= deadline) return status;
    std::this_thread::sleep_for(wait);
    pause = std::min(2 * pause, options_.longest_pause);
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
  request.mutable_keys()->Reserve(static_cast<int>(keys.size()));
  for (const Digest& key : keys) request.add_keys(std::string(key.AsString()));
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
  if (response.prefix_blocks() > static_cast<uint32_t>(response.blocks_size()) ||
      static_cast<size_t>(response.blocks_size()) > keys.size()) {
    return absl::InternalError("store answered a lookup with more blocks than were asked for");
  }
  LookupResult result;
  result.blocks.reserve(static_cast<size_t>(response.blocks_size()));
  for (const v1::BlockState& state : response.blocks()) result.blocks.push_back(FromProto(state));
  result.prefix_blocks = response.prefix_blocks();
  result.lease_id = response.lease_id();
  return result;
}

absl::StatusOr<std::unique_ptr<PutSession>> RemoteStore::BeginPut(const Namespace& ns,
                                                                  std::span<const BlockAnnounce> blocks,
                                                                  const PutOptions& options) {
  v1::PutRequest request;
  v1::PutAnnounce* announce = request.mutable_announce();
  ToProto(ns, announce->mutable_namespace_());
  for (const BlockAnnounce& block : blocks) ToProto(block.identity, block.bytes, announce->add_blocks());
  if (options.part != Part{}) ToProto(options.part, announce->mutable_part());
  announce->set_encode(options.encode);
  announce->set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(options.ttl.count(), 0)));
  announce->set_priority(options.priority);

  Deadline deadline = system_clock::now() + options_.stream_timeout;
  std::unique_ptr<Session> session;
  QUIRE_RETURN_IF_ERROR(WithLayout(deadline, ns.fingerprint, [&] {
    auto context = std::make_shared<grpc::ClientContext>();
    context->set_deadline(deadline);
    absl::StatusOr<std::unique_ptr<Session>> begun =
        Session::Begin(stubs_->kv, std::move(context), request, blocks);
    if (begun.ok()) session = *std::move(begun);
    return begun.status();
  }));
  return session;
}

absl::Status RemoteStore::Get(const Namespace& ns, std::span<const BlockIdentity> blocks,
                              const GetOptions& options, const GetSink& sink) {
  std::shared_ptr<const Layout> layout = Known(ns.fingerprint);
  if (layout == nullptr)
    return absl::NotFoundError("this client was not told the layout: call RegisterLayout first");
  Part wanted = options.part == Part{} ? Part::Whole(*layout) : options.part;
  QUIRE_RETURN_IF_ERROR(wanted.Validate(*layout));
  v1::GetRequest request;
  ToProto(ns, request.mutable_namespace_());
  for (const BlockIdentity& block : blocks) ToProto(block, 0, request.add_blocks());
  ToProto(wanted, request.mutable_part());
  request.set_max_bits(options.max_bits);
  request.set_max_relative_error(options.max_relative_error);

  auto timeout = options.timeout.count() > 0 ? std::min(options.timeout, options_.stream_timeout)
                                             : options_.stream_timeout;
  Deadline deadline = system_clock::now() + timeout;
  RemoteGet get(request, wanted, blocks, sink, [&](const Part& part) { return Codec(ns.fingerprint, part); });
  auto again = [&] { return !get.started(); };
  return WithLayout(
      deadline, ns.fingerprint,
      [&] {
        return Retry(
            deadline, [&] { return get.Run(stubs_->kv, deadline); }, again);
      },
      again);
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
