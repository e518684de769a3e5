// Hyper-parameters of a Llama-family model, read from GGUF metadata and checked against its tensors.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/model/gguf.h"

namespace quire {

struct LlamaConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name
  uint32_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, intermediate = 0, vocabulary = 0, context = 0;
  float norm_epsilon = 0;
  float rope_base = 0;
  uint32_t rope_dims = 0;
  bool tied_output = false;  // no output.weight: the embedding serves as output matrix

  // UNIMPLEMENTED naming an architecture or a feature that is not supported; INVALID_ARGUMENT naming a value or tensor that is wrong.
  static absl::StatusOr<LlamaConfig> FromGguf(const GgufFile& file);
  // The KV layout of this model: key and value a layer, dtype bf16.
  Layout KvLayout(const Digest& model_digest) const;
};

}  // namespace quire
