// A model's Jinja chat template, rendered by the Rust crate `minijinja` (with Python's string methods) behind
// core/text's C ABI.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/model/gguf.h"

namespace quire {

// Immutable and thread-safe after creation.
class ChatTemplate {
 public:
  // NOT_FOUND if the model has no template; INVALID_ARGUMENT with the line if it does not parse.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> FromGguf(const GgufFile& file);
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   std::string_view bos,
                                                                   std::string_view eos);
  ~ChatTemplate();

  // `messages_json`: a JSON array of {"role","content",…}. `variables_json`: a JSON object of further
  // variables (tools and the like), or "". INVALID_ARGUMENT with the template's own message where it raises
  // one.
  absl::StatusOr<std::string> Render(std::string_view messages_json, bool add_generation_prompt,
                                     std::string_view variables_json) const;

 private:
  ChatTemplate() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
