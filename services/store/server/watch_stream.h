// One Watch call: writes a tenant's events as they come, until its client has had enough.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/access.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// How many Watch calls run, and whether they are to end. Thread-safe.
class WatchLimit {
 public:
  explicit WatchLimit(uint32_t most) : most_(most) {}
  // False if as many run as may. Otherwise Leave follows.
  bool Enter();
  void Leave() { running_.fetch_sub(1, std::memory_order_relaxed); }
  // From now on every Watch ends with UNAVAILABLE.
  void Close() { closed_.store(true, std::memory_order_relaxed); }
  bool closed() const { return closed_.load(std::memory_order_relaxed); }
  uint32_t most() const { return most_; }

 private:
  const uint32_t most_;
  std::atomic<uint32_t> running_{0};
  std::atomic<bool> closed_{false};
};

class WatchStream {
 public:
  // All arguments are borrowed.
  WatchStream(LocalStore& store, const Access& access, WatchLimit& limit, grpc::ServerContext& context,
              const v1::WatchRequest& request, grpc::ServerWriter<v1::WatchResponse>& writer,
              StreamWatch::Stream& stream)
      : store_(store),
        access_(access),
        limit_(limit),
        context_(context),
        request_(request),
        writer_(writer),
        stream_(stream) {}

  absl::Status Run();

 private:
  absl::Status Start();
  absl::Status Follow();
  absl::Status Write(const StoreEvent& event);

  LocalStore& store_;
  const Access& access_;
  WatchLimit& limit_;
  grpc::ServerContext& context_;
  const v1::WatchRequest& request_;
  grpc::ServerWriter<v1::WatchResponse>& writer_;
  StreamWatch::Stream& stream_;
  std::optional<Digest> fingerprint_;  // none: of all layouts
  uint32_t tenant_ = 0;
  uint64_t next_ = 0;           // the number of the next event to be read
  v1::WatchResponse response_;  // reused
};

}  // namespace quire::store
