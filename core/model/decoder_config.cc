#include "core/model/decoder_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/model_fields.h"

namespace quire {
namespace {

constexpr uint32_t kMinHeadDim = 16, kMaxHeadDim = 576, kHeadDimStep = 16;  // what the codec takes

// What Gemma 3 files leave to the reader.
constexpr uint32_t kGemma3GlobalEvery = 6;
constexpr float kGemma3LocalRopeBase = 10000.0f;
constexpr uint32_t kGemma3LargestLayers = 62;  // of the 27B model

absl::Status ReadLlama(FieldReader& reader, DecoderConfig* c) {
  QUIRE_ASSIGN_OR_RETURN(c->rope_dims, reader.Size("rope.dimension_count", c->head_dim));
  QUIRE_ASSIGN_OR_RETURN(c->rope_base, reader.Positive("rope.freq_base", 10000.0f));
  c->score_scale = 1.0 / std::sqrt(static_cast<double>(c->head_dim));
  reader.Neutral("rope.scaling.type", {"none"});
  reader.Neutral("rope.scaling.factor", {"0", "1"});
  reader.Neutral("attention.sliding_window", {"0"});
  reader.Neutral("tensor_data_layout",
                 {"Meta AI original pth"});  // the only order of Q and K rows that this format uses for llama
  return absl::OkStatus();
}

absl::Status ReadGemma3(FieldReader& reader, DecoderConfig* c) {
  QUIRE_ASSIGN_OR_RETURN(c->rope_dims, reader.Size("rope.dimension_count", c->head_dim));
  QUIRE_ASSIGN_OR_RETURN(c->rope_base, reader.Positive("rope.freq_base", 1000000.0f));
  QUIRE_ASSIGN_OR_RETURN(c->local_rope_base, reader.Positive("rope.freq_base_swa", kGemma3LocalRopeBase));
  QUIRE_ASSIGN_OR_RETURN(std::string scaling, reader.Text("rope.scaling.type", "none"));
  QUIRE_ASSIGN_OR_RETURN(float factor, reader.Positive("rope.scaling.factor", 1.0f));
  if (scaling != "none" && scaling != "linear") {
    return absl::UnimplementedError(absl::StrCat("model feature '", reader.Key("rope.scaling.type"), "' = ",
                                                 scaling, " is not supported, only 'none' and 'linear'"));
  }
  if (scaling == "linear") c->rope_factor = factor;
  QUIRE_ASSIGN_OR_RETURN(c->sliding_window, reader.Size("attention.sliding_window"));
  QUIRE_ASSIGN_OR_RETURN(c->global_every,
                         reader.Size("attention.sliding_window_pattern", kGemma3GlobalEvery));
  // The largest model divides by the root of hidden / heads, which there is not the head size.
  const uint32_t scale_dim = c->layers == kGemma3LargestLayers ? c->hidden / c->heads : c->head_dim;
  c->score_scale = 1.0 / std::sqrt(static_cast<double>(std::max(scale_dim, 1u)));
  reader.Neutral("final_logit_softcapping", {"0"});
  reader.Neutral("attn_logit_softcapping", {"0"});
  reader.Ignore("mm.tokens_per_image");  // of the image encoder, which is another file
  return absl::OkStatus();
}

absl::Status ReadSizes(const GgufFile& file, DecoderConfig* c) {
  FieldReader reader(file, c->architecture);
  QUIRE_ASSIGN_OR_RETURN(c->layers, reader.Size("block_count"));
  QUIRE_ASSIGN_OR_RETURN(c->hidden, reader.Size("embedding_length"));
  QUIRE_ASSIGN_OR_RETURN(c->intermediate, reader.Size("feed_forward_length"));
  QUIRE_ASSIGN_OR_RETURN(c->context, reader.Size("context_length"));
  QUIRE_ASSIGN_OR_RETURN(c->heads, reader.Size("attention.head_count"));
  QUIRE_ASSIGN_OR_RETURN(c->kv_heads, reader.Size("attention.head_count_kv", c->heads));
  QUIRE_ASSIGN_OR_RETURN(c->head_dim,
                         reader.Size("attention.key_length", std::max(c->hidden / c->heads, 1u)));
  QUIRE_ASSIGN_OR_RETURN(uint32_t value_dim, reader.Size("attention.value_length", c->head_dim));
  QUIRE_ASSIGN_OR_RETURN(c->norm_epsilon, reader.Positive("attention.layer_norm_rms_epsilon"));
  QUIRE_ASSIGN_OR_RETURN(c->vocabulary, reader.Size("vocab_size", 0));
  if (value_dim != c->head_dim) {
    return absl::UnimplementedError(absl::StrCat(
        "value heads of ", value_dim, " dimensions beside key heads of ", c->head_dim, " are not supported"));
  }
  QUIRE_RETURN_IF_ERROR(c->family == ModelFamily::kGemma3 ? ReadGemma3(reader, c) : ReadLlama(reader, c));
  reader.Neutral("rope.scaling.finetuned", {"false"});
  reader.Neutral("rope.scale_linear", {"1"});
  reader.Neutral("expert_count", {"0"});
  reader.Neutral("expert_used_count", {"0"});
  reader.Neutral("attention.causal", {"true"});
  reader.Neutral("attention.max_alibi_bias", {"0"});
  reader.Neutral("attention.clamp_kqv", {"0"});
  reader.Neutral("use_parallel_residual", {"false"});
  reader.Neutral("logit_scale", {"0", "1"});
  reader.Neutral("embedding_scale", {"0", "1"});
  reader.Neutral("residual_scale", {"0", "1"});
  return reader.RefuseTheRest();
}

absl::Status CheckSizes(const DecoderConfig& c) {
  const std::string at = absl::StrCat("'", c.architecture, ".");
  if (c.layers > kMaxLayers) {
    return absl::InvalidArgumentError(
        absl::StrCat(at, "block_count' is ", c.layers, ", the limit is ", kMaxLayers));
  }
  if (c.heads > kMaxHeads) {
    return absl::InvalidArgumentError(
        absl::StrCat(at, "attention.head_count' is ", c.heads, ", the limit is ", kMaxHeads));
  }
  if (c.heads % c.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(at, "attention.head_count' is ", c.heads,
                                                   ", no multiple of the ", c.kv_heads, " in ", at,
                                                   "attention.head_count_kv'"));
  }
  if (c.head_dim < kMinHeadDim || c.head_dim > kMaxHeadDim || c.head_dim % kHeadDimStep != 0) {
    return absl::UnimplementedError(absl::StrCat("heads of ", c.head_dim,
                                                 " dimensions are not supported: only multiples of ",
                                                 kHeadDimStep, " from ", kMinHeadDim, " to ", kMaxHeadDim));
  }
  if (c.rope_dims % 2 != 0 || c.rope_dims > c.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(at, "rope.dimension_count' is ", c.rope_dims,
                                                   ", not an even number up to the head's ", c.head_dim,
                                                   " dimensions"));
  }
  return absl::OkStatus();
}

