#include "gateway/routing/worker_pool.h"

#include <grpcpp/channel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "core/base/digest.h"
#include "gateway/routing/completion_loop.h"

namespace quire::gateway {
namespace asio = boost::asio;

namespace {

struct Worker {
  Worker(std::string name, std::shared_ptr<WorkerClient> client, const asio::any_io_executor& executor)
      : name(std::move(name)),
        client(std::move(client)),
        strand(asio::make_strand(executor)),
        pause(strand) {}
  const std::string name;
  const std::shared_ptr<WorkerClient> client;
  const asio::strand<asio::any_io_executor> strand;
  asio::steady_timer pause;                // between probes; on the strand
  std::shared_ptr<const ModelInfo> model;  // null: not ready. Guarded by the pool's mutex.
};

std::shared_ptr<const ModelInfo> ToModel(const v1::DescribeModelResponse& response) {
  auto model = std::make_shared<ModelInfo>();
  model->name = response.name();
  model->fingerprint =
      "fp_" +
      HexString(AsBytes(response.fingerprint()).first(std::min<size_t>(5, response.fingerprint().size())));
  model->created = response.created();
  model->context_tokens = response.context_tokens();
  model->vocabulary = response.vocabulary();
  model->has_chat_template = response.has_chat_template();
  return model;
}

}  // namespace

class WorkerPool::Impl : public std::enable_shared_from_this<WorkerPool::Impl> {
 public:
  Impl(asio::any_io_executor executor, PoolOptions options)
      : executor_(std::move(executor)), options_(std::move(options)) {}

  void Start(std::vector<WorkerEndpoint> endpoints) {
    for (auto& endpoint : endpoints) {
      auto client = WorkerClient::Create(std::move(endpoint.channel), loop_);
      workers_.push_back(std::make_shared<Worker>(std::move(endpoint.name), std::move(client), executor_));
    }
    probing_ = workers_.size();
    for (auto& worker : workers_) {
      asio::co_spawn(
          worker->strand, [self = shared_from_this(), worker] { return self->Probe(worker); },
          [self = shared_from_this()](std::exception_ptr) {
            std::lock_guard lock(self->mutex_);
            --self->probing_;
            self->changed_.notify_all();
          });
    }
  }

  void Shutdown() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    for (auto& worker : workers_) {
      worker->client->Close();
      asio::post(worker->strand, [worker] { worker->pause.cancel(); });
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return probing_ == 0; });
  }

  std::vector<std::shared_ptr<const ModelInfo>> Models() const {
    std::vector<std::shared_ptr<const ModelInfo>> models;
    {
      std::lock_guard lock(mutex_);
      for (const auto& worker : workers_) {
        if (worker->model) models.push_back(worker->model);
      }
    }
    std::stable_sort(models.begin(), models.end(),
                     [](const auto& a, const auto& b) { return a->name < b->name; });
    models.erase(std::unique(models.begin(), models.end(),
                             [](const auto& a, const auto& b) { return a->name == b->name; }),
                 models.end());
    return models;
  }

  std::shared_ptr<const ModelInfo> FindModel(const std::string& name) const {
    std::lock_guard lock(mutex_);
    for (const auto& worker : workers_) {
      if (worker->model && worker->model->name == name) return worker->model;
    }
    return nullptr;
  }

  bool ready() const {
    std::lock_guard lock(mutex_);
    return std::any_of(workers_.begin(), workers_.end(),
                       [](const auto& worker) { return worker->model != nullptr; });
  }

  // The next ready worker of the model, in turn.
  std::shared_ptr<Worker> Pick(const std::string& model) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < workers_.size(); ++i) {
      auto& worker = workers_[(turn_ + i) % workers_.size()];
      if (worker->model && worker->model->name == model) {
        turn_ = (turn_ + i + 1) % workers_.size();
        return worker;
      }
    }
    return nullptr;
  }

  // A call found the worker gone: no more requests for it until a probe succeeds, and that at once.
  void Failed(const std::shared_ptr<Worker>& worker, const absl::Status& status) {
    SetModel(worker, nullptr, status);
    asio::post(worker->strand, [worker] { worker->pause.cancel(); });
  }

 private:
  asio::awaitable<void> Probe(std::shared_ptr<Worker> worker) {
    while (!stopping()) {
      auto described = co_await worker->client->Describe(options_.probe_timeout);
      if (described.ok()) {
        SetModel(worker, ToModel(*described), absl::OkStatus());
      } else {
        SetModel(worker, nullptr, described.status());
      }
      if (stopping()) break;
      worker->pause.expires_after(described.ok() ? options_.probe_interval : options_.retry_interval);
      co_await worker->pause.async_wait(asio::as_tuple(asio::use_awaitable));
      if (!described.ok()) worker->client->ReconnectNow();
    }
  }

  bool stopping() const {
    std::lock_guard lock(mutex_);
    return stopping_;
  }

  void SetModel(const std::shared_ptr<Worker>& worker, std::shared_ptr<const ModelInfo> model,
                const absl::Status& status) {
    std::shared_ptr<const ModelInfo> before = model;
    {
      std::lock_guard lock(mutex_);
      std::swap(worker->model, before);
    }
    if ((before != nullptr) == (model != nullptr)) return;
    if (model) {
      spdlog::info("worker {} is ready: model {}, {} tokens of context", worker->name, model->name,
                   model->context_tokens);
    } else {
      spdlog::warn("worker {} is not ready: {}", worker->name, status.ToString());
    }
    if (options_.on_change) options_.on_change(worker->name, model != nullptr);
  }

  const asio::any_io_executor executor_;
  const PoolOptions options_;
  CompletionLoop loop_;
  std::vector<std::shared_ptr<Worker>> workers_;  // constant after Start

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t turn_ = 0;
  size_t probing_ = 0;  // probe loops that run
  bool stopping_ = false;

  friend class PooledGeneration;
};

