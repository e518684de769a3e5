// One worker's Inference service as coroutines see it. gRPC's headers stay in the .cc.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quire/v1/inference.pb.h"

namespace grpc {
class Channel;
}

namespace quire::gateway {

class CompletionLoop;

// One running Generate. Read by one coroutine; Cancel from any thread. Dropping the last reference cancels
// the call.
class Generation {
 public:
  virtual ~Generation() = default;

  // Waits, then appends all messages that have come to *messages. false: the stream has ended and all was
  // read; see status(). At most some dozens of messages are held: a reader that is slow slows the worker.
  virtual boost::asio::awaitable<bool> Read(std::vector<v1::GenerateResponse>* messages) = 0;
  // Why the stream ended. REQUIRES: Read returned false.
  virtual absl::Status status() const = 0;
  // The worker stops within a token; Read returns false with CANCELLED soon.
  virtual void Cancel() = 0;
};

// Thread-safe.
class WorkerClient {
 public:
  virtual ~WorkerClient() = default;
  // The loop must outlive the client and all its calls.
  static std::shared_ptr<WorkerClient> Create(std::shared_ptr<grpc::Channel> channel, CompletionLoop& loop);

  virtual std::shared_ptr<Generation> Generate(const v1::GenerateRequest& request) = 0;
  // One at a time.
  virtual boost::asio::awaitable<absl::StatusOr<v1::DescribeModelResponse>> Describe(
      std::chrono::milliseconds timeout) = 0;
  // A channel that failed to connect waits before it tries again; this ends the waiting.
  virtual void ReconnectNow() = 0;
  // Cancels the Describe under way and makes later ones fail.
  virtual void Close() = 0;
};

}  // namespace quire::gateway
