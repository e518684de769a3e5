#include "core/text/tokenizer.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/text/rust_call.h"

namespace quire {
namespace {

constexpr int64_t kUnknownType = 2, kControlType = 3, kUserDefinedType = 4;  // ggml's token types

// Texts of control tokens that end a turn or an answer, for files that name only one of them as EOS.
constexpr std::string_view kEndTexts[] = {"<|endoftext|>",   "<|im_end|>", "<|eot_id|>",    "<|eom_id|>",
                                          "<|end_of_text|>", "<|end|>",    "<end_of_turn>", "<|EOT|>",
                                          "<EOT>",           "</s>"};

struct TokenizerFree {
  void operator()(QuireTextTokenizer* t) const { quire_text_tokenizer_free(t); }
};

std::vector<QuireTextSlice> Slices(std::span<const std::string> texts) {
  std::vector<QuireTextSlice> out;
  out.reserve(texts.size());
  for (const std::string& text : texts) out.push_back(AsSlice(text));
  return out;
}

// What quire_text_tokenizer_new takes, and the memory behind it.
struct VocabularyFields {
  std::string model, pre = "default";
  std::span<const std::string> tokens;
  std::span<const int64_t> types;  // empty: all normal
  std::span<const std::string> merges;
  std::span<const double> scores;
  std::optional<uint32_t> unknown;
  bool space_prefix = true;

  bool sentence_piece() const { return model == "llama"; }
  absl::Status Read(const GgufFile& file);
  absl::Status ReadSentencePiece(const GgufFile& file);

  absl::Status CheckCount(std::string_view key, size_t count) const {
    if (count == tokens.size()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(key), "' has ", count, " entries for ", tokens.size(), " tokens"));
  }
};

absl::Status VocabularyFields::Read(const GgufFile& file) {
  QUIRE_ASSIGN_OR_RETURN(model, file.GetString("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "llama") {
    return absl::UnimplementedError(absl::StrCat("tokenizer model '", model,
                                                 "' is not supported, only 'gpt2' (byte-level BPE) and "
                                                 "'llama' (SentencePiece BPE)"));
  }
  QUIRE_ASSIGN_OR_RETURN(tokens, file.GetStrings("tokenizer.ggml.tokens"));
  if (file.Has("tokenizer.ggml.token_type")) {
    QUIRE_ASSIGN_OR_RETURN(types, file.GetInts("tokenizer.ggml.token_type"));
    QUIRE_RETURN_IF_ERROR(CheckCount("tokenizer.ggml.token_type", types.size()));
  }
  if (sentence_piece()) return ReadSentencePiece(file);
  if (file.Has("tokenizer.ggml.pre")) {
    QUIRE_ASSIGN_OR_RETURN(pre, file.GetString("tokenizer.ggml.pre"));
  }
  QUIRE_ASSIGN_OR_RETURN(merges, file.GetStrings("tokenizer.ggml.merges"));
  return absl::OkStatus();
}

absl::Status VocabularyFields::ReadSentencePiece(const GgufFile& file) {
  QUIRE_ASSIGN_OR_RETURN(scores, file.GetFloats("tokenizer.ggml.scores"));
  QUIRE_RETURN_IF_ERROR(CheckCount("tokenizer.ggml.scores", scores.size()));
  if (file.Has("tokenizer.ggml.unknown_token_id")) {
    QUIRE_ASSIGN_OR_RETURN(uint64_t id, file.GetUint("tokenizer.ggml.unknown_token_id"));
    if (id >= tokens.size()) {
      return absl::InvalidArgumentError(absl::StrCat("'tokenizer.ggml.unknown_token_id' is ", id,
                                                     ", the vocabulary has ", tokens.size(), " tokens"));
    }
    unknown = static_cast<uint32_t>(id);
  }
  if (file.Has("tokenizer.ggml.add_space_prefix")) {
    QUIRE_ASSIGN_OR_RETURN(space_prefix, file.GetBool("tokenizer.ggml.add_space_prefix"));
  }
  // Both rewrite the text first, in ways of their own.
  if (auto removes = file.GetBool("tokenizer.ggml.remove_extra_whitespaces"); removes.ok() && *removes) {
    return absl::UnimplementedError("'tokenizer.ggml.remove_extra_whitespaces' = true is not supported");
  }
  if (file.Has("tokenizer.ggml.precompiled_charsmap")) {
    return absl::UnimplementedError("'tokenizer.ggml.precompiled_charsmap' is not supported");
  }
  return absl::OkStatus();
}

}  // namespace

struct Tokenizer::Impl {
  std::unique_ptr<QuireTextTokenizer, TokenizerFree> rust;
  std::vector<bool> special;                         // by id
  absl::flat_hash_map<std::string, uint32_t> added;  // special and user-defined tokens by text
  std::optional<uint32_t> bos, eos;
  std::vector<uint32_t> end_tokens;
  size_t longest_token = 1;
  bool add_bos = false;
  bool space_prefix = false;  // text that begins gets a space in front, which Decode takes away

