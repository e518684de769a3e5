// Hyper-parameters of a decoder-only model, read from GGUF metadata and checked against its tensors.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/model/gguf.h"

namespace quire {

enum class ModelFamily { kLlama, kGemma3 };

struct DecoderConfig {
  ModelFamily family = ModelFamily::kLlama;
  std::string architecture;  // "llama", "gemma3"
  std::string name;          // general.name
  uint32_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, intermediate = 0, vocabulary = 0,
           context = 0;
  float norm_epsilon = 0;
  uint32_t rope_dims = 0;
  float rope_base = 0;
  float rope_factor = 1;     // positions are divided by it (linear scaling)
  double score_scale = 0;    // of query · key
  bool tied_output = false;  // no output.weight: the embedding serves as output matrix

  // Local layers (Gemma 3): layer i is local unless i + 1 is a multiple of global_every.
  uint32_t sliding_window = 0;  // tokens that a position sees there, itself among them; 0: no layer is local
  uint32_t global_every = 1;
  float local_rope_base = 0;  // in place of rope_base, and without rope_factor

  bool IsLocal(uint32_t layer) const { return sliding_window > 0 && (layer + 1) % global_every != 0; }

  // UNIMPLEMENTED naming an architecture or a feature that is not supported; INVALID_ARGUMENT naming a value
  // or tensor that is wrong.
  static absl::StatusOr<DecoderConfig> FromGguf(const GgufFile& file);
  // The KV layout of this model: key and value a layer, dtype bf16.
  Layout KvLayout(const Digest& model_digest) const;
};

}  // namespace quire
