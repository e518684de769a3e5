#include "gateway/openai/error.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gateway/openai/json_text.h"

namespace quire::gateway {
namespace {

void AppendNullable(const std::optional<std::string>& value, std::string* out) {
  if (value) {
    AppendJsonString(*value, out);
  } else {
    out->append("null");
  }
}

// quire.v1 has one code for all a request may have wrong; the worker's message tells a long prompt from the
// rest.
bool IsTooLong(const std::string& message) {
  const std::string lower = absl::AsciiStrToLower(message);
  return absl::StrContains(lower, "prompt") &&
         (absl::StrContains(lower, "context") || absl::StrContains(lower, "too long"));
}

}  // namespace

std::string ErrorBody(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(error.message, &out);
  out.append(R"(,"type":)");
  AppendJsonString(error.type, &out);
  out.append(R"(,"param":)");
  AppendNullable(error.param, &out);
  out.append(R"(,"code":)");
  AppendNullable(error.code, &out);
  out.append("}}");
  return out;
}

ApiError InvalidValue(std::string message, std::string param, std::string code) {
  return {.message = std::move(message), .param = std::move(param), .code = std::move(code)};
}

ApiError ModelNotFound(std::string_view model) {
  return {.status = 404,
          .message = absl::StrCat("The model `", std::string(model),
                                  "` does not exist or you do not have access to it."),
          .code = "model_not_found"};
}

ApiError NotReady() {
  return {.status = 503,
          .message = "No worker is ready. Please try again in a moment.",
          .type = "server_error",
          .code = "service_unavailable"};
}

ApiError PlainError(int status, std::string message) {
  ApiError error{.status = status, .message = std::move(message)};
  if (status >= 500) {
    error.type.assign("server_error");
  } else if (status == 429) {
    error.type.assign("requests");
    error.code.emplace("rate_limit_exceeded");
  }
  return error;
}

ApiError FromWorker(const absl::Status& status, std::string_view prompt_param) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      if (IsTooLong(message))
        return InvalidValue(message, std::string(prompt_param), "context_length_exceeded");
      return {.message = message};
    case absl::StatusCode::kResourceExhausted:
      return PlainError(429, absl::StrCat("The server is busy: ", message));
    case absl::StatusCode::kUnavailable:
      return {.status = 503,
              .message = absl::StrCat("The worker is not available: ", message),
              .type = "server_error",
              .code = "service_unavailable"};
    case absl::StatusCode::kDeadlineExceeded:
      return PlainError(504, absl::StrCat("The worker did not answer in time: ", message));
    case absl::StatusCode::kUnimplemented:
      return PlainError(501, absl::StrCat("The worker cannot do this: ", message));
    default:
      return PlainError(500,
                        absl::StrCat("The server had an error while processing your request: ", message));
  }
}

}  // namespace quire::gateway
