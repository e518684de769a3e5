#include "gateway/server/completions.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "gateway/auth/secret.h"
#include "gateway/openai/requests.h"
#include "gateway/openai/to_proto.h"
#include "gateway/server/api.h"

namespace quire::gateway {
namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using Batch = std::vector<v1::GenerateResponse>;

namespace {

// A worker's receive limit is 4 MiB (services/runtime), with room for what gRPC adds.
constexpr size_t kMaxWorkerBytes = (4 << 20) - 4096;

const char* PromptParam(Endpoint endpoint) { return endpoint == Endpoint::kChat ? "messages" : "prompt"; }

// Lets a finished call end by itself instead of cancelling it.
asio::awaitable<void> ReadToEnd(Generation& generation) {
  Batch rest;
  bool more = true;
  while (more) {
    rest.clear();
    more = co_await generation.Read(&rest);
  }
}

}  // namespace

// A request that passed every check.
struct Completions::Job {
  std::string request_id;
  Clock::time_point received;
  AnswerHead head = {};
  bool stream = false;
  v1::GenerateRequest generate = {};
};

// Times and counts one answer's tokens.
class Completions::Progress {
 public:
  Progress(Metrics& metrics, Clock::time_point received) : metrics_(metrics), last_(received) {}
  // However the answer ends, what was generated is counted.
  ~Progress() {
    metrics_.completion_tokens.Increment(has_usage_ ? usage_.completion_tokens() : tokens_);
    metrics_.prompt_tokens.Increment(usage_.prompt_tokens());
    metrics_.cached_tokens.Increment(usage_.cached_tokens());
  }
  Progress(const Progress&) = delete;

  void Add(const v1::GenerateResponse& message) {
    if (message.has_usage()) {
      usage_ = message.usage();
      has_usage_ = true;
    }
    if (message.finish() != v1::NOT_FINISHED) finish_ = message.finish();
    const int count = message.tokens_size();
    if (count == 0) return;
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    int gaps = count;
    if (tokens_ == 0) {
      metrics_.first_token_seconds.Observe(seconds);
      --gaps;
    }
    tokens_ += static_cast<uint64_t>(count);
    for (int i = 0; i < gaps; ++i)
      metrics_.inter_token_seconds.Observe(tokens_ > static_cast<uint64_t>(count) ? seconds / count : 0);
  }

  v1::FinishReason finish() const { return finish_; }
  bool finished() const { return FinishName(finish_) != nullptr; }
  const v1::Usage& usage() const { return usage_; }

