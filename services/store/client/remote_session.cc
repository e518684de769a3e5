#include "services/store/client/remote_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"
#include "services/store/api/limits.h"

namespace quire::store {

absl::StatusOr<std::unique_ptr<RemoteStore::Session>> RemoteStore::Session::Begin(
    v1::KvStore::Stub& stub, std::shared_ptr<grpc::ClientContext> context, v1::PutRequest announce,
    std::span<const BlockAnnounce> blocks, std::shared_ptr<AttachedArena> arena) {
  std::unique_ptr<Stream> stream = stub.Put(context.get());
  auto session =
      std::unique_ptr<Session>(new Session(std::move(context), std::move(stream), std::move(arena)));
  announce.mutable_announce()->set_arena(session->arena_.id());
  v1::PutResponse response;
  if (!session->stream_->Write(announce) || !session->stream_->Read(&response)) return session->Broken();
  if (!response.has_wanted())
    return absl::InternalError("store answered an announcement with something else than PutWanted");
  for (uint32_t index : response.wanted().blocks()) {
    if (index >= blocks.size())
      return absl::InternalError(absl::StrCat("store wants block ", index, " of ", blocks.size()));
    session->wanted_.push_back(index);
  }
  session->progress_ = PutProgress(blocks, session->wanted_);
  for (const BlockAnnounce& block : blocks) session->announced_.push_back(block.bytes);
  return session;
}

RemoteStore::Session::~Session() {
  if (broken_) return;
  bool complete =
      std::all_of(wanted_.begin(), wanted_.end(), [&](uint32_t i) { return results_.contains(i); });
  if (!complete) {
    context_->TryCancel();
    arena_.Abandon();
  }
  stream_->WritesDone();
  v1::PutResponse response;
  while (stream_->Read(&response)) {
  }
  stream_->Finish();
}

absl::Status RemoteStore::Session::Broken() {
  if (!broken_) {
    v1::PutResponse response;
    stream_->WritesDone();
    while (stream_->Read(&response)) {
    }
    absl::Status status = runtime::FromGrpc(stream_->Finish());
    broken_ = status.ok() ? absl::InternalError("store ended the put stream before its time") : status;
    arena_.Abandon();
  }
  return *broken_;
}

absl::Status RemoteStore::Session::Send(uint32_t block, uint64_t offset, Bytes data) {
  while (!data.empty()) {
    Bytes chunk = data.first(std::min(data.size(), kChunkBytes));
    v1::BlockData* message = request_.mutable_data();
    message->set_block(block);
    message->set_offset(offset);
    if (!arena_.Place(block, chunk, /*wait=*/false, message))
      message->mutable_data()->assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
    if (!stream_->Write(request_)) return Broken();
    offset += chunk.size();
    data = data.subspan(chunk.size());
  }
  return absl::OkStatus();
}

absl::Status RemoteStore::Session::Write(uint32_t block, uint64_t offset, Bytes data) {
  if (broken_) return *broken_;
  QUIRE_RETURN_IF_ERROR(progress_.Advance(block, offset, data.size()));
  uint64_t total = announced_[block];
  uint64_t send_until = total > kKeptBack ? total - kKeptBack : 0;
  Bytes now =
      offset >= send_until ? Bytes{} : data.first(std::min<uint64_t>(data.size(), send_until - offset));
  Bytes later = data.subspan(now.size());
  std::vector<uint8_t>& kept = kept_back_[block];
  kept.insert(kept.end(), later.begin(), later.end());
  return Send(block, offset, now);
}

absl::StatusOr<uint64_t> RemoteStore::Session::Commit(uint32_t block) {
  QUIRE_RETURN_IF_ERROR(progress_.CheckComplete(block));
  auto known = results_.find(block);
  if (known == results_.end()) {
    if (broken_) return *broken_;
    const std::vector<uint8_t>& kept = kept_back_[block];
    QUIRE_RETURN_IF_ERROR(Send(block, announced_[block] - kept.size(), kept));
    kept_back_.erase(block);
    v1::PutResponse response;
    if (!stream_->Read(&response)) return Broken();
    if (!response.has_result() || response.result().block() != block) {
      return absl::InternalError(absl::StrCat("store answered the last bytes of block ", block,
                                              " with something else than its result"));
    }
    arena_.Answered(block);
    const v1::PutResult& result = response.result();
    absl::Status status(static_cast<absl::StatusCode>(result.code()), result.message());
    known = results_.emplace(block, Result{std::move(status), result.stored_bytes()}).first;
  }
  if (!known->second.status.ok()) return known->second.status;
  return known->second.stored_bytes;
}

}  // namespace quire::store
