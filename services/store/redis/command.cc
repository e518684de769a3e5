#include "services/store/redis/command.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

void AppendArgument(std::string* out, std::string_view argument) {
  absl::StrAppend(out, "$", argument.size(), "\r\n");
  out->append(argument);
  out->append("\r\n");
}

constexpr std::pair<std::string_view, absl::StatusCode> kErrors[] = {
    {"OOM", absl::StatusCode::kResourceExhausted},   {"WRONGPASS", absl::StatusCode::kUnauthenticated},
    {"NOAUTH", absl::StatusCode::kUnauthenticated},  {"NOPERM", absl::StatusCode::kPermissionDenied},
    {"LOADING", absl::StatusCode::kUnavailable},     {"MASTERDOWN", absl::StatusCode::kUnavailable},
    {"CLUSTERDOWN", absl::StatusCode::kUnavailable}, {"TRYAGAIN", absl::StatusCode::kUnavailable},
    {"MOVED", absl::StatusCode::kUnavailable},       {"ASK", absl::StatusCode::kUnavailable},
    {"READONLY", absl::StatusCode::kUnavailable},    {"MISCONF", absl::StatusCode::kUnavailable},
    {"NOREPLICAS", absl::StatusCode::kUnavailable},  {"BUSY", absl::StatusCode::kUnavailable},
    {"WRONGTYPE", absl::StatusCode::kDataLoss},
};

constexpr std::string_view kTypeNames[] = {"nil",      "a status", "an error", "an integer",
                                           "a string", "an array", "a value",  "a value of another size"};

}  // namespace

Command::Command(const std::vector<std::string_view>& arguments) {
  absl::StrAppend(&head_, "*", arguments.size(), "\r\n");
  for (std::string_view argument : arguments) AppendArgument(&head_, argument);
}

Command::Command(const std::vector<std::string_view>& arguments, size_t payload_at, Bytes payload)
    : payload_(payload) {
  absl::StrAppend(&head_, "*", arguments.size() + 1, "\r\n");
  for (size_t i = 0; i < payload_at; ++i) AppendArgument(&head_, arguments[i]);
  absl::StrAppend(&head_, "$", payload.size(), "\r\n");
  tail_ = "\r\n";
  for (size_t i = payload_at; i < arguments.size(); ++i) AppendArgument(&tail_, arguments[i]);
}

absl::Status Reply::status() const {
  if (type != Type::kError) return absl::OkStatus();
  std::string_view word = std::string_view(text).substr(0, text.find(' '));
  std::string message = absl::StrCat("redis answers: ", text);
  for (const auto& [prefix, code] : kErrors) {
    if (word == prefix) return absl::Status(code, message);
  }
  // Old servers put a script's error behind words of their own.
  if (text.find("OOM command not allowed") != std::string::npos) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

absl::Status Unexpected(std::string_view wanted, const Reply& reply) {
  if (absl::Status status = reply.status(); !status.ok()) return status;
  return absl::DataLossError(absl::StrCat("redis was to answer with ", std::string(wanted), " and sent ",
                                          std::string(kTypeNames[static_cast<size_t>(reply.type)])));
}

}  // namespace quire::store::redis