  absl::Status ReadVocabulary(const GgufFile& file);
  absl::Status ReadSpecials(const GgufFile& file);
};

absl::Status Tokenizer::Impl::ReadVocabulary(const GgufFile& file) {
  VocabularyFields fields;
  QUIRE_RETURN_IF_ERROR(fields.Read(file));
  const std::span<const std::string> tokens = fields.tokens;
  special.resize(tokens.size());
  for (size_t id = 0; id < fields.types.size(); ++id) {
    const int64_t type = fields.types[id];
    special[id] = type == kControlType || type == kUnknownType;
    if (special[id] || type == kUserDefinedType) added.try_emplace(tokens[id], static_cast<uint32_t>(id));
  }
  std::vector<QuireTextSlice> token_slices = Slices(tokens), merge_slices = Slices(fields.merges);
  QuireTextVocabulary vocabulary{
      .model = AsSlice(fields.model),
      .pre = AsSlice(fields.pre),
      .tokens = token_slices.data(),
      .types = fields.types.empty() ? nullptr : fields.types.data(),
      .token_count = tokens.size(),
      .merges = merge_slices.data(),
      .merge_count = merge_slices.size(),
      .scores = fields.scores.empty() ? nullptr : fields.scores.data(),
      .unknown = fields.unknown ? int64_t{*fields.unknown} : int64_t{-1},
      .space_prefix = fields.space_prefix,
  };
  QuireTextTokenizer* made = nullptr;
  QuireTextBytes error{};
  QUIRE_RETURN_IF_ERROR(RustStatus(quire_text_tokenizer_new(&vocabulary, &made, &error), error));
  rust.reset(made);
  space_prefix = fields.sentence_piece() && fields.space_prefix;
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    std::string_view bytes = AsStringView(quire_text_token_bytes(made, id));
    // A space may have been U+2581 in the text, two bytes more.
    size_t spaces =
        fields.sentence_piece() ? static_cast<size_t>(std::count(bytes.begin(), bytes.end(), ' ')) : 0;
    longest_token = std::max(longest_token, bytes.size() + 2 * spaces);
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::ReadSpecials(const GgufFile& file) {
  auto read_id = [&](std::string_view name) -> absl::StatusOr<std::optional<uint32_t>> {
    std::string key = absl::StrCat("tokenizer.ggml.", std::string(name));
    if (!file.Has(key)) return std::nullopt;
    QUIRE_ASSIGN_OR_RETURN(uint64_t id, file.GetUint(key));
    if (id >= special.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", key, "' is ", id, ", the vocabulary has ", special.size(), " tokens"));
    }
    return static_cast<uint32_t>(id);
  };
  QUIRE_ASSIGN_OR_RETURN(bos, read_id("bos_token_id"));
  QUIRE_ASSIGN_OR_RETURN(eos, read_id("eos_token_id"));
  QUIRE_ASSIGN_OR_RETURN(std::optional<uint32_t> eot, read_id("eot_token_id"));
  QUIRE_ASSIGN_OR_RETURN(std::optional<uint32_t> eom, read_id("eom_token_id"));
  for (std::optional<uint32_t> id : {eos, eot, eom}) {
    if (id) end_tokens.push_back(*id);
  }
  for (std::string_view text : kEndTexts) {
    auto it = added.find(std::string(text));
    if (it != added.end() && special[it->second]) end_tokens.push_back(it->second);
  }
  std::sort(end_tokens.begin(), end_tokens.end());
  end_tokens.erase(std::unique(end_tokens.begin(), end_tokens.end()), end_tokens.end());

  add_bos = quire_text_adds_bos(rust.get()) != 0;
  if (file.Has("tokenizer.ggml.add_bos_token")) {
    QUIRE_ASSIGN_OR_RETURN(add_bos, file.GetBool("tokenizer.ggml.add_bos_token"));
  }
  if (add_bos && !bos)
    return absl::InvalidArgumentError(
        "the model wants a BOS token, and 'tokenizer.ggml.bos_token_id' is missing");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer());
  tokenizer->impl_ = std::make_unique<Impl>();
  QUIRE_RETURN_IF_ERROR(tokenizer->impl_->ReadVocabulary(file));
  QUIRE_RETURN_IF_ERROR(tokenizer->impl_->ReadSpecials(file));
  return tokenizer;
}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(std::string_view text, bool parse_special,
                                                        bool add_special) const {
  QuireTextIds ids{};
  QuireTextBytes error{};
  QUIRE_RETURN_IF_ERROR(
      RustStatus(quire_text_encode(impl_->rust.get(), AsSlice(text), parse_special, &ids, &error), error));
  std::vector<uint32_t> out;
  out.reserve(ids.size + 1);
  if (add_special && impl_->add_bos) out.push_back(*impl_->bos);
  out.insert(out.end(), ids.data, ids.data + ids.size);
  quire_text_free_ids(ids);
  return out;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const uint32_t> tokens, bool skip_special) const {
  std::string out;
  bool begins = impl_->space_prefix;
  for (uint32_t token : tokens) {
    if (token >= vocabulary()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is outside the vocabulary of ", vocabulary(), " tokens"));
    }
    std::string_view bytes = TokenBytes(token);
    if (begins && bytes.starts_with(' ')) bytes.remove_prefix(1);
    begins = impl_->space_prefix && impl_->special[token];
    if (!skip_special || !impl_->special[token]) out += bytes;
  }
  return out;
}

std::string_view Tokenizer::TokenBytes(uint32_t token) const {
  return AsStringView(quire_text_token_bytes(impl_->rust.get(), token));
}

bool Tokenizer::IsSpecial(uint32_t token) const {
  return token < impl_->special.size() && impl_->special[token];
}
uint32_t Tokenizer::vocabulary() const { return static_cast<uint32_t>(impl_->special.size()); }
size_t Tokenizer::longest_token() const { return impl_->longest_token; }
std::optional<uint32_t> Tokenizer::bos() const { return impl_->bos; }
std::optional<uint32_t> Tokenizer::eos() const { return impl_->eos; }
std::span<const uint32_t> Tokenizer::end_tokens() const { return impl_->end_tokens; }

std::optional<uint32_t> Tokenizer::TokenId(std::string_view special) const {
  auto it = impl_->added.find(std::string(special));
  if (it == impl_->added.end()) return std::nullopt;
  return it->second;
}

}  // namespace quire
