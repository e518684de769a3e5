#include "services/worker/server/inference_service.h"

#include <ctime>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"
#include "services/worker/server/chat_prompt.h"
#include "services/worker/server/convert.h"

namespace quire::worker {
namespace {

using runtime::ToGrpc;

// How long a handler may take to notice that its client has gone while no token comes.
constexpr std::chrono::milliseconds kCancellationPoll{10};

// Sends a generation's pieces until its last. Leaving early cancels it.
absl::Status Stream(grpc::ServerContext& context, const Tokenizer& tokenizer, Generation& generation,
                    grpc::ServerWriter<v1::GenerateResponse>& writer) {
  absl::Cleanup cancel = [&] { generation.Cancel(); };
  v1::GenerateResponse response;
  response.set_request_id(generation.id());
  for (;;) {
    std::optional<Output> output = generation.Next(kCancellationPoll);
    if (context.IsCancelled())
      return absl::CancelledError("the client cancelled the call or its deadline passed");
    if (!output.has_value()) continue;
    AddOutput(tokenizer, *output, &response);
    if (!writer.Write(response)) return absl::CancelledError("the client is gone");
    if (output->finish != Finish::kNone) {
      std::move(cancel).Cancel();
      return output->status;
    }
    response.Clear();
  }
}

}  // namespace

InferenceService::InferenceService(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)), metrics_(*registry_) {}

InferenceService::~InferenceService() = default;

absl::Status InferenceService::Serve(std::shared_ptr<Engine> engine, std::shared_ptr<store::KvStore> store,
                                     const CodecSpec& kv_codec, const SchedulerOptions& options) {
  auto model = std::make_shared<Model>();
  model->engine = std::move(engine);
  model->kv_codec = kv_codec.ToString();
  model->created = static_cast<int64_t>(std::time(nullptr));
  QUIRE_ASSIGN_OR_RETURN(model->scheduler,
                         Scheduler::Start(*model->engine, std::move(store), options, metrics_));
  std::lock_guard lock(mutex_);
  if (model_ != nullptr) return absl::FailedPreconditionError("a model is already served");
  model_ = std::move(model);
  return absl::OkStatus();
}

void InferenceService::Drain(std::chrono::milliseconds timeout) {
  if (auto model = Loaded(); model.ok()) (*model)->scheduler->Drain(timeout);
}

absl::StatusOr<std::shared_ptr<InferenceService::Model>> InferenceService::Loaded() const {
  std::lock_guard lock(mutex_);
  if (model_ == nullptr) return absl::UnavailableError("the model is still loading");
  return model_;
}

grpc::Status InferenceService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                        grpc::ServerWriter<v1::GenerateResponse>* writer) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  absl::StatusOr<GenerateSpec> spec = ToSpec(*(*model)->engine, *request);
  if (!spec.ok()) return ToGrpc(spec.status());
  auto generation = (*model)->scheduler->Submit(*std::move(spec));
  if (!generation.ok()) return ToGrpc(generation.status());
  return ToGrpc(Stream(*context, *(*model)->engine->tokenizer(), **generation, *writer));
}

grpc::Status InferenceService::Abort(grpc::ServerContext*, const v1::AbortRequest* request,
                                     v1::AbortResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  if (request->request_id().empty()) return ToGrpc(absl::InvalidArgumentError("request_id is empty"));
  response->set_found((*model)->scheduler->Abort(request->request_id()));
  return grpc::Status::OK;
}

grpc::Status InferenceService::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                        v1::TokenizeResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  auto tokens = (*model)->engine->tokenizer()->Encode(request->text(), request->parse_special(),
                                                      request->add_special());
  if (!tokens.ok()) return ToGrpc(tokens.status());
  response->mutable_tokens()->Add(tokens->begin(), tokens->end());
  return grpc::Status::OK;
}

grpc::Status InferenceService::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                          v1::DetokenizeResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  std::span<const uint32_t> tokens(request->tokens().data(), request->tokens_size());
  auto text = (*model)->engine->tokenizer()->Decode(tokens, request->skip_special());
  if (!text.ok()) return ToGrpc(text.status());
  response->set_text(*std::move(text));
  return grpc::Status::OK;
}

grpc::Status InferenceService::RenderChat(grpc::ServerContext*, const v1::RenderChatRequest* request,
                                          v1::RenderChatResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  absl::StatusOr<ChatPrompt> chat = worker::RenderChat(*(*model)->engine, *request);
  if (!chat.ok()) return ToGrpc(chat.status());
  response->set_text(std::move(chat->text));
  response->mutable_tokens()->Add(chat->tokens.begin(), chat->tokens.end());
  return grpc::Status::OK;
}

grpc::Status InferenceService::DescribeModel(grpc::ServerContext*, const v1::DescribeModelRequest*,
                                             v1::DescribeModelResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  const Engine& engine = *(*model)->engine;
  const ModelInfo& info = engine.info();
  response->set_name(info.name);
  response->set_architecture(info.architecture);
  response->set_model_digest(std::string(info.model_digest.AsString()));
  response->set_fingerprint(std::string(info.fingerprint.AsString()));
  response->set_context_tokens(info.context);
  response->set_vocabulary(info.vocabulary);
  response->set_parameters(info.parameters);
  response->set_kv_codec((*model)->kv_codec);
  response->set_has_chat_template(engine.chat_template() != nullptr);
  response->set_bos_token(engine.tokenizer()->bos().value_or(0));
  response->mutable_eos_tokens()->Add(info.eos_tokens.begin(), info.eos_tokens.end());
  response->set_created((*model)->created);
  return grpc::Status::OK;
}

grpc::Status InferenceService::Load(grpc::ServerContext*, const v1::LoadRequest*,
                                    v1::LoadResponse* response) {
  auto model = Loaded();
  if (!model.ok()) return ToGrpc(model.status());
  LoadFigures load = (*model)->scheduler->Load();
  response->set_running(load.running);
  response->set_waiting(load.waiting);
  response->set_max_running(load.max_running);
  response->set_max_waiting(load.max_waiting);
  response->set_kv_bytes_used(load.kv_bytes);
  response->set_store_connected(load.store_connected);
  return grpc::Status::OK;
}

}  // namespace quire::worker
