#include "services/worker/scheduler/scheduler.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/block/layout.h"

namespace quire::worker {
namespace {

std::string RandomId() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return absl::StrFormat("gen-%016x", random());
}

}  // namespace

absl::Status SchedulerOptions::Validate() const {
  if (max_running == 0) return absl::InvalidArgumentError("max_running is 0, must be at least 1");
  if (chunk_tokens == 0 || chunk_tokens % kBlockTokens != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_tokens is ", chunk_tokens, ", must be a multiple of ", kBlockTokens));
  }
  if (store_timeout.count() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("store_timeout is ", store_timeout.count(), " ms, must be above 0"));
  }
  if (fetch_threads < 1)
    return absl::InvalidArgumentError(
        absl::StrCat("fetch_threads is ", fetch_threads, ", must be at least 1"));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Start(Engine& engine,
                                                            std::shared_ptr<store::KvStore> store,
                                                            const SchedulerOptions& options,
                                                            WorkerMetrics& metrics) {
  QUIRE_RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<Scheduler> scheduler(new Scheduler(engine, options, metrics));
  Scheduler& s = *scheduler;
  if (store != nullptr) {
    s.link_ = std::make_unique<StoreLink>(std::move(store), engine.layout(), options.link, metrics);
    s.offloader_ = std::make_unique<Offloader>(*s.link_, options.offloader, metrics);
    s.cache_ = std::make_unique<PrefixCache>(*s.link_, options.fetch_threads, s.wake_up_, metrics);
    s.context_.link = s.link_.get();
    s.context_.offloader = s.offloader_.get();
    s.context_.cache = s.cache_.get();
    s.link_->WaitForFirstAttempt(options.store_timeout);
  }
  s.thread_ = std::thread([&s] { s.Run(); });
  return scheduler;
}

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options, WorkerMetrics& metrics)
    : engine_(engine), options_(options), metrics_(metrics), context_{engine, metrics} {
  context_.store_timeout = options.store_timeout;
  context_.chunk_tokens = options.chunk_tokens;
}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    draining_ = stopping_ = true;
    for (auto& [id, generation] : by_id_) generation->Cancel();
  }
  wake_up_->Signal();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::shared_ptr<Generation>> Scheduler::Submit(GenerateSpec spec) {
  QUIRE_RETURN_IF_ERROR(spec.Validate(engine_.info()));
  if (spec.id.empty()) spec.id = RandomId();
  auto generation = std::make_shared<Generation>(spec.id, wake_up_);
  auto request = std::make_unique<Request>(std::move(spec), generation);
  {
    std::lock_guard lock(mutex_);
    if (draining_) return absl::UnavailableError("the worker is shutting down");
    if (running_count_ + waiting_.size() >= size_t{options_.max_running} + options_.max_waiting) {
      metrics_.requests[static_cast<size_t>(Finish::kNone)]->Increment();
      return absl::ResourceExhaustedError(
          absl::StrCat("the queue is full: ", running_count_, " requests run and ", waiting_.size(),
                       " wait, the limits are ", options_.max_running, " and ", options_.max_waiting));
    }
    if (!by_id_.emplace(generation->id(), generation).second) {
      return absl::AlreadyExistsError(absl::StrCat("request_id ", generation->id(), " is in use"));
    }
    waiting_.push_back(std::move(request));
    metrics_.waiting.Set(static_cast<double>(waiting_.size()));
  }
  wake_up_->Signal();
  return generation;
}

bool Scheduler::Abort(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return false;
  it->second->Cancel();
  return true;
}

LoadFigures Scheduler::Load() const {
  std::lock_guard lock(mutex_);
  return {running_count_,       static_cast<uint32_t>(waiting_.size()),
          options_.max_running, options_.max_waiting,
          kv_bytes_.load(),     link_ != nullptr && link_->usable()};
}

void Scheduler::Drain(std::chrono::milliseconds timeout) {
  auto until = Clock::now() + timeout;
  {
    std::unique_lock lock(mutex_);
    draining_ = true;
    auto idle = [&] { return waiting_.empty() && running_count_ == 0; };
    if (!idle_.wait_until(lock, until, idle)) {
      for (auto& [id, generation] : by_id_) generation->Cancel();
      idle_.wait(lock, idle);
    }
  }
  if (offloader_ == nullptr) return;
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
  offloader_->Flush(std::max(left, std::chrono::milliseconds(0)));
}