// The vocabulary is the embedding's height; whatever else states it must agree.
absl::Status ReadVocabulary(const GgufFile& file, DecoderConfig* c) {
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) return absl::InvalidArgumentError("tensor 'token_embd.weight' is missing");
  uint64_t rows = embedding->shape.front();
  if (embedding->shape.size() != 2 || rows > kMaxModelSize) {
    return absl::InvalidArgumentError(absl::StrCat("tensor 'token_embd.weight' has shape ",
                                                   ShapeText(embedding->shape), ", wanted [vocabulary, ",
                                                   c->hidden, "]"));
  }
  if (c->vocabulary != 0 && c->vocabulary != rows) {
    return absl::InvalidArgumentError(absl::StrCat("'", c->architecture, ".vocab_size' is ", c->vocabulary,
                                                   ", the embedding has ", rows, " rows"));
  }
  if (auto tokens = file.GetStrings("tokenizer.ggml.tokens"); tokens.ok() && tokens->size() != rows) {
    return absl::InvalidArgumentError(absl::StrCat("'tokenizer.ggml.tokens' has ", tokens->size(),
                                                   " tokens, the embedding has ", rows, " rows"));
  }
  c->vocabulary = static_cast<uint32_t>(rows);
  return absl::OkStatus();
}

absl::Status CheckTensors(const GgufFile& file, DecoderConfig* c) {
  TensorCheck check(file);
  uint64_t hidden = c->hidden, inner = c->intermediate, vocabulary = c->vocabulary, d = c->head_dim;
  uint64_t q = c->heads * d, kv = c->kv_heads * d;
  check.Want("token_embd.weight", {vocabulary, hidden});
  check.Want("output_norm.weight", {hidden});
  c->tied_output = file.Find("output.weight") == nullptr;
  if (!c->tied_output) check.Want("output.weight", {vocabulary, hidden});
  for (uint32_t layer = 0; layer < c->layers; ++layer) {
    auto want = [&](std::string_view part, const std::vector<uint64_t>& shape) {
      check.Want(absl::StrCat("blk.", layer, ".", std::string(part), ".weight"), shape);
    };
    want("attn_norm", {hidden});
    want("attn_q", {q, hidden});
    want("attn_k", {kv, hidden});
    want("attn_v", {kv, hidden});
    want("attn_output", {hidden, q});
    want("ffn_norm", {hidden});
    want("ffn_gate", {inner, hidden});
    want("ffn_up", {inner, hidden});
    want("ffn_down", {hidden, inner});
    if (c->family == ModelFamily::kGemma3) {
      want("attn_q_norm", {d});
      want("attn_k_norm", {d});
      want("post_attention_norm", {hidden});
      want("post_ffw_norm", {hidden});
    }
  }
  return check.Finish();
}

