// Store, worker and gateway in one process: what `quire serve` runs.
#pragma once

#include <prometheus/registry.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gateway/server/gateway.h"
#include "services/runtime/authenticator.h"
#include "services/runtime/server.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"
#include "services/worker/engine/engine.h"
#include "services/worker/server/inference_service.h"

namespace quire {

struct AllInOneOptions {
  gateway::GatewayOptions gateway;  // `channels`, `workers` and `registry` are filled in here
  runtime::ServerOptions grpc;
  runtime::AccessOptions access;   // to the store over gRPC
  store::LocalStoreOptions store;  // `registry` is filled in here
  worker::EngineOptions engine;
  worker::SchedulerOptions scheduler;
};

// The worker reads and writes the store by plain calls. Both are also on one gRPC server, where other
// processes find them; the gateway reaches the worker through that server without leaving the process. Not
// thread-safe.
class AllInOne {
 public:
  // Reserves the memory and takes the addresses, so that what is wrong with those shows before a model is
  // loaded. Until Load has returned, /health says 503 and grpc.health NOT_SERVING.
  static absl::StatusOr<std::unique_ptr<AllInOne>> Start(AllInOneOptions options);
  // Loads the model and serves it; returns when the gateway knows it.
  absl::Status Load(const worker::LoadProgress& progress);
  // Takes no more requests, lets running ones finish until `timeout`, ends the others.
  void Shutdown(std::chrono::milliseconds timeout);
  ~AllInOne();  // Shutdown(0) if not done

  const std::string& http_address() const { return gateway_->address(); }
  const std::string& grpc_address() const { return server_->address(); }
  // REQUIRES: Load succeeded.
  const worker::ModelInfo& model() const { return engine_->info(); }
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }  // of all three

 private:
  explicit AllInOne(AllInOneOptions options);
  absl::Status StartServers();

  AllInOneOptions options_;
  std::shared_ptr<prometheus::Registry> registry_;
  // Destroyed from below: the gateway calls the server, the server's handlers call the services, and those
  // the store and engine.
  std::shared_ptr<store::LocalStore> store_;
  std::shared_ptr<worker::Engine> engine_;
  std::unique_ptr<store::StoreServices> store_services_;
  std::unique_ptr<worker::InferenceService> inference_;
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<gateway::Gateway> gateway_;
  bool stopped_ = false;
};

}  // namespace quire
