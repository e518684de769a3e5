// quire.v1.Inference on one engine and, if there is one, a store. quire-worker and the all-in-one host it.
#pragma once

#include <prometheus/registry.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quire/v1/inference.grpc.pb.h"
#include "services/store/api/kv_store.h"
#include "services/worker/engine/engine.h"
#include "services/worker/scheduler/scheduler.h"
#include "services/worker/scheduler/worker_metrics.h"

namespace quire::worker {

// Starts without a model, so that a server can listen (and say in grpc.health that it does not serve yet)
// while one loads: until Serve, and after Drain for new generations, calls answer UNAVAILABLE. Thread-safe.
class InferenceService final : public v1::Inference::Service {
 public:
  explicit InferenceService(std::shared_ptr<prometheus::Registry> registry);
  // REQUIRES: the server that hosts it has been shut down.
  ~InferenceService() override;

  // Once. `store` may be null. Waits for the store's first answer, at most options.store_timeout; one that is
  // down is no error.
  absl::Status Serve(std::shared_ptr<Engine> engine, std::shared_ptr<store::KvStore> store,
                     const CodecSpec& kv_codec, const SchedulerOptions& options);
  // Refuses new generations, lets running ones finish until `timeout`, then aborts them.
  void Drain(std::chrono::milliseconds timeout);

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Abort(grpc::ServerContext* context, const v1::AbortRequest* request,
                     v1::AbortResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status RenderChat(grpc::ServerContext* context, const v1::RenderChatRequest* request,
                          v1::RenderChatResponse* response) override;
  grpc::Status DescribeModel(grpc::ServerContext* context, const v1::DescribeModelRequest* request,
                             v1::DescribeModelResponse* response) override;
  grpc::Status Load(grpc::ServerContext* context, const v1::LoadRequest* request,
                    v1::LoadResponse* response) override;

 private:
  // What Serve brought. Handlers hold it while they run.
  struct Model {
    std::shared_ptr<Engine> engine;
    std::string kv_codec;
    int64_t created = 0;                   // Unix seconds
    std::unique_ptr<Scheduler> scheduler;  // after the engine: it goes first
  };
  absl::StatusOr<std::shared_ptr<Model>> Loaded() const;

  const std::shared_ptr<prometheus::Registry> registry_;
  WorkerMetrics metrics_;
  mutable std::mutex mutex_;
  std::shared_ptr<Model> model_;
};

}  // namespace quire::worker
