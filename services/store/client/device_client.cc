#include "services/store/client/device_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"
#include "services/store/wire/convert.h"

namespace quire::store {

using std::chrono::system_clock;

absl::StatusOr<std::unique_ptr<DeviceClient>> DeviceClient::Attach(std::shared_ptr<grpc::Channel> channel,
                                                                   const DeviceBufferOptions& options) {
  auto client = std::unique_ptr<DeviceClient>(new DeviceClient(std::move(channel)));
  client->call_timeout_ = options.call_timeout;
  v1::AttachArenaRequest request;
  request.set_bytes(options.bytes);
  request.mutable_device()->set_ipc_handle(options.ipc_handle);
  request.mutable_device()->set_offset(options.offset);
  request.mutable_device()->set_device_uuid(options.device_uuid);
  v1::AttachArenaResponse response;
  client->attached_ = client->stub_.AttachArena(&client->attach_context_, request);
  if (!client->attached_->Read(&response)) {
    absl::Status status = runtime::FromGrpc(client->attached_->Finish());
    client->attached_.reset();
    return status.ok() ? absl::UnavailableError("the store ended AttachArena at once") : status;
  }
  client->arena_ = response.arena();
  return client;
}

DeviceClient::~DeviceClient() {
  if (attached_ == nullptr) return;
  attach_context_.TryCancel();
  attached_->Finish();
}

absl::Status DeviceClient::Put(const Namespace& ns, std::span<const PutItem> blocks,
                               const PutOptions& options, std::vector<PutOutcome>* outcomes) {
  outcomes->assign(blocks.size(), {});
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + call_timeout_);
  auto stream = stub_.Put(&context);
  v1::PutRequest request;
  v1::PutAnnounce* announce = request.mutable_announce();
  ToProto(ns, announce->mutable_namespace_());
  for (const PutItem& block : blocks) ToProto(block.identity, block.bytes, announce->add_blocks());
  if (options.part != Part{}) ToProto(options.part, announce->mutable_part());
  announce->set_encode(options.encode);
  announce->set_ttl_ms(static_cast<uint64_t>(options.ttl.count()));
  announce->set_priority(options.priority);
  announce->set_arena(arena_);
  v1::PutResponse response;
  if (!stream->Write(request) || !stream->Read(&response) || !response.has_wanted()) {
    absl::Status status = runtime::FromGrpc(stream->Finish());
    return status.ok() ? absl::UnavailableError("the store ended Put without an answer") : status;
  }
  const v1::PutWanted wanted = response.wanted();
  bool sent = true;
  for (uint32_t i : wanted.blocks()) {
    if (i >= blocks.size()) {
      context.TryCancel();
      stream->Finish();
      return absl::DataLossError(absl::StrCat("the store wants block ", i, " of ", blocks.size()));
    }
    (*outcomes)[i] = {true, absl::UnavailableError("the store did not answer for the block"), 0};
    v1::BlockData* data = request.mutable_data();
    data->set_block(i);
    data->mutable_arena_range()->set_offset(blocks[i].offset);
    data->mutable_arena_range()->set_length(blocks[i].bytes);
    sent = sent && stream->Write(request);
  }
  // The answers are short messages: they wait in the transport while the chunks, as short, go out.
  if (sent) stream->WritesDone();
  while (stream->Read(&response)) {
    const v1::PutResult& result = response.result();
    if (!response.has_result() || result.block() >= blocks.size()) continue;
    PutOutcome& outcome = (*outcomes)[result.block()];
    outcome.status = absl::Status(static_cast<absl::StatusCode>(result.code()), result.message());
    outcome.stored_bytes = result.stored_bytes();
  }
  return runtime::FromGrpc(stream->Finish());
}

absl::Status DeviceClient::Get(const Namespace& ns, std::span<GetItem> blocks, const GetOptions& options,
                               std::optional<DType> decode, uint64_t offset, uint64_t bytes) {
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + (options.timeout.count() > 0 ? options.timeout : call_timeout_));
  v1::GetRequest request;
  ToProto(ns, request.mutable_namespace_());
  for (GetItem& block : blocks) {
    ToProto(block.identity, 0, request.add_blocks());
    block.offset = block.bytes = 0;
    block.levels = 0;
    block.status = absl::UnavailableError("the store did not answer for the block");
  }
  if (options.part != Part{}) ToProto(options.part, request.mutable_part());
  request.set_max_bits(options.max_bits);
  request.set_max_relative_error(options.max_relative_error);
  if (decode) request.mutable_decode()->set_dtype(ToProto(*decode));
  request.set_arena(arena_);
  v1::ArenaRange* range = request.add_arena_ranges();
  range->set_offset(offset);
  range->set_length(bytes);
  auto stream = stub_.Get(&context, request);
  v1::GetResponse response;
  while (stream->Read(&response)) {
    const uint32_t index = response.has_miss() ? response.miss().block() : response.data().block();
    if (index >= blocks.size()) continue;
    GetItem& block = blocks[index];
    if (response.has_miss()) {
      block.status =
          absl::Status(static_cast<absl::StatusCode>(response.miss().code()), response.miss().message());
    } else if (response.data().has_arena_range()) {
      block.offset = response.data().arena_range().offset();
      block.bytes = response.data().arena_range().length();
      block.levels = response.data().levels();
      block.status = absl::OkStatus();
    } else {
      block.status = absl::ResourceExhaustedError("the buffer has no room for the block");
    }
  }
  return runtime::FromGrpc(stream->Finish());
}

}  // namespace quire::store
