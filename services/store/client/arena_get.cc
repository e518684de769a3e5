#include "services/store/client/arena_get.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/status_macros.h"
#include "services/store/wire/convert.h"

namespace quire::store {
namespace {

// Of the arena, for one call: room for two Gets of two calls each.
constexpr uint64_t kWindowShare = 4;
// And no more than this, unless one object has more: what the store has just written is then still in a cache
// when it is verified. Smaller windows are emptied before the next call has answered (measured: 8 MiB cost an
// eighth of the speed).
constexpr uint64_t kWindowBytes = 32 << 20;
constexpr uint64_t kAlignment = 64;

}  // namespace

struct ArenaGet::Batch {
  Batch(AttachedArena::Range range, uint32_t first_block) : window(std::move(range)), first(first_block) {}

  AttachedArena::Range window;
  uint32_t first;
  v1::GetRequest request;
  GetSink sink;
  std::optional<RemoteGet> get;
};

std::unique_ptr<ArenaGet::Batch> ArenaGet::Start(v1::KvStore::Stub& stub,
                                                 std::chrono::system_clock::time_point deadline) {
  const auto left = static_cast<uint64_t>(blocks_.size() - asked_);
  if (left == 0) return nullptr;
  const uint64_t each = block_bytes_ + kAlignment;
  const uint64_t share = arena_->bytes() / kWindowShare;
  const uint64_t count = std::clamp<uint64_t>(std::min(share, kWindowBytes) / each, 1, left);
  std::optional<AttachedArena::Range> window = arena_->Take(std::min(share, count * each));
  if (!window) return nullptr;

  auto batch = std::make_unique<Batch>(*std::move(window), asked_);
  batch->request = request_;
  for (const BlockIdentity& block : blocks_.subspan(asked_, count))
    ToProto(block, 0, batch->request.add_blocks());
  batch->request.set_arena(arena_->id());
  v1::ArenaRange* range = batch->request.add_arena_ranges();
  range->set_offset(batch->window.offset());
  range->set_length(batch->window.bytes().size());
  batch->sink.on_block = [this, first = batch->first](uint32_t block, Bytes object) {
    block_bytes_ = guessed_ ? object.size() : std::max<uint64_t>(block_bytes_, object.size());
    guessed_ = false;
    done_ = first + block + 1;
    absl::Status status = sink_.on_block(first + block, object);
    sink_stopped_ = !status.ok();
    return status;
  };
  batch->sink.on_miss = [this, first = batch->first](uint32_t block, const absl::Status& why) {
    done_ = first + block + 1;
    absl::Status status = sink_.on_miss(first + block, why);
    sink_stopped_ = !status.ok();
    return status;
  };
  batch->get.emplace(batch->request, wanted_, blocks_.subspan(asked_, count), batch->sink, codec_of_);
  batch->get->UseWindow(batch->window.offset(), batch->window.bytes());
  batch->get->Start(stub, deadline);
  asked_ += static_cast<uint32_t>(count);
  return batch;
}

absl::Status ArenaGet::Run(v1::KvStore::Stub& stub, std::chrono::system_clock::time_point deadline) {
  asked_ = done_;
  auto no_room = [&] {
    arena_gone_ = true;
    return absl::FailedPreconditionError("the arena has no room");
  };
  std::unique_ptr<Batch> now = Start(stub, deadline);
  if (now == nullptr && asked_ < blocks_.size()) return no_room();
  while (now != nullptr) {
    std::unique_ptr<Batch> next = Start(stub, deadline);
    if (absl::Status status = now->get->Finish(); !status.ok()) {
      // The store may still be writing to what it did not end well: no other call may have those windows.
      bool settled = now->get->settled();
      if (next != nullptr) settled = next->get->Drain() && settled;
      if (!settled) arena_->Retire();
      arena_gone_ = absl::IsFailedPrecondition(status) && !sink_stopped_;
      return status;
    }
    now = next != nullptr ? std::move(next) : Start(stub, deadline);
    if (now == nullptr && asked_ < blocks_.size()) return no_room();
  }
  return absl::OkStatus();
}

}  // namespace quire::store
