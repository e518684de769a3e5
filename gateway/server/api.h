// From a request's path to the code that answers it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "gateway/auth/identity.h"
#include "gateway/http/server.h"
#include "gateway/openai/error.h"
#include "gateway/routing/worker_pool.h"
#include "gateway/server/completions.h"
#include "gateway/server/metrics.h"

namespace quire::gateway {

// An error as a response, with Retry-After where trying again can help.
http::Response ErrorResponse(const ApiError& error);

// Thread-safe; everything given must outlive it.
class Api {
 public:
  Api(WorkerPool& pool, Metrics& metrics, CompletionOptions options)
      : pool_(pool), metrics_(metrics), completions_(pool, metrics, std::move(options)) {}

  // REQUIRES: this outlives the returned coroutine.
  boost::asio::awaitable<void> Handle(http::Request request, http::Exchange& exchange);
  // For requests that HTTP itself refuses.
  http::Response Refusal(int status, const std::string& message);

 private:
  http::Response Answer(Route route, const http::Request& request);
  http::Response Model(const std::string& path) const;

  WorkerPool& pool_;
  Metrics& metrics_;
  Completions completions_;
};

}  // namespace quire::gateway
