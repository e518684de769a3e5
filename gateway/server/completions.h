// POST /v1/chat/completions and /v1/completions.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <string>

#include "gateway/auth/identity.h"
#include "gateway/http/server.h"
#include "gateway/openai/answer.h"
#include "gateway/routing/worker_pool.h"
#include "gateway/server/metrics.h"

namespace quire::gateway {

struct CompletionOptions {
  std::string secret;
  size_t max_active = 4096;  // generations at a time; over it 429
};

// Thread-safe; pool and metrics must outlive it.
class Completions {
 public:
  Completions(WorkerPool& pool, Metrics& metrics, CompletionOptions options)
      : pool_(pool), metrics_(metrics), options_(std::move(options)) {}

  // Answers one request and returns the status it ended with (kClientGone if nobody was left to answer).
  boost::asio::awaitable<int> Handle(Endpoint endpoint, http::Request request, const std::string& id,
                                     http::Exchange& exchange);

 private:
  struct Job;
  class Progress;

  template <typename R>
  Problem Prepare(Problem (*read)(std::string_view, R*), const http::Request& request, Job* job) const;
  boost::asio::awaitable<int> Generate(Job job, http::Exchange& exchange);
  boost::asio::awaitable<int> Stream(Job& job, Generation& generation,
                                     std::vector<v1::GenerateResponse> batch, http::Exchange& exchange);
  boost::asio::awaitable<int> Whole(Job& job, Generation& generation, std::vector<v1::GenerateResponse> batch,
                                    http::Exchange& exchange);
  ApiError WorkerError(const Job& job, const absl::Status& status) const;
  boost::asio::awaitable<int> SendError(const ApiError& error, const std::string& id,
                                        http::Exchange& exchange) const;

  WorkerPool& pool_;
  Metrics& metrics_;
  const CompletionOptions options_;
  const Authenticator authenticator_{};
  std::atomic<size_t> active_ = 0;
};

}  // namespace quire::gateway
