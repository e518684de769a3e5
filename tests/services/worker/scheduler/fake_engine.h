// An engine without a model: the next token is a function of the whole history. Its blocks are real objects
// (codec raw, the tokens written into K), and a restored block's tokens are read back from the object, so a
// wrong object changes the text that follows.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "services/worker/engine/engine.h"

namespace quire::worker {

// Byte tokens 0…255 and the special tokens kEnd ("<|end|>", EOS) and kTurn ("<|turn|>").
inline constexpr uint32_t kEnd = 256, kTurn = 257, kFakeVocabulary = 258;

// A tokenizer of bytes, and a template that puts kTurn before each message.
std::shared_ptr<const Tokenizer> ByteTokenizer();
std::shared_ptr<const ChatTemplate> TurnTemplate();

// Ids of ASCII text: one a byte, in the order of the fake vocabulary.
std::vector<uint32_t> ByteTokens(std::string_view text);

class FakeSequence : public Sequence {
 public:
  FakeSequence(std::shared_ptr<const BlockCodec> codec, const Digest& root)
      : codec_(std::move(codec)), root_(root) {}
  uint32_t length() const override { return static_cast<uint32_t>(tokens_.size()); }
  std::span<const SealedBlock> blocks() const override { return blocks_; }
  absl::Status Restore(std::span<const uint32_t> tokens,
                       std::shared_ptr<const std::vector<uint8_t>> object) override;
  uint64_t kv_bytes() const override { return 8 * tokens_.size(); }

  const std::vector<uint32_t>& tokens() const { return tokens_; }
  uint32_t restored = 0;  // blocks

 private:
  friend class FakeEngine;
  BlockIdentity NextIdentity(std::span<const uint32_t> tokens) const;
  absl::Status Append(std::span<const uint32_t> tokens, bool encodable);

  const std::shared_ptr<const BlockCodec> codec_;
  const Digest root_;
  std::vector<uint32_t> tokens_;
  std::vector<SealedBlock> blocks_;
};

class FakeEngine : public Engine {
 public:
  using Next = std::function<uint32_t(std::span<const uint32_t> history)>;
  struct Call {
    uint32_t first_token;  // of the sequence: tells requests apart
    uint32_t at, count;    // tokens before the call, and computed by it
  };

  explicit FakeEngine(uint32_t context = 4096, uint64_t rotation_seed = 0);

  const ModelInfo& info() const override { return info_; }
  const Layout& layout() const override { return codec_->layout(); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return tokenizer_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return chat_template_; }
  std::unique_ptr<Sequence> NewSequence(const Digest& root) override {
    return std::make_unique<FakeSequence>(codec_, root);
  }
  absl::StatusOr<std::vector<float>> Forward(Sequence& sequence, std::span<const uint32_t> tokens) override;

  // Set these before the engine is used.
  Next next;                                        // default: a letter that depends on all of the history
  std::function<absl::Status(const Call&)> before;  // called in Forward; may wait, may fail it
  bool encodable = true;                            // false: blocks can't be coded, as after a NaN

  std::vector<Call> calls() const;
  uint64_t computed_tokens() const;
  const std::shared_ptr<const BlockCodec>& codec() const { return codec_; }

 private:
  ModelInfo info_;
  std::shared_ptr<const BlockCodec> codec_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_template_;
  mutable std::mutex mutex_;
  std::vector<Call> calls_;
};

// A `next` that writes `text` after a prompt of any length, then ends. Token by token: each entry is one
// token's bytes or kEnd.
FakeEngine::Next Writes(std::vector<uint32_t> tokens, size_t prompt_tokens);

// A door that tests close and open: Wait returns once it is open.
class Gate {
 public:
  explicit Gate(bool open = false) : open_(open) {}
  void Open();
  void Wait();
  // Waits until `count` threads have arrived at Wait in all.
  void WaitForArrivals(int count);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_;
  int arrivals_ = 0;
};

}  // namespace quire::worker
