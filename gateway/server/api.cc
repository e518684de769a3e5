#include "gateway/server/api.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gateway/http/wire.h"
#include "gateway/openai/answer.h"
#include "services/runtime/metrics.h"

namespace quire::gateway {
namespace asio = boost::asio;

namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

Route FindRoute(std::string_view path) {
  if (path == "/v1/chat/completions") return Route::kChat;
  if (path == "/v1/completions") return Route::kCompletions;
  if (path == "/v1/models") return Route::kModels;
  if (path.substr(0, kModelPrefix.size()) == kModelPrefix && path.size() > kModelPrefix.size())
    return Route::kModel;
  if (path == "/health") return Route::kHealth;
  if (path == "/metrics") return Route::kMetrics;
  return Route::kOther;
}

bool Allows(Route route, std::string_view method) {
  if (route == Route::kChat || route == Route::kCompletions) return method == "POST";
  return method == "GET" || method == "HEAD";
}

std::string NewRequestId() {
  thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  return absl::StrFormat("req_%016x%016x", random(), random());
}

}  // namespace

http::Response ErrorResponse(const ApiError& error) {
  http::Response response{.status = error.status, .body = ErrorBody(error)};
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

http::Response Api::Refusal(int status, const std::string& message) {
  metrics_.Request(Route::kOther, status, {});
  return ErrorResponse(PlainError(status, message));
}

http::Response Api::Answer(Route route, const http::Request& request) {
  switch (route) {
    case Route::kHealth:
      if (!pool_.ready()) return ErrorResponse(NotReady());
      return {.body = R"({"status":"ok"})"};
    case Route::kMetrics:
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
              .body = runtime::Exposition(metrics_.registry())};
    case Route::kModels: {
      std::vector<ModelEntry> models;
      for (const auto& model : pool_.Models()) models.push_back({model->name, model->created});
      return {.body = ModelListJson(models)};
    }
    case Route::kModel:
      return Model(request.path);
    default:
      return ErrorResponse({.status = 404,
                            .message = absl::StrCat("Unknown request URL: ", request.method, " ",
                                                    request.path, ". Please check the URL for typos."),
                            .code = "unknown_url"});
  }
}

http::Response Api::Model(const std::string& path) const {
  const std::string name = http::PercentDecode(std::string_view(path).substr(kModelPrefix.size()));
  auto model = pool_.FindModel(name);
  if (!model) return ErrorResponse(ModelNotFound(name));
  return {.body = ModelJson({model->name, model->created})};
}

asio::awaitable<void> Api::Handle(http::Request request, http::Exchange& exchange) {
  const auto received = request.received;
  const std::string id = NewRequestId();
  const std::string method = request.method;
  const Route route = FindRoute(request.path);
  int status = 0;
  if (route != Route::kOther && !Allows(route, method)) {
    const bool post = route == Route::kChat || route == Route::kCompletions;
    http::Response response =
        ErrorResponse({.status = 405,
                       .message = absl::StrCat("Not allowed to ", method, " on ", request.path, ". Use ",
                                               post ? "POST" : "GET", "."),
                       .code = "method_not_allowed"});
    response.headers.emplace_back("Allow", post ? "POST" : "GET, HEAD");
    response.headers.emplace_back("x-request-id", id);
    status = response.status;
    co_await exchange.Send(std::move(response));
  } else if (route == Route::kChat || route == Route::kCompletions) {
    const Endpoint endpoint = route == Route::kChat ? Endpoint::kChat : Endpoint::kCompletion;
    status = co_await completions_.Handle(endpoint, std::move(request), id, exchange);
  } else {
    http::Response response = Answer(route, request);
    response.headers.emplace_back("x-request-id", id);
    status = response.status;
    co_await exchange.Send(std::move(response));
  }
  const auto took = std::chrono::steady_clock::now() - received;
  metrics_.Request(route, status, took);
  spdlog::debug("request {} {} {} status {} in {:.1f} ms", id, method, RouteName(route), status,
                std::chrono::duration<double, std::milli>(took).count());
}

}  // namespace quire::gateway
