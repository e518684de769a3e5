#include "tests/gateway/stub_worker.h"

#include <gtest/gtest.h>

#include <chrono>

namespace quire::gateway::test {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

}  // namespace

void Event::Set() {
  std::lock_guard lock(mutex_);
  set_ = true;
  changed_.notify_all();
}

bool Event::Wait() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this] { return set_; });
}

v1::GenerateResponse TextMessage(const std::string& text, std::initializer_list<uint32_t> tokens) {
  v1::GenerateResponse message;
  message.set_text(text);
  for (uint32_t token : tokens) message.add_tokens(token);
  return message;
}

v1::GenerateResponse FinishMessage(v1::FinishReason reason, uint32_t prompt, uint32_t completion,
                                   uint32_t cached) {
  v1::GenerateResponse message;
  message.set_finish(reason);
  message.mutable_usage()->set_prompt_tokens(prompt);
  message.mutable_usage()->set_completion_tokens(completion);
  message.mutable_usage()->set_cached_tokens(cached);
  return message;
}

// gRPC's sync API tells of a cancellation only when asked, so this asks until it does.
bool WaitForCancellation(grpc::ServerContext& context) {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!context.IsCancelled()) {
    if (std::chrono::steady_clock::now() > end) return false;
    never.wait_for(lock, std::chrono::milliseconds(1));
  }
  return true;
}

StubWorker::StubWorker(std::string model, int port) {
  script_ = [](grpc::ServerContext&, const v1::GenerateRequest&, Writer& writer) {
    writer.Write(TextMessage("Hello", {1}));
    writer.Write(TextMessage(" wor", {2}));
    writer.Write(TextMessage("ld", {3}));
    writer.Write(FinishMessage(v1::STOP, 7, 3, 4));
    return grpc::Status::OK;
  };
  model_.set_name(std::move(model));
  model_.set_fingerprint(std::string(32, '\xAB'));
  model_.set_context_tokens(64);
  model_.set_vocabulary(1000);
  model_.set_has_chat_template(true);
  model_.set_created(1'700'000'000);
  runtime::ServerOptions options;
  options.listen = "127.0.0.1:" + std::to_string(port);
  auto server = runtime::Server::Start(options, {this});
  EXPECT_TRUE(server.ok()) << server.status();
  if (server.ok()) server_ = *std::move(server);
}

StubWorker::~StubWorker() { Stop(); }

void StubWorker::Stop() {
  if (server_) server_->Shutdown(std::chrono::milliseconds(0));
}

void StubWorker::SetScript(Script script) {
  std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

void StubWorker::SetModel(std::function<void(v1::DescribeModelResponse*)> edit) {
  std::lock_guard lock(mutex_);
  edit(&model_);
}

void StubWorker::SetDescribeStatus(grpc::Status status) {
  std::lock_guard lock(mutex_);
  describe_status_ = std::move(status);
}

v1::GenerateRequest StubWorker::last_request() const {
  std::lock_guard lock(mutex_);
  return last_request_;
}

int StubWorker::generations() const {
  std::lock_guard lock(mutex_);
  return generations_;
}

int StubWorker::describes() const {
  std::lock_guard lock(mutex_);
  return describes_;
}

bool StubWorker::WaitForDescribes(int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return describes_ >= count; });
}

grpc::Status StubWorker::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                  Writer* writer) {
  Script script;
  {
    std::lock_guard lock(mutex_);
    last_request_ = *request;
    ++generations_;
    script = script_;
  }
  return script(*context, *request, *writer);
}

grpc::Status StubWorker::DescribeModel(grpc::ServerContext*, const v1::DescribeModelRequest*,
                                       v1::DescribeModelResponse* response) {
  std::lock_guard lock(mutex_);
  ++describes_;
  changed_.notify_all();
  *response = model_;
  return describe_status_;
}

}  // namespace quire::gateway::test
