// The model and its KV: what the scheduler drives. LibTorch stays behind this header; its exceptions end here
// as INTERNAL.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "core/codec/spec.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace quire::worker {

inline constexpr uint32_t kQueryTokens = 512;

struct EngineOptions {
  std::string model_path;    // a .gguf file
  std::string served_name;   // what clients call the model; empty: the file's name without .gguf
  CodecSpec kv_codec;        // what sealed blocks are coded with
  int threads = 0;           // 0: all cores
  uint32_t max_context = 0;  // tokens; 0: the model's own
  // Of a sample text, run at load to learn where queries lie, past which tq then steers its keys' errors; 0:
  // not.
  uint32_t query_tokens = kQueryTokens;
};

// Progress of Load: a step's name and its fraction, 0…1.
using LoadProgress = std::function<void(const std::string& step, double fraction)>;

struct ModelInfo {
  std::string name, architecture;
  Digest model_digest, fingerprint;
  uint32_t context = 0, vocabulary = 0;
  uint64_t parameters = 0;
  std::vector<uint32_t> eos_tokens;
};

// A block that has been encoded: the very bytes that attention reads, the wire carries and the store keeps.
// Null if the block could not be encoded (a NaN or an infinity); it is then kept raw and never offloaded.
struct SealedBlock {
  BlockIdentity identity;
  std::shared_ptr<const std::vector<uint8_t>> object;
};

// One sequence's KV: sinks and the last 128 to 191 tokens raw, everything older as codes. Made by
// Engine::NewSequence; used by one thread at a time.
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual uint32_t length() const = 0;                      // tokens whose KV is here
  virtual std::span<const SealedBlock> blocks() const = 0;  // all whole blocks, in order
  // Appends a block whose object came from the store. REQUIRES: length() == 64 · blocks().size(). The object
  // is verified against the identity that follows from the chain and `tokens` (64 of them); DATA_LOSS and no
  // change if it is not that block.
  virtual absl::Status Restore(std::span<const uint32_t> tokens,
                               std::shared_ptr<const std::vector<uint8_t>> object) = 0;
  virtual uint64_t kv_bytes() const = 0;  // held now, codes and raw
};

class Engine {
 public:
  virtual ~Engine() = default;
  static absl::StatusOr<std::unique_ptr<Engine>> Load(const EngineOptions& options,
                                                      const LoadProgress& progress);

  virtual const ModelInfo& info() const = 0;
  virtual const Layout& layout() const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;
  virtual std::shared_ptr<const ChatTemplate> chat_template() const = 0;  // null if the model has none

  // `root`: RootKey of the sequence's salt; block keys chain from it.
  virtual std::unique_ptr<Sequence> NewSequence(const Digest& root) = 0;
  // Computes `tokens` after what the sequence holds, seals the blocks that fill, and returns the logits
  // [vocabulary] of the last one. One call at a time. On an error the sequence is not to be used again.
  // With codec `raw` the logits are the same bits however a prompt is cut into calls of two or more tokens
  // and whatever part of it was restored.
  virtual absl::StatusOr<std::vector<float>> Forward(Sequence& sequence,
                                                     std::span<const uint32_t> tokens) = 0;
};

}  // namespace quire::worker
