// Shared memory of an input. Its name is random, so requests that name any arena are made to name it.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/attached_arena.h"
#include "tests/fuzz/served.h"

namespace quire::fuzz {

class KvArena {
 public:
  explicit KvArena(v1::KvStore::Stub& stub) : KvArena(stub, Usual()) {}
  // Claims what the store hands out, if it does.
  KvArena(v1::KvStore::Stub& stub, const v1::AttachArenaRequest& request) {
    SetDeadline(context_);
    stream_ = stub.AttachArena(&context_, request);
    v1::AttachArenaResponse attached;
    if (!stream_->Read(&attached)) return;
    QUIRE_FUZZ_CHECK(attached.bytes() >= request.bytes());
    claimed_ = *store::AttachedArena::Claim(attached.socket(), attached.token(), attached.arena(),
                                            attached.bytes(), std::chrono::seconds(10));
    memory_ = claimed_->Take(claimed_->bytes());
  }
  ~KvArena() {
    memory_.reset();
    claimed_.reset();  // the connection's end is the arena's
    v1::AttachArenaResponse none;
    QUIRE_FUZZ_CHECK(!stream_->Read(&none));
    CheckStatus(stream_->Finish());
  }
  KvArena(const KvArena&) = delete;
  KvArena& operator=(const KvArena&) = delete;

  void Name(std::string* arena) const {
    if (claimed_ != nullptr) *arena = claimed_->id();
  }
  // An offset u16, and the bytes that go there.
  void Fill(Input input) {
    size_t offset = input.Short();
    Bytes bytes = input.Rest();
    if (!memory_ || offset + bytes.size() > memory_->bytes().size()) return;
    std::copy(bytes.begin(), bytes.end(), memory_->bytes().begin() + static_cast<ptrdiff_t>(offset));
  }
  // Empty where there is no such range.
  std::string Read(const v1::ArenaRange& range) const {
    const uint64_t all = memory_ ? memory_->bytes().size() : 0;
    if (range.offset() > all || range.length() > all - range.offset()) return "";
    return std::string(AsString(memory_->bytes().subspan(range.offset(), range.length())));
  }
  static bool Overlap(const v1::GetRequest& request) {
    for (int i = 0; i < request.arena_ranges_size(); ++i) {
      for (int j = 0; j < i; ++j) {
        const v1::ArenaRange &a = request.arena_ranges(i), &b = request.arena_ranges(j);
        if (a.offset() < b.offset() + b.length() && b.offset() < a.offset() + a.length()) return true;
      }
    }
    return false;
  }

 private:
  static v1::AttachArenaRequest Usual() {
    v1::AttachArenaRequest request;
    request.set_bytes(128 << 10);
    return request;
  }
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::AttachArenaResponse>> stream_;
  std::shared_ptr<store::AttachedArena> claimed_;
  std::optional<store::AttachedArena::Range> memory_;
};

}  // namespace quire::fuzz