// A generation that moves to another worker as long as its client cannot tell.
class PooledGeneration final : public Generation {
 public:
  PooledGeneration(WorkerPool::Impl& pool, std::string model, v1::GenerateRequest request)
      : pool_(pool),
        model_(std::move(model)),
        request_(std::move(request)),
        attempts_left_(pool.workers_.size()) {
    NextWorker();
  }

  asio::awaitable<bool> Read(std::vector<v1::GenerateResponse>* messages) override {
    while (current_) {
      const bool read = co_await current_->Read(messages);
      if (read) {
        if (!std::exchange(answered_, true)) request_.Clear();
        co_return true;
      }
      status_ = current_->status();
      if (!absl::IsUnavailable(status_)) co_return false;
      pool_.Failed(worker_, status_);
      if (answered_ || !NextWorker()) co_return false;
    }
    co_return false;
  }

  absl::Status status() const override { return status_; }

  void Cancel() override {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (current_) current_->Cancel();
  }

 private:
  bool NextWorker() {
    std::shared_ptr<Worker> worker = attempts_left_ > 0 ? pool_.Pick(model_) : nullptr;
    std::lock_guard lock(mutex_);
    if (cancelled_) {
      status_ = absl::CancelledError("the client is gone");
      return false;
    }
    if (!worker) {
      if (status_.ok())
        status_ = absl::UnavailableError(absl::StrCat("no worker serves ", model_, " at the moment"));
      return false;
    }
    --attempts_left_;
    worker_ = std::move(worker);
    current_ = worker_->client->Generate(request_);
    return true;
  }

  WorkerPool::Impl& pool_;
  const std::string model_;
  v1::GenerateRequest request_;  // until the first message
  size_t attempts_left_;
  bool answered_ = false;
  absl::Status status_;
  std::shared_ptr<Worker> worker_;
  std::mutex mutex_;  // Cancel may come from elsewhere while NextWorker changes current_
  std::shared_ptr<Generation> current_;
  bool cancelled_ = false;
};

WorkerPool::WorkerPool(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
WorkerPool::~WorkerPool() { Shutdown(); }

std::unique_ptr<WorkerPool> WorkerPool::Start(asio::any_io_executor executor,
                                              std::vector<WorkerEndpoint> workers, PoolOptions options) {
  auto impl = std::make_shared<Impl>(std::move(executor), std::move(options));
  impl->Start(std::move(workers));
  return std::unique_ptr<WorkerPool>(new WorkerPool(std::move(impl)));
}

void WorkerPool::Shutdown() { impl_->Shutdown(); }
bool WorkerPool::ready() const { return impl_->ready(); }
std::vector<std::shared_ptr<const ModelInfo>> WorkerPool::Models() const { return impl_->Models(); }
std::shared_ptr<const ModelInfo> WorkerPool::FindModel(const std::string& name) const {
  return impl_->FindModel(name);
}

std::shared_ptr<Generation> WorkerPool::Generate(const std::string& model, v1::GenerateRequest request) {
  return std::make_shared<PooledGeneration>(*impl_, model, std::move(request));
}

}  // namespace quire::gateway