 private:
  Metrics& metrics_;
  Clock::time_point last_;
  uint64_t tokens_ = 0;
  v1::FinishReason finish_ = v1::NOT_FINISHED;
  v1::Usage usage_;
  bool has_usage_ = false;
};

template <typename R>
Problem Completions::Prepare(Problem (*read)(std::string_view, R*), const http::Request& request,
                             Job* job) const {
  auto identity = authenticator_.Authenticate(request.Header("authorization"));
  if (!identity.ok()) return PlainError(401, std::string(identity.status().message()));
  R parsed;
  if (Problem problem = read(request.body, &parsed)) return problem;
  auto model = pool_.FindModel(parsed.model);
  if (!model) return pool_.ready() ? ModelNotFound(parsed.model) : NotReady();
  const ModelLimits limits{model->context_tokens, model->vocabulary, model->has_chat_template};
  if (Problem problem = ToGenerate(parsed, limits, &job->generate)) return problem;
  job->generate.set_request_id(job->request_id);
  job->generate.set_tenant(identity->tenant);
  job->generate.set_salt(
      std::string(DeriveSalt(options_.secret, identity->tenant, parsed.cache_salt).AsString()));
  if (job->generate.ByteSizeLong() > kMaxWorkerBytes) {
    return InvalidValue(absl::StrCat("This request is larger than the ", kMaxWorkerBytes,
                                     " bytes that a worker takes. Please reduce its length."),
                        PromptParam(job->head.endpoint), "context_length_exceeded");
  }
  job->stream = parsed.stream;
  job->head.id = NewAnswerId(job->head.endpoint);
  job->head.created = std::time(nullptr);
  job->head.model = model->name;
  job->head.system_fingerprint = model->fingerprint;
  job->head.logprobs = parsed.logprobs.has_value();
  job->head.include_usage = parsed.stream && parsed.include_usage;
  return std::nullopt;
}

asio::awaitable<int> Completions::SendError(const ApiError& error, const std::string& id,
                                            http::Exchange& exchange) const {
  http::Response response = ErrorResponse(error);
  response.headers.emplace_back("x-request-id", id);
  co_await exchange.Send(std::move(response));
  co_return error.status;
}

asio::awaitable<int> Completions::Handle(Endpoint endpoint, http::Request request, const std::string& id,
                                         http::Exchange& exchange) {
  Job job{.request_id = id, .received = request.received};
  job.head.endpoint = endpoint;
  Problem problem = endpoint == Endpoint::kChat ? Prepare(ReadChatRequest, request, &job)
                                                : Prepare(ReadCompletionRequest, request, &job);
  request = {};  // the body is not needed while the answer is made
  if (problem) co_return co_await SendError(*problem, id, exchange);
  co_return co_await Generate(std::move(job), exchange);
}

asio::awaitable<int> Completions::Generate(Job job, http::Exchange& exchange) {
  const size_t active = ++active_;
  metrics_.active_requests.Increment();
  absl::Cleanup leave = [this] {
    --active_;
    metrics_.active_requests.Decrement();
  };
  if (active > options_.max_active) {
    const ApiError busy = PlainError(
        429, absl::StrCat("The server is busy: more than ", options_.max_active, " requests at a time."));
    co_return co_await SendError(busy, job.request_id, exchange);
  }

  std::shared_ptr<Generation> generation = pool_.Generate(job.head.model, std::move(job.generate));
  job.generate.Clear();
  exchange.OnDisconnect([generation] { generation->Cancel(); });
  // Nothing is sent before the worker's first message, so that its errors still have a status of their own.
  Batch batch;
  const bool begun = co_await generation->Read(&batch);
  if (!begun) {
    const absl::Status status = generation->status();
    if (absl::IsCancelled(status)) co_return kClientGone;
    metrics_.UpstreamError(status.code());
    const ApiError error = WorkerError(job, status);
    co_return co_await SendError(error, job.request_id, exchange);
  }
  if (job.stream) co_return co_await Stream(job, *generation, std::move(batch), exchange);
  co_return co_await Whole(job, *generation, std::move(batch), exchange);
}

ApiError Completions::WorkerError(const Job& job, const absl::Status& status) const {
  if (status.ok()) return PlainError(500, "The worker ended the generation before it was finished.");
  return FromWorker(status, PromptParam(job.head.endpoint));
}

asio::awaitable<int> Completions::Whole(Job& job, Generation& generation, Batch batch,
                                        http::Exchange& exchange) {
  Progress progress(metrics_, job.received);
  WholeAnswer answer(job.head);
  bool more = true;
  while (more) {
    for (auto& message : batch) {
      progress.Add(message);
      answer.Add(std::move(message));
    }
    batch.clear();
    if (progress.finished()) break;
    more = co_await generation.Read(&batch);
  }
  if (!progress.finished()) {
    const absl::Status status = generation.status();
    if (absl::IsCancelled(status)) co_return kClientGone;
    metrics_.UpstreamError(status.code());
    const ApiError error = WorkerError(job, status);
    co_return co_await SendError(error, job.request_id, exchange);
  }
  http::Response response{.body = answer.Json()};
  response.headers.emplace_back("x-request-id", job.request_id);
  co_await exchange.Send(std::move(response));
  co_await ReadToEnd(generation);
  co_return 200;
}

asio::awaitable<int> Completions::Stream(Job& job, Generation& generation, Batch batch,
                                         http::Exchange& exchange) {
  metrics_.active_streams.Increment();
  absl::Cleanup leave = [this] { metrics_.active_streams.Decrement(); };
  Progress progress(metrics_, job.received);
  ChunkWriter chunks(job.head);
  std::string out;
  exchange.StartStream(
      200, "text/event-stream; charset=utf-8",
      {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}, {"x-request-id", job.request_id}});
  chunks.Start(&out);
  bool more = true;
  while (more) {
    for (const auto& message : batch) {
      progress.Add(message);
      chunks.Content(message, &out);
    }
    if (progress.finished()) break;
    batch.clear();
    if (!out.empty()) {
      const bool written = co_await exchange.Write(out);
      if (!written) co_return kClientGone;  // dropping the generation cancels it
      out.clear();
    }
    more = co_await generation.Read(&batch);
  }
  if (progress.finished()) {
    chunks.Finish(progress.finish(), &out);
    chunks.Usage(progress.usage(), &out);
    ChunkWriter::Done(&out);
  } else {
    const absl::Status status = generation.status();
    if (absl::IsCancelled(status)) co_return kClientGone;
    metrics_.UpstreamError(status.code());
    metrics_.stream_errors.Increment();
    ChunkWriter::Error(WorkerError(job, status), &out);
  }
  const bool written = co_await exchange.FinishStream(out);
  if (!written) co_return kClientGone;
  co_await ReadToEnd(generation);
  co_return 200;
}

}  // namespace quire::gateway
