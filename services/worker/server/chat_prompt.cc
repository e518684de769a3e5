#include "services/worker/server/chat_prompt.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

using nlohmann::json;

constexpr int kMaxMessages = 4096;
constexpr size_t kMaxRoleBytes = 64, kMaxNameBytes = 256;
constexpr int kMaxJsonDepth = 64;

// Nesting is bounded because whoever walks the value later (the template, serialisation) recurses.
absl::StatusOr<json> ParseJson(const char* field, const std::string& text, json::value_t wanted,
                               const char* wanted_name) {
  bool too_deep = false;
  auto watch = [&](int depth, json::parse_event_t, json&) {
    too_deep |= depth > kMaxJsonDepth;
    return !too_deep;
  };
  json value = json::parse(text, watch, /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError(absl::StrCat(field, " nests deeper than ", kMaxJsonDepth));
  if (value.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(field, " is not valid JSON"));
  if (value.type() != wanted)
    return absl::InvalidArgumentError(absl::StrCat(field, " must be a JSON ", wanted_name));
  return value;
}

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

absl::StatusOr<std::string> MessagesJson(const v1::RenderChatRequest& request) {
  if (request.messages_size() == 0) return absl::InvalidArgumentError("messages is empty");
  if (request.messages_size() > kMaxMessages) {
    return absl::InvalidArgumentError(
        absl::StrCat("messages has ", request.messages_size(), " entries, the limit is ", kMaxMessages));
  }
  json messages = json::array();
  for (int i = 0; i < request.messages_size(); ++i) {
    const v1::ChatMessage& m = request.messages(i);
    if (m.role().empty() || m.role().size() > kMaxRoleBytes) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].role has ", m.role().size(),
                                                     " bytes, must have 1 to ", kMaxRoleBytes));
    }
    if (m.name().size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].name has ", m.name().size(),
                                                     " bytes, the limit is ", kMaxNameBytes));
    }
    json message = {{"role", m.role()}, {"content", m.content()}};
    if (!m.name().empty()) message["name"] = m.name();
    messages.push_back(std::move(message));
  }
  return Dump(messages);
}

absl::StatusOr<std::string> VariablesJson(const v1::RenderChatRequest& request) {
  json variables = json::object();
  if (!request.variables_json().empty()) {
    QUIRE_ASSIGN_OR_RETURN(
        variables, ParseJson("variables_json", request.variables_json(), json::value_t::object, "object"));
  }
  if (!request.tools_json().empty()) {
    QUIRE_ASSIGN_OR_RETURN(variables["tools"],
                           ParseJson("tools_json", request.tools_json(), json::value_t::array, "array"));
  }
  return variables.empty() ? std::string() : Dump(variables);
}

}  // namespace

absl::StatusOr<ChatPrompt> RenderChat(const Engine& engine, const v1::RenderChatRequest& request) {
  std::shared_ptr<const ChatTemplate> chat_template = engine.chat_template();
  if (chat_template == nullptr) return absl::FailedPreconditionError("the model has no chat template");
  QUIRE_ASSIGN_OR_RETURN(std::string messages, MessagesJson(request));
  QUIRE_ASSIGN_OR_RETURN(std::string variables, VariablesJson(request));
  bool add_prompt = !request.has_add_generation_prompt() || request.add_generation_prompt();
  ChatPrompt out;
  QUIRE_ASSIGN_OR_RETURN(out.text, chat_template->Render(messages, add_prompt, variables));
  QUIRE_ASSIGN_OR_RETURN(out.tokens,
                         engine.tokenizer()->Encode(out.text, /*parse_special=*/true, /*add_special=*/false));
  return out;
}

}  // namespace quire::worker
