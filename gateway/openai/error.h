// Errors as OpenAI's API words them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace quire::gateway {

struct ApiError {
  int status = 400;  // HTTP
  std::string message;
  std::string type = "invalid_request_error";
  std::optional<std::string> param = std::nullopt;
  std::optional<std::string> code = std::nullopt;
};
// Nothing, or what is wrong.
using Problem = std::optional<ApiError>;

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string ErrorBody(const ApiError& error);

ApiError InvalidValue(std::string message, std::string param, std::string code);
ApiError ModelNotFound(std::string_view model);
ApiError NotReady();
// An error with the type that goes with its HTTP status, for what has no more to say.
ApiError PlainError(int status, std::string message);
// What a worker's status means to the client. prompt_param: the request's field that holds the prompt.
ApiError FromWorker(const absl::Status& status, std::string_view prompt_param);

}  // namespace quire::gateway
