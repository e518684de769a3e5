#include "gateway/routing/worker_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/grpcpp.h>

#include <iterator>
#include <mutex>
#include <utility>

#include "gateway/async/wakeup.h"
#include "gateway/routing/completion_loop.h"
#include "quire/v1/inference.grpc.pb.h"
#include "services/runtime/status.h"

namespace quire::gateway {
namespace asio = boost::asio;

namespace {

// Messages held for a reader before reading from gRPC pauses, and with it, by flow control, the worker.
constexpr size_t kMaxHeld = 32;

// A completion-queue tag that calls one method of its owner.
template <typename Owner, void (Owner::*kDone)(bool)>
struct MethodTag final : CompletionTag {
  explicit MethodTag(Owner* owner) : owner(owner) {}
  void Done(bool ok) override { (owner->*kDone)(ok); }
  Owner* const owner;
};

// The gRPC side of a generation. It keeps itself alive until the call has ended and gRPC has given back every
// tag, which may be after its reader has gone.
class GenerateCall {
 public:
  explicit GenerateCall(CompletionLoop& loop) : loop_(loop) { loop_.Begin(); }
  ~GenerateCall() { loop_.End(); }

  void Start(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
             std::shared_ptr<GenerateCall> self) {
    std::lock_guard lock(mutex_);
    self_ = std::move(self);
    operations_ = 2;
    reader_ = stub.PrepareAsyncGenerate(&context_, request, &loop_.queue());
    reader_->StartCall(&started_);
    reader_->Read(&message_, &read_);
  }

  void Cancel() {
    context_.TryCancel();
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    Resume();  // the end is seen by reading only
  }

  asio::awaitable<bool> Read(std::vector<v1::GenerateResponse>* messages) {
    while (!Take(messages)) {
      if (ended()) co_return Take(messages);
      co_await wakeup_.Wait();
    }
    co_return true;
  }

  absl::Status status() const {
    std::lock_guard lock(mutex_);
    return runtime::FromGrpc(status_);
  }

 private:
  bool Take(std::vector<v1::GenerateResponse>* messages) {
    std::lock_guard lock(mutex_);
    if (held_.empty()) return false;
    std::move(held_.begin(), held_.end(), std::back_inserter(*messages));
    held_.clear();
    Resume();
    return true;
  }
  bool ended() const {
    std::lock_guard lock(mutex_);
    return ended_;
  }

  void Resume() {  // REQUIRES: mutex_
    if (!std::exchange(paused_, false)) return;
    ++operations_;
    reader_->Read(&message_, &read_);
  }

  void Started(bool) { Release(); }

  void ReadDone(bool ok) {
    bool held = false;
    {
      std::lock_guard lock(mutex_);
      if (!ok) {
        ++operations_;
        reader_->Finish(&status_, &finished_);
      } else {
        if (!cancelled_) {
          held_.push_back(std::move(message_));
          held = true;
        }
        message_.Clear();
        paused_ = held_.size() >= kMaxHeld && !cancelled_;
        if (!paused_) {
          ++operations_;
          reader_->Read(&message_, &read_);
        }
      }
    }
    if (held) wakeup_.Notify();
    Release();
  }

  void Finished(bool) {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wakeup_.Notify();
    Release();
  }

  void Release() {
    std::shared_ptr<GenerateCall> last;  // outlives the lock
    std::lock_guard lock(mutex_);
    if (--operations_ == 0 && ended_) last = std::move(self_);
  }

  CompletionLoop& loop_;
  MethodTag<GenerateCall, &GenerateCall::Started> started_{this};
  MethodTag<GenerateCall, &GenerateCall::ReadDone> read_{this};
  MethodTag<GenerateCall, &GenerateCall::Finished> finished_{this};
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader_;
  v1::GenerateResponse message_;  // being read into
  Wakeup wakeup_;