void Scheduler::Run() {
  for (;;) {
    EndCancelled();
    Retire();
    Admit();
    if (Round()) continue;
    {
      std::lock_guard lock(mutex_);
      if (stopping_ && waiting_.empty() && running_.empty()) return;
    }
    wake_up_->WaitUntil(NextDeadline());
  }
}

void Scheduler::Admit() {
  std::vector<std::unique_ptr<Request>> admitted;
  {
    std::lock_guard lock(mutex_);
    while (!waiting_.empty() && running_count_ < options_.max_running) {
      admitted.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      ++running_count_;
    }
    metrics_.waiting.Set(static_cast<double>(waiting_.size()));
    metrics_.running.Set(running_count_);
  }
  for (auto& request : admitted) {
    request->Start(context_);
    running_.push_back(std::move(request));
  }
}

void Scheduler::EndCancelled() {
  for (auto& request : running_) {
    if (request->generation()->cancelled()) request->End(context_, Finish::kAborted);
  }
  std::vector<std::unique_ptr<Request>> ended;
  {
    std::lock_guard lock(mutex_);
    auto first = std::stable_partition(waiting_.begin(), waiting_.end(), [](const auto& request) {
      return !request->generation()->cancelled();
    });
    std::move(first, waiting_.end(), std::back_inserter(ended));
    waiting_.erase(first, waiting_.end());
    for (auto& request : ended) Forget(*request);
    metrics_.waiting.Set(static_cast<double>(waiting_.size()));
  }
  for (auto& request : ended) {
    request->End(context_, Finish::kAborted);
    request->Deliver();
  }
}

bool Scheduler::Round() {
  bool worked = RestoreTurn(Clock::now());
  worked |= DecodeTurn();
  worked |= PrefillTurn();
  return worked;
}

bool Scheduler::RestoreTurn(Clock::time_point now) {
  bool worked = false;
  for (auto& request : running_) {
    if (request->state() == Request::State::kRestoring) worked |= request->StepRestore(context_, now);
  }
  return worked;
}

bool Scheduler::DecodeTurn() {
  bool worked = false;
  for (auto& request : running_) {
    if (request->generation()->cancelled() || !request->ReadyToDecode()) continue;
    request->StepDecode(context_);
    worked = true;
  }
  return worked;
}

// Chunks of the requests that waited longest for a turn, as many as make up one chunk; at least one.
bool Scheduler::PrefillTurn() {
  std::vector<Request*> prefilling;
  for (auto& request : running_) {
    if (request->state() == Request::State::kPrefilling && !request->generation()->cancelled())
      prefilling.push_back(request.get());
  }
  std::stable_sort(prefilling.begin(), prefilling.end(),
                   [](const Request* a, const Request* b) { return a->last_turn < b->last_turn; });
  uint32_t computed = 0;
  for (Request* request : prefilling) {
    uint32_t chunk = request->NextChunk(context_);
    if (computed > 0 && computed + chunk > options_.chunk_tokens) break;
    request->last_turn = ++turn_;
    request->StepPrefill(context_);
    computed += chunk;
  }
  return computed > 0;
}

void Scheduler::Retire() {
  uint64_t kv_bytes = 0;
  for (auto& request : running_) kv_bytes += request->kv_bytes();
  kv_bytes_ = kv_bytes;
  metrics_.kv_bytes.Set(static_cast<double>(kv_bytes));

  auto first = std::stable_partition(running_.begin(), running_.end(), [](const auto& request) {
    return request->state() != Request::State::kEnded;
  });
  bool idle;
  {
    std::lock_guard lock(mutex_);
    for (auto it = first; it != running_.end(); ++it) {
      Forget(**it);
      --running_count_;
    }
    metrics_.running.Set(running_count_);
    idle = running_count_ == 0 && waiting_.empty();
  }
  std::for_each(first, running_.end(), [](auto& request) { request->Deliver(); });
  running_.erase(first, running_.end());
  if (idle) idle_.notify_all();
}

void Scheduler::Forget(const Request& request) { by_id_.erase(request.generation()->id()); }

Scheduler::Clock::time_point Scheduler::NextDeadline() const {
  auto next = Clock::time_point::max();
  for (auto& request : running_) next = std::min(next, request->restore_deadline());
  return next;
}

}  // namespace quire::worker