absl::StatusOr<ModelFamily> FamilyOf(const std::string& architecture) {
  if (architecture == "llama") return ModelFamily::kLlama;
  if (architecture == "gemma3") return ModelFamily::kGemma3;
  return absl::UnimplementedError(
      absl::StrCat("model architecture '", architecture, "' is not supported, only 'llama' and 'gemma3'"));
}

}  // namespace

absl::StatusOr<DecoderConfig> DecoderConfig::FromGguf(const GgufFile& file) {
  DecoderConfig config;
  QUIRE_ASSIGN_OR_RETURN(config.architecture, file.GetString("general.architecture"));
  QUIRE_ASSIGN_OR_RETURN(config.family, FamilyOf(config.architecture));
  if (file.Has("split.count")) {
    QUIRE_ASSIGN_OR_RETURN(uint64_t parts, file.GetUint("split.count"));
    if (parts > 1)
      return absl::UnimplementedError(
          absl::StrCat("a model split into ", parts, " files is not supported: merge them into one"));
  }
  if (file.Has("general.name")) {
    QUIRE_ASSIGN_OR_RETURN(config.name, file.GetString("general.name"));
  }
  QUIRE_RETURN_IF_ERROR(ReadSizes(file, &config));
  QUIRE_RETURN_IF_ERROR(CheckSizes(config));
  QUIRE_RETURN_IF_ERROR(ReadVocabulary(file, &config));
  QUIRE_RETURN_IF_ERROR(CheckTensors(file, &config));
  return config;
}

Layout DecoderConfig::KvLayout(const Digest& model_digest) const {
  Layout layout = Layout::Uniform(model_digest, layers, kv_heads, head_dim);
  layout.dtype = DType::kBf16;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    if (!IsLocal(layer)) continue;
    for (StreamLayout& stream : layout.layers[layer].streams) stream.sliding_window = sliding_window;
  }
  // Llama's channels 2i and 2i+1 turn together, as this format orders the rows of Q and K for it; Gemma's i
  // and i + dims/2. The norm's epsilon is no tensor, so the model digest misses it, and it changes K as well.
  const bool gemma = family == ModelFamily::kGemma3;
  layout.rope_state = absl::StrCat(
      "rope=", gemma ? "halves" : "adjacent", ";dims=", rope_dims, ";base=", FloatText(rope_base),
      sliding_window > 0 ? absl::StrCat(";local_base=", FloatText(local_rope_base)) : "",
      ";scaling=", rope_factor == 1 ? "none" : absl::StrCat("linear:", FloatText(rope_factor)),
      ";rms_epsilon=", FloatText(norm_epsilon));
  return layout;
}

}  // namespace quire