  mutable std::mutex mutex_;
  std::shared_ptr<GenerateCall> self_;
  int operations_ = 0;  // tags that gRPC holds
  std::vector<v1::GenerateResponse> held_;
  bool paused_ = false;  // no read under way because held_ is full
  bool cancelled_ = false;
  bool ended_ = false;
  grpc::Status status_;
};

class RemoteGeneration final : public Generation {
 public:
  explicit RemoteGeneration(std::shared_ptr<GenerateCall> call) : call_(std::move(call)) {}
  ~RemoteGeneration() override { call_->Cancel(); }
  asio::awaitable<bool> Read(std::vector<v1::GenerateResponse>* messages) override {
    return call_->Read(messages);
  }
  absl::Status status() const override { return call_->status(); }
  void Cancel() override { call_->Cancel(); }

 private:
  const std::shared_ptr<GenerateCall> call_;
};

// One call with one answer. As above, it lives until its tag is back.
template <typename Response>
class UnaryCall {
 public:
  explicit UnaryCall(CompletionLoop& loop) : loop_(loop) { loop_.Begin(); }
  ~UnaryCall() { loop_.End(); }

  using Reader = std::unique_ptr<grpc::ClientAsyncResponseReader<Response>>;

  // reader: prepared with context().
  void Start(Reader reader, std::shared_ptr<UnaryCall> self) {
    self_ = std::move(self);
    reader_ = std::move(reader);
    reader_->StartCall();
    reader_->Finish(&response_, &status_, &finished_);
  }
  asio::awaitable<absl::StatusOr<Response>> Result() {
    co_await wakeup_.Wait();
    if (!status_.ok()) co_return runtime::FromGrpc(status_);
    co_return std::move(response_);
  }
  grpc::ClientContext& context() { return context_; }

 private:
  void Finished(bool) {
    auto self = std::move(self_);
    wakeup_.Notify();
  }

  CompletionLoop& loop_;
  MethodTag<UnaryCall, &UnaryCall::Finished> finished_{this};
  grpc::ClientContext context_;
  Reader reader_;
  Response response_;
  grpc::Status status_;
  Wakeup wakeup_;
  std::shared_ptr<UnaryCall> self_;
};

class RemoteWorker final : public WorkerClient {
  using DescribeCall = UnaryCall<v1::DescribeModelResponse>;

 public:
  RemoteWorker(std::shared_ptr<grpc::Channel> channel, CompletionLoop& loop)
      : channel_(std::move(channel)), stub_(v1::Inference::NewStub(channel_)), loop_(loop) {}

  std::shared_ptr<Generation> Generate(const v1::GenerateRequest& request) override {
    auto call = std::make_shared<GenerateCall>(loop_);
    call->Start(*stub_, request, call);
    return std::make_shared<RemoteGeneration>(std::move(call));
  }

  asio::awaitable<absl::StatusOr<v1::DescribeModelResponse>> Describe(
      std::chrono::milliseconds timeout) override {
    auto call = std::make_shared<DescribeCall>(loop_);
    call->context().set_deadline(std::chrono::system_clock::now() + timeout);
    {
      std::lock_guard lock(mutex_);
      if (closed_) call->context().TryCancel();
      describe_ = call;
    }
    call->Start(
        stub_->PrepareAsyncDescribeModel(&call->context(), v1::DescribeModelRequest(), &loop_.queue()), call);
    co_return co_await call->Result();
  }

  void Close() override {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (auto call = describe_.lock()) call->context().TryCancel();
  }

  void ReconnectNow() override { grpc::experimental::ChannelResetConnectionBackoff(channel_.get()); }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
  CompletionLoop& loop_;
  std::mutex mutex_;
  std::weak_ptr<DescribeCall> describe_;
  bool closed_ = false;
};

}  // namespace

std::shared_ptr<WorkerClient> WorkerClient::Create(std::shared_ptr<grpc::Channel> channel,
                                                   CompletionLoop& loop) {
  return std::make_shared<RemoteWorker>(std::move(channel), loop);
}

}  // namespace quire::gateway
