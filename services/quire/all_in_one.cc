#include "services/quire/all_in_one.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "core/base/status_macros.h"
#include "services/runtime/metrics.h"

namespace quire {
namespace {

constexpr auto kReadyPoll = std::chrono::milliseconds(5);
constexpr auto kReadyTimeout =
    std::chrono::seconds(30);  // the gateway asks for the model several times a second
constexpr auto kLastMessages =
    std::chrono::seconds(1);  // for answers that have ended and are still on their way

}  // namespace

AllInOne::AllInOne(AllInOneOptions options)
    : options_(std::move(options)), registry_(runtime::NewRegistry()) {}

absl::StatusOr<std::unique_ptr<AllInOne>> AllInOne::Start(AllInOneOptions options) {
  QUIRE_RETURN_IF_ERROR(options.scheduler.Validate());
  auto all = std::unique_ptr<AllInOne>(new AllInOne(std::move(options)));
  QUIRE_RETURN_IF_ERROR(all->StartServers());
  return all;
}

absl::Status AllInOne::StartServers() {
  options_.store.registry = registry_;
  QUIRE_ASSIGN_OR_RETURN(store_, store::LocalStore::Create(options_.store));
  store::StoreServicesOptions services_options;
  QUIRE_ASSIGN_OR_RETURN(services_options.authenticator,
                         runtime::OpenAuthenticator(options_.access, options_.grpc.listen));
  store_services_ = std::make_unique<store::StoreServices>(store_, *registry_, services_options);
  inference_ = std::make_unique<worker::InferenceService>(registry_);
  std::vector<grpc::Service*> services = store_services_->services();
  services.push_back(inference_.get());
  QUIRE_ASSIGN_OR_RETURN(server_, runtime::Server::Start(options_.grpc, services));

  options_.gateway.registry = registry_;
  options_.gateway.channels = {server_->InProcessChannel()};
  QUIRE_ASSIGN_OR_RETURN(gateway_, gateway::Gateway::Start(options_.gateway));
  return absl::OkStatus();
}

absl::Status AllInOne::Load(const worker::LoadProgress& progress) {
  QUIRE_ASSIGN_OR_RETURN(engine_, worker::Engine::Load(options_.engine, progress));
  QUIRE_RETURN_IF_ERROR(inference_->Serve(engine_, store_, options_.engine.kv_codec, options_.scheduler));
  server_->SetServing(true);
  const auto deadline = std::chrono::steady_clock::now() + kReadyTimeout;
  while (!gateway_->ready()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::InternalError(
          "the model is loaded, but the gateway got no answer from its own worker within 30 s");
    }
    std::this_thread::sleep_for(kReadyPoll);
  }
  return absl::OkStatus();
}

void AllInOne::Shutdown(std::chrono::milliseconds timeout) {
  if (stopped_) return;
  stopped_ = true;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  if (server_ != nullptr) server_->SetServing(false);
  if (gateway_ != nullptr) gateway_->Shutdown(timeout);
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (inference_ != nullptr) inference_->Drain(std::max(left, std::chrono::milliseconds(0)));
  if (store_ != nullptr && timeout.count() > 0) {
    if (absl::Status drained = store_->Drain(std::max<std::chrono::milliseconds>(left, kLastMessages));
        !drained.ok()) {
      spdlog::warn("quire serve: {}", std::string(drained.message()));
    }
  }
  if (server_ != nullptr) server_->Shutdown(kLastMessages);
}

AllInOne::~AllInOne() { Shutdown(std::chrono::milliseconds(0)); }

}  // namespace quire
