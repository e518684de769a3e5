// Text to token ids and back, by the Rust crate `tokenizers` behind a C ABI (core/text/rust).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/gguf.h"

namespace quire {

// Immutable and thread-safe after creation.
class Tokenizer {
 public:
  // From the tokenizer.ggml.* metadata: model "gpt2" (byte-level BPE) with a known tokenizer.ggml.pre, or
  // "llama" (SentencePiece BPE). UNIMPLEMENTED naming a model, a pre-tokenizer or a feature that is not
  // supported.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromGguf(const GgufFile& file);
  ~Tokenizer();

  // INVALID_ARGUMENT with the byte offset if `text` is not UTF-8. `parse_special`: text such as "<|im_end|>"
  // becomes that token. `add_special`: put the model's BOS in front where the model wants one. A byte that
  // the vocabulary has no token for is left out, as the model's own tokenizer does (SmolLM2 lacks 0x04, 0x06,
  // 0x13, 0x14, 0x16, 0x1D, 0xF1 and 0xF2). Time and memory are linear in the text, up to a logarithm. With
  // model "llama" U+2581 in the text counts as a space, as in SentencePiece; where the file says so
  // (tokenizer.ggml.add_space_prefix) a space is put before text that begins, or that follows a control
  // token.
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view text, bool parse_special,
                                               bool add_special) const;
  // Bytes of the tokens; not always whole characters. A space that Encode puts in front is taken away.
  // INVALID_ARGUMENT for an id outside the vocabulary.
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> tokens, bool skip_special) const;
  // The bytes of one token; a special token's are its text. REQUIRES: token < vocabulary().
  std::string_view TokenBytes(uint32_t token) const;
  bool IsSpecial(
      uint32_t token) const;  // a control token, or the one for unknown text: what skip_special skips

  uint32_t vocabulary() const;
  // Bytes of the longest token: a text of n bytes makes at least n / longest_token() tokens (less what has no
  // token of its own), so that a text far too long for a model can be refused without being encoded.
  size_t longest_token() const;
  std::optional<uint32_t> bos() const;
  std::optional<uint32_t> eos() const;
  std::span<const uint32_t> end_tokens()
      const;  // what ends an answer: EOS, end of turn and the like; sorted, maybe empty
  std::optional<uint32_t> TokenId(std::string_view special) const;  // of an added token, by its text

 private:
  Tokenizer() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Turns a stream of tokens into whole UTF-8 characters. Bytes that can't become a character come out as
// U+FFFD. Tokens outside the vocabulary count as empty. Used by one thread at a time.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  std::string Push(uint32_t token);  // text that became complete
  std::string Flush();               // what is left, at the end

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace quire
