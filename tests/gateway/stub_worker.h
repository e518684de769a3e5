// An Inference server for tests: it answers as the test says and tells what it saw.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "quire/v1/inference.grpc.pb.h"
#include "services/runtime/server.h"

namespace quire::gateway::test {

// A signal between a test and a server thread. Waiting fails after 30 s.
class Event {
 public:
  void Set();
  bool Wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class StubWorker final : public v1::Inference::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  using Script = std::function<grpc::Status(grpc::ServerContext& context, const v1::GenerateRequest& request,
                                            Writer& writer)>;

  // The default script sends "Hello", " wor", "ld" and the end with usage 7 + 3 tokens, 4 of them cached.
  explicit StubWorker(std::string model = "stub", int port = 0);
  ~StubWorker() override;

  int port() const { return server_->port(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port()); }
  std::shared_ptr<grpc::Channel> channel() { return server_->InProcessChannel(); }
  void SetScript(Script script);
  void SetModel(std::function<void(v1::DescribeModelResponse*)> edit);
  void SetDescribeStatus(grpc::Status status);
  void Stop();  // as if the process ended: running calls are cut

  v1::GenerateRequest last_request() const;
  int generations() const;  // begun
  // Until so many DescribeModel calls have been answered in all.
  bool WaitForDescribes(int count);
  int describes() const;

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        Writer* writer) override;
  grpc::Status DescribeModel(grpc::ServerContext*, const v1::DescribeModelRequest*,
                             v1::DescribeModelResponse* response) override;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;
  v1::DescribeModelResponse model_;
  grpc::Status describe_status_;
  v1::GenerateRequest last_request_;
  int generations_ = 0;
  int describes_ = 0;
  std::unique_ptr<runtime::Server> server_;
};

v1::GenerateResponse TextMessage(const std::string& text, std::initializer_list<uint32_t> tokens);
v1::GenerateResponse FinishMessage(v1::FinishReason reason, uint32_t prompt, uint32_t completion,
                                   uint32_t cached);
// Blocks a server thread until the client's side cancels the call.
bool WaitForCancellation(grpc::ServerContext& context);

}  // namespace quire::gateway::test
