#include "core/text/chat_template.h"

#include "core/base/status_macros.h"
#include "core/text/rust_call.h"

namespace quire {
namespace {

struct TemplateFree {
  void operator()(QuireTextTemplate* t) const { quire_text_template_free(t); }
};

// The text of the token that `key` names, or "" where there is none.
std::string TokenText(const GgufFile& file, std::string_view key) {
  auto id = file.GetUint(key);
  auto tokens = file.GetStrings("tokenizer.ggml.tokens");
  return id.ok() && tokens.ok() && *id < tokens->size() ? (*tokens)[*id] : "";
}

}  // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<QuireTextTemplate, TemplateFree> rust;
};

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::FromGguf(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.chat_template";
  if (!file.Has(kKey)) return absl::NotFoundError("the model has no chat template");
  QUIRE_ASSIGN_OR_RETURN(std::string source, file.GetString(kKey));
  return Parse(source, TokenText(file, "tokenizer.ggml.bos_token_id"),
               TokenText(file, "tokenizer.ggml.eos_token_id"));
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                        std::string_view bos,
                                                                        std::string_view eos) {
  QuireTextTemplate* made = nullptr;
  QuireTextBytes error{};
  QUIRE_RETURN_IF_ERROR(
      RustStatus(quire_text_template_new(AsSlice(source), AsSlice(bos), AsSlice(eos), &made, &error), error));
  std::shared_ptr<ChatTemplate> chat_template(new ChatTemplate());
  chat_template->impl_ = std::make_unique<Impl>();
  chat_template->impl_->rust.reset(made);
  return chat_template;
}

absl::StatusOr<std::string> ChatTemplate::Render(std::string_view messages_json, bool add_generation_prompt,
                                                 std::string_view variables_json) const {
  QuireTextBytes out{}, error{};
  QUIRE_RETURN_IF_ERROR(
      RustStatus(quire_text_template_render(impl_->rust.get(), AsSlice(messages_json), add_generation_prompt,
                                            AsSlice(variables_json), &out, &error),
                 error));
  return TakeString(out);
}

}  // namespace quire
