#include "gateway/openai/answer.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gateway/openai/json_text.h"

namespace quire::gateway {
namespace {

void AppendUsage(const v1::Usage& usage, std::string* out) {
  absl::StrAppend(out, R"({"prompt_tokens":)", usage.prompt_tokens(), R"(,"completion_tokens":)",
                  usage.completion_tokens(), R"(,"total_tokens":)",
                  uint64_t{usage.prompt_tokens()} + usage.completion_tokens(),
                  R"(,"prompt_tokens_details":{"cached_tokens":)", usage.cached_tokens(),
                  R"(,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,)"
                  R"("accepted_prediction_tokens":0,"rejected_prediction_tokens":0}})");
}

// Chat: {"token":…,"logprob":…,"bytes":[…]} without the closing brace.
void AppendTokenHead(const v1::TokenLogprobs& token, std::string* out) {
  out->append(R"({"token":)");
  AppendJsonString(token.text(), out);
  out->append(R"(,"logprob":)");
  AppendJsonFloat(token.logprob(), out);
  out->append(R"(,"bytes":[)");
  for (size_t i = 0; i < token.text().size(); ++i) {
    absl::StrAppend(out, i ? "," : "", static_cast<int>(static_cast<uint8_t>(token.text()[i])));
  }
  out->push_back(']');
}

template <typename Tokens>
void AppendChatLogprobs(const Tokens& tokens, std::string* out) {
  out->append(R"({"content":[)");
  bool first = true;
  for (const v1::TokenLogprobs& token : tokens) {
    if (!std::exchange(first, false)) out->push_back(',');
    AppendTokenHead(token, out);
    out->append(R"(,"top_logprobs":[)");
    for (int i = 0; i < token.top_size(); ++i) {
      if (i) out->push_back(',');
      AppendTokenHead(token.top(i), out);
      out->push_back('}');
    }
    out->append("]}");
  }
  out->append(R"(],"refusal":null})");
}

size_t Characters(std::string_view text) {
  size_t count = 0;
  for (char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

// An object of token → log-probability may not name one token twice, even if two tokens print alike.
void AppendTopObject(const v1::TokenLogprobs& token, std::string* out) {
  out->push_back('{');
  std::vector<std::string> seen;
  auto add = [&](const v1::TokenLogprobs& one) {
    std::string key;
    AppendJsonString(one.text(), &key);
    for (const auto& other : seen) {
      if (other == key) return;
    }
    if (!seen.empty()) out->push_back(',');
    out->append(key).push_back(':');
    AppendJsonFloat(one.logprob(), out);
    seen.push_back(std::move(key));
  };
  for (const auto& one : token.top()) add(one);
  add(token);
  out->push_back('}');
}

// offset: where the first token's text starts, in characters; moved past the last.
template <typename Tokens>
void AppendCompletionLogprobs(const Tokens& tokens, size_t* offset, std::string* out) {
  std::string texts, values, tops, offsets;
  bool first = true;
  for (const v1::TokenLogprobs& token : tokens) {
    if (!std::exchange(first, false)) {
      for (std::string* list : {&texts, &values, &tops, &offsets}) list->push_back(',');
    }
    AppendJsonString(token.text(), &texts);
    AppendJsonFloat(token.logprob(), &values);
    AppendTopObject(token, &tops);
    absl::StrAppend(&offsets, *offset);
    *offset += Characters(token.text());
  }
  absl::StrAppend(out, R"({"tokens":[)", texts, R"(],"token_logprobs":[)", values, R"(],"top_logprobs":[)",
                  tops, R"(],"text_offset":[)", offsets, "]}");
}

template <typename Tokens>
void AppendLogprobs(Endpoint endpoint, const Tokens& tokens, size_t* offset, std::string* out) {
  if (endpoint == Endpoint::kChat) {
    AppendChatLogprobs(tokens, out);
  } else {
    AppendCompletionLogprobs(tokens, offset, out);
  }
}

// {"id":…,"object":…,"created":…,"model":…,"system_fingerprint":…,
std::string ObjectHead(const AnswerHead& head, std::string_view object) {
  std::string out = R"({"id":)";
  AppendJsonString(head.id, &out);
  absl::StrAppend(&out, R"(,"object":")", std::string(object), R"(","created":)", head.created,
                  R"(,"model":)");
  AppendJsonString(head.model, &out);
  out.append(R"(,"system_fingerprint":)");
  AppendJsonString(head.system_fingerprint, &out);
  out.push_back(',');
  return out;
}

void AppendFinish(v1::FinishReason reason, std::string* out) {
  const char* name = FinishName(reason);
  if (name) {
    absl::StrAppend(out, R"(,"finish_reason":")", name, "\"");
  } else {
    out->append(R"(,"finish_reason":null)");
  }
}

}  // namespace

std::string NewAnswerId(Endpoint endpoint) {
  static constexpr std::string_view kAlphabet =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  std::string id = endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-";
  std::uniform_int_distribution<size_t> pick(0, kAlphabet.size() - 1);
  for (int i = 0; i < 24; ++i) id.push_back(kAlphabet[pick(random)]);
  return id;
}

const char* FinishName(v1::FinishReason reason) {
  switch (reason) {
    case v1::STOP:
      return "stop";
    case v1::LENGTH:
      return "length";
    default:
      return nullptr;
  }
}

void WholeAnswer::Add(v1::GenerateResponse message) {
  text_.append(message.text());
  if (head_.logprobs) {
    for (auto& token : *message.mutable_logprobs()) logprobs_.push_back(std::move(token));
  }
  if (message.finish() != v1::NOT_FINISHED) finish_ = message.finish();
  if (message.has_usage()) usage_ = std::move(*message.mutable_usage());
}

std::string WholeAnswer::Json() const {
  const bool chat = head_.endpoint == Endpoint::kChat;
  std::string out = ObjectHead(head_, chat ? "chat.completion" : "text_completion");
  out.append(R"("choices":[{"index":0,)");
  if (chat) {
    out.append(R"("message":{"role":"assistant","content":)");
    AppendJsonString(text_, &out);
    out.append(R"(,"refusal":null,"annotations":[]})");
  } else {
    out.append(R"("text":)");
    AppendJsonString(text_, &out);
  }
  out.append(R"(,"logprobs":)");
  size_t offset = 0;
  if (head_.logprobs) {
    AppendLogprobs(head_.endpoint, logprobs_, &offset, &out);
  } else {
    out.append("null");
  }
  AppendFinish(finish_, &out);
  out.append(R"(}],"usage":)");
  AppendUsage(usage_, &out);
  out.push_back('}');
  return out;
}

ChunkWriter::ChunkWriter(AnswerHead head) : head_(std::move(head)) {
  before_ =
      "data: " +
      ObjectHead(head_, head_.endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion") +
      R"("choices":[)";
  after_ = head_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

void ChunkWriter::Start(std::string* out) {
  if (head_.endpoint != Endpoint::kChat) return;
  out->append(before_).append(
      R"({"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null)");
  out->append(after_);
}

void ChunkWriter::Content(const v1::GenerateResponse& message, std::string* out) {
  const bool logprobs = head_.logprobs && message.logprobs_size() > 0;
  if (message.text().empty() && !logprobs) return;
  out->append(before_).append(head_.endpoint == Endpoint::kChat ? R"({"index":0,"delta":{"content":)"
                                                                : R"({"index":0,"text":)");
  AppendJsonString(message.text(), out);
  out->append(head_.endpoint == Endpoint::kChat ? R"(},"logprobs":)" : R"(,"logprobs":)");
  if (logprobs) {
    AppendLogprobs(head_.endpoint, message.logprobs(), &text_offset_, out);
  } else {
    out->append("null");
  }
  out->append(R"(,"finish_reason":null)").append(after_);
}

void ChunkWriter::Finish(v1::FinishReason reason, std::string* out) {
  out->append(before_).append(head_.endpoint == Endpoint::kChat ? R"({"index":0,"delta":{},"logprobs":null)"
                                                                : R"({"index":0,"text":"","logprobs":null)");
  AppendFinish(reason, out);
  out->append(after_);
}

void ChunkWriter::Usage(const v1::Usage& usage, std::string* out) {
  if (!head_.include_usage) return;
  out->append(before_).append(R"(],"usage":)");
  AppendUsage(usage, out);
  out->append("}\n\n");
}

void ChunkWriter::Done(std::string* out) { out->append("data: [DONE]\n\n"); }

void ChunkWriter::Error(const ApiError& error, std::string* out) {
  out->append("data: ").append(ErrorBody(error)).append("\n\n");
}

std::string ModelJson(const ModelEntry& model) {
  std::string out = R"({"id":)";
  AppendJsonString(model.id, &out);
  absl::StrAppend(&out, R"(,"object":"model","created":)", model.created, R"(,"owned_by":"quire"})");
  return out;
}

std::string ModelListJson(const std::vector<ModelEntry>& models) {
  std::string out = R"({"object":"list","data":[)";
  for (size_t i = 0; i < models.size(); ++i) {
    if (i) out.push_back(',');
    out.append(ModelJson(models[i]));
  }
  out.append("]}");
  return out;
}

}  // namespace quire::gateway
