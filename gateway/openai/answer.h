// OpenAI's response objects, whole or as a stream of chunks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/openai/error.h"
#include "quire/v1/inference.pb.h"

namespace quire::gateway {

enum class Endpoint { kChat, kCompletion };

// What all chunks of an answer share.
struct AnswerHead {
  Endpoint endpoint = Endpoint::kChat;
  std::string id;
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string system_fingerprint;
  bool logprobs = false;       // they were asked for
  bool include_usage = false;  // streams: a last chunk with the usage
};

// "chatcmpl-" or "cmpl-" and 24 random characters.
std::string NewAnswerId(Endpoint endpoint);
// "stop", "length"; nullptr if the generation did not end as one does.
const char* FinishName(v1::FinishReason reason);

// Builds the one object of an answer that is not streamed, from the worker's messages.
class WholeAnswer {
 public:
  explicit WholeAnswer(AnswerHead head) : head_(std::move(head)) {}
  void Add(v1::GenerateResponse message);
  v1::FinishReason finish() const { return finish_; }
  const v1::Usage& usage() const { return usage_; }
  std::string Json() const;

 private:
  AnswerHead head_;
  std::string text_;
  std::vector<v1::TokenLogprobs> logprobs_;
  v1::FinishReason finish_ = v1::NOT_FINISHED;
  v1::Usage usage_;
};

// Builds the events of a streamed answer, each "data: …\n\n". All methods append to *out.
class ChunkWriter {
 public:
  explicit ChunkWriter(AnswerHead head);
  void Start(std::string* out);  // chat: the role
  // Nothing if the message brings neither text nor asked-for log-probabilities.
  void Content(const v1::GenerateResponse& message, std::string* out);
  void Finish(v1::FinishReason reason, std::string* out);
  void Usage(const v1::Usage& usage, std::string* out);  // nothing unless asked for
  static void Done(std::string* out);
  static void Error(const ApiError& error, std::string* out);

 private:
  AnswerHead head_;
  std::string before_;      // a chunk up to its choice's content
  std::string after_;       // a chunk after its choice
  size_t text_offset_ = 0;  // characters sent, for the completions endpoint's log-probabilities
};

struct ModelEntry {
  std::string id;
  int64_t created = 0;
};
std::string ModelJson(const ModelEntry& model);
std::string ModelListJson(const std::vector<ModelEntry>& models);

}  // namespace quire::gateway
