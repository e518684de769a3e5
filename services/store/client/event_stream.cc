#include "services/store/client/event_stream.h"

#include <utility>

#include "core/base/status_macros.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/runtime/status.h"
#include "services/store/wire/convert.h"
#include "services/store/wire/metadata.h"

namespace quire::store {

const char* Name(WatchedEvent::Kind kind) {
  constexpr const char* kNames[] = {"stored", "degraded", "moved", "removed"};
  return kNames[static_cast<int>(kind)];
}

struct EventStream::Impl {
  explicit Impl(const std::shared_ptr<grpc::Channel>& channel) : stub(channel) {}
  // REQUIRES: nobody reads.
  absl::Status End() {
    if (!end) {
      v1::WatchResponse response;
      while (stream->Read(&response)) {
      }
      absl::Status status = runtime::FromGrpc(stream->Finish());
      end = status.ok() ? absl::UnavailableError("the store ended the watch") : status;
    }
    return *end;
  }

  v1::KvStore::Stub stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> stream;
  v1::WatchResponse response;  // reused
  std::optional<absl::Status> end;
};

absl::StatusOr<std::unique_ptr<EventStream>> EventStream::Open(const std::shared_ptr<grpc::Channel>& channel,
                                                               const WatchOptions& options) {
  v1::WatchRequest request;
  request.mutable_namespace_()->set_tenant(options.tenant);
  if (options.fingerprint)
    request.mutable_namespace_()->set_fingerprint(std::string(options.fingerprint->AsString()));
  request.set_from_sequence(options.from_sequence);
  request.set_run(options.run);
  auto stream = std::unique_ptr<EventStream>(new EventStream());
  stream->impl_ = std::make_unique<Impl>(channel);
  Impl& impl = *stream->impl_;
  impl.stream = impl.stub.Watch(&impl.context, request);
  impl.stream->WaitForInitialMetadata();
  // Metadata come with an error too, as all that comes; then there is no more to read.
  if (impl.context.GetServerInitialMetadata().count(kWatchBegun) == 0) return impl.End();
  return stream;
}

EventStream::~EventStream() {
  if (impl_->stream == nullptr || impl_->end) return;
  impl_->context.TryCancel();
  (void)impl_->End();
}

void EventStream::Cancel() { impl_->context.TryCancel(); }

absl::StatusOr<WatchedEvent> EventStream::Next() {
  if (impl_->end || !impl_->stream->Read(&impl_->response)) return impl_->End();
  const v1::WatchResponse& message = impl_->response;
  WatchedEvent event;
  event.sequence = message.sequence();
  event.run = message.run();
  if (v1::WatchResponse::Kind_IsValid(message.kind()))
    event.kind = static_cast<WatchedEvent::Kind>(message.kind());
  QUIRE_ASSIGN_OR_RETURN(event.key, DigestFromProto("key", message.key()));
  QUIRE_ASSIGN_OR_RETURN(event.fingerprint, DigestFromProto("fingerprint", message.fingerprint()));
  if (v1::Tier_IsValid(message.tier())) event.tier = static_cast<Tier>(message.tier());
  event.levels = message.levels();
  return event;
}

}  // namespace quire::store
