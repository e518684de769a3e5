// The workers behind this gateway: which are up, what they serve, and who gets the next request.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/routing/worker_client.h"
#include "quire/v1/inference.pb.h"

namespace quire::gateway {

// A model as its worker describes it.
struct ModelInfo {
  std::string name;
  std::string fingerprint;  // hex, short: OpenAI's system_fingerprint
  int64_t created = 0;      // Unix seconds
  uint32_t context_tokens = 0;
  uint32_t vocabulary = 0;
  bool has_chat_template = false;
};

struct WorkerEndpoint {
  std::string name;  // for logs and metrics: its address
  std::shared_ptr<grpc::Channel> channel;
};

struct PoolOptions {
  std::chrono::milliseconds probe_interval{1000};  // while a worker is ready
  std::chrono::milliseconds retry_interval{200};   // while it is not
  std::chrono::milliseconds probe_timeout{5000};
  // Called when a worker becomes ready or ceases to be; any thread, not for long.
  std::function<void(const std::string& worker, bool ready)> on_change;
};

// Each worker is asked to describe its model again and again; one that answers is ready. A request goes to
// the ready workers of its model in turn. Thread-safe.
class WorkerPool {
 public:
  // REQUIRES: the executor's context runs until Shutdown has returned.
  static std::unique_ptr<WorkerPool> Start(boost::asio::any_io_executor executor,
                                           std::vector<WorkerEndpoint> workers, PoolOptions options = {});
  ~WorkerPool();
  // Stops probing and waits for all calls to end. REQUIRES: no Generation of this pool is left. Not for the
  // executor's threads.
  void Shutdown();

  bool ready() const;  // at least one worker is
  // Models of the ready workers, by name, one each.
  std::vector<std::shared_ptr<const ModelInfo>> Models() const;
  // Null if no ready worker serves it.
  std::shared_ptr<const ModelInfo> FindModel(const std::string& name) const;

  // Starts a generation on a worker that serves the model. While nothing has come back, a worker that turns
  // out to be gone (UNAVAILABLE) is replaced by the next; with none left, Read ends with UNAVAILABLE.
  std::shared_ptr<Generation> Generate(const std::string& model, v1::GenerateRequest request);

 private:
  friend class PooledGeneration;
  class Impl;
  explicit WorkerPool(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace quire::gateway
