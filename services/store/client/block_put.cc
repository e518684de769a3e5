#include "services/store/client/block_put.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"
#include "services/store/api/limits.h"
#include "services/store/client/arena_put.h"

namespace quire::store {
namespace {

using Stream = grpc::ClientReaderWriter<v1::PutRequest, v1::PutResponse>;

// What the server says of the blocks, read until it ends the stream.
absl::Status ReadResults(Stream& stream, ArenaPut& arena, std::vector<PutOutcome>& outcomes) {
  absl::Status status;
  for (v1::PutResponse response; stream.Read(&response);) {
    const v1::PutResult& result = response.result();
    if (!response.has_result() || result.block() >= outcomes.size() || !outcomes[result.block()].wanted) {
      status =
          absl::InternalError("store answered the bytes of blocks with something else than their results");
      continue;
    }
    PutOutcome& outcome = outcomes[result.block()];
    outcome.status = absl::Status(static_cast<absl::StatusCode>(result.code()), result.message());
    outcome.stored_bytes = result.stored_bytes();
    arena.Answered(result.block());
  }
  arena.Abandon();  // whoever waits for room would wait for ever; if all went well nothing is held
  return status;
}

// False if the stream broke.
bool SendBlock(Stream& stream, uint32_t block, Bytes bytes, ArenaPut& arena, v1::PutRequest& request) {
  v1::BlockData* data = request.mutable_data();
  data->set_block(block);
  for (uint64_t offset = 0; offset < bytes.size(); offset += kChunkBytes) {
    Bytes chunk = bytes.subspan(offset, std::min<uint64_t>(bytes.size() - offset, kChunkBytes));
    data->set_offset(offset);
    if (!arena.Place(block, chunk, /*wait=*/true, data))
      data->mutable_data()->assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
    if (!stream.Write(request)) return false;
  }
  return true;
}

}  // namespace

absl::Status PutWholeBlocks(v1::KvStore::Stub& stub, grpc::ClientContext& context, v1::PutRequest announce,
                            std::span<const PutBlock> blocks, std::shared_ptr<AttachedArena> attached,
                            std::vector<PutOutcome>& outcomes) {
  outcomes.assign(blocks.size(), {});
  ArenaPut arena(std::move(attached));
  announce.mutable_announce()->set_arena(arena.id());
  std::unique_ptr<Stream> stream = stub.Put(&context);
  v1::PutResponse response;
  std::vector<uint32_t> wanted;
  absl::Status failure;
  if (stream->Write(announce) && stream->Read(&response)) {
    for (uint32_t index : response.wanted().blocks()) {
      if (index >= blocks.size())
        failure = absl::InternalError(absl::StrCat("store wants block ", index, " of ", blocks.size()));
      else
        wanted.push_back(index);
    }
    if (!response.has_wanted())
      failure = absl::InternalError("store answered an announcement with something else than PutWanted");
  }
  for (uint32_t block : wanted) outcomes[block] = {true, absl::UnknownError("the store has not answered"), 0};

  absl::Status results;
  {
    std::jthread reader([&] { results = ReadResults(*stream, arena, outcomes); });
    if (!failure.ok()) context.TryCancel();
    v1::PutRequest request;  // reused for every chunk
    for (uint32_t block : wanted) {
      if (!failure.ok() || !SendBlock(*stream, block, blocks[block].data, arena, request)) break;
    }
    stream->WritesDone();
  }
  absl::Status status = runtime::FromGrpc(stream->Finish());
  QUIRE_RETURN_IF_ERROR(failure);
  QUIRE_RETURN_IF_ERROR(results);
  QUIRE_RETURN_IF_ERROR(status);
  bool answered = std::none_of(outcomes.begin(), outcomes.end(),
                               [](const PutOutcome& outcome) { return absl::IsUnknown(outcome.status); });
  return answered ? absl::OkStatus() : absl::InternalError("store ended the put stream before its time");
}

}  // namespace quire::store
