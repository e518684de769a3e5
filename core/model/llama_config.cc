#include "core/model/llama_config.h"

#include <charconv>
#include <cmath>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"

namespace quire {
namespace {

constexpr std::string_view kPrefix = "llama.";
constexpr uint32_t kMaxSize = 1u << 30;  // of any one dimension: keeps products of two within 64 bits
constexpr uint32_t kMinHeadDim = 16, kMaxHeadDim = 576, kHeadDimStep = 16;  // what the codec takes

std::string Key(std::string_view name) { return absl::StrCat(std::string(kPrefix), std::string(name)); }

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Shortest text that reads back as the same float.
std::string FloatText(float value) {
  char text[64];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

// Reads llama.* values and remembers which were read, so that what nobody read can be refused.
class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file) {}

  absl::StatusOr<uint32_t> Size(std::string_view name, std::optional<uint32_t> otherwise = std::nullopt) {
    std::string key = Key(name);
    read_.insert(key);
    if (!file_.Has(key) && otherwise) return *otherwise;
    if (file_.GetInts(key).ok()) {
      return absl::UnimplementedError(
          absl::StrCat("'", key, "' differs from layer to layer, which is not supported"));
    }
    QUIRE_ASSIGN_OR_RETURN(uint64_t value, file_.GetUint(key));
    if (value == 0 || value > kMaxSize) {
      return absl::InvalidArgumentError(absl::StrCat("'", key, "' is ", value, ", not from 1 to ", kMaxSize));
    }
    return static_cast<uint32_t>(value);
  }

  absl::StatusOr<float> Positive(std::string_view name, std::optional<float> otherwise = std::nullopt) {
    std::string key = Key(name);
    read_.insert(key);
    if (!file_.Has(key) && otherwise) return *otherwise;
    QUIRE_ASSIGN_OR_RETURN(double value, file_.GetFloat(key));
    auto narrow = static_cast<float>(value);
    if (!std::isfinite(narrow) || narrow <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("'", key, "' is ", value, ", not a positive number"));
    }
    return narrow;
  }

  // A feature that may be stated as long as it is off.
  void Neutral(std::string_view name, std::vector<std::string> accepted) {
    neutral_.push_back({Key(name), std::move(accepted)});
  }

  absl::Status RefuseTheRest() const {
    std::set<std::string> known = read_;
    for (const auto& [key, accepted] : neutral_) {
      known.insert(key);
      if (!file_.Has(key)) continue;
      std::string text = ValueText(key);
      if (std::find(accepted.begin(), accepted.end(), text) == accepted.end()) {
        return absl::UnimplementedError(
            absl::StrCat("model feature '", key, "' = ", text, " is not supported"));
      }
    }
    for (std::string_view key : file_.Keys()) {
      if (absl::StartsWith(std::string(key), "llama.") && !known.contains(std::string(key))) {
        return absl::UnimplementedError(
            absl::StrCat("model feature '", std::string(key), "' is not supported"));
      }
    }
    return absl::OkStatus();
  }

 private:
  std::string ValueText(const std::string& key) const {
    if (auto s = file_.GetString(key); s.ok()) return *s;
    if (auto u = file_.GetUint(key); u.ok()) return absl::StrCat(*u);
    if (auto f = file_.GetFloat(key); f.ok()) return FloatText(static_cast<float>(*f));
    if (auto b = file_.GetBool(key); b.ok()) return *b ? "true" : "false";
    return "(an array)";
  }

  const GgufFile& file_;
  std::set<std::string> read_;
  std::vector<std::pair<std::string, std::vector<std::string>>> neutral_;
};

// Checks tensors by name and shape, and that the file holds no others: a bias or a factor that is silently
// left out would make another model of it.
class TensorCheck {
 public:
  explicit TensorCheck(const GgufFile& file) : file_(file) {}

  absl::Status Want(const std::string& name, std::vector<uint64_t> shape) {
    const GgufTensor* tensor = file_.Find(name);
    if (tensor == nullptr) return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is missing"));
    if (tensor->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", name, "' has shape ", ShapeText(tensor->shape), ", wanted ", ShapeText(shape)));
    }
    used_.insert(name);
    return absl::OkStatus();
  }

  absl::Status RefuseTheRest() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!used_.contains(tensor.name)) {
        return absl::UnimplementedError(
            absl::StrCat("tensor '", tensor.name, "' belongs to a model feature that is not supported"));
      }
    }
    return absl::OkStatus();
  }

 private:
  const GgufFile& file_;
  std::set<std::string> used_;
};

absl::Status ReadSizes(const GgufFile& file, LlamaConfig* c) {
  Reader reader(file);
  QUIRE_ASSIGN_OR_RETURN(c->layers, reader.Size("block_count"));
  QUIRE_ASSIGN_OR_RETURN(c->hidden, reader.Size("embedding_length"));
  QUIRE_ASSIGN_OR_RETURN(c->intermediate, reader.Size("feed_forward_length"));
  QUIRE_ASSIGN_OR_RETURN(c->context, reader.Size("context_length"));
  QUIRE_ASSIGN_OR_RETURN(c->heads, reader.Size("attention.head_count"));
  QUIRE_ASSIGN_OR_RETURN(c->kv_heads, reader.Size("attention.head_count_kv", c->heads));
  QUIRE_ASSIGN_OR_RETURN(c->head_dim,
                         reader.Size("attention.key_length", std::max(c->hidden / c->heads, 1u)));
  QUIRE_ASSIGN_OR_RETURN(uint32_t value_dim, reader.Size("attention.value_length", c->head_dim));
  QUIRE_ASSIGN_OR_RETURN(c->rope_dims, reader.Size("rope.dimension_count", c->head_dim));
  QUIRE_ASSIGN_OR_RETURN(c->rope_base, reader.Positive("rope.freq_base", 10000.0f));
  QUIRE_ASSIGN_OR_RETURN(c->norm_epsilon, reader.Positive("attention.layer_norm_rms_epsilon"));
  QUIRE_ASSIGN_OR_RETURN(c->vocabulary, reader.Size("vocab_size", 0));
  if (value_dim != c->head_dim) {
    return absl::UnimplementedError(absl::StrCat(
        "value heads of ", value_dim, " dimensions beside key heads of ", c->head_dim, " are not supported"));
  }
  reader.Neutral("rope.scaling.type", {"none"});
  reader.Neutral("rope.scaling.factor", {"0", "1"});
  reader.Neutral("rope.scaling.finetuned", {"false"});
  reader.Neutral("rope.scale_linear", {"1"});
  reader.Neutral("expert_count", {"0"});
  reader.Neutral("expert_used_count", {"0"});
  reader.Neutral("attention.sliding_window", {"0"});
  reader.Neutral("attention.causal", {"true"});
  reader.Neutral("attention.max_alibi_bias", {"0"});
  reader.Neutral("attention.clamp_kqv", {"0"});
  reader.Neutral("use_parallel_residual", {"false"});
  reader.Neutral("logit_scale", {"0", "1"});
  reader.Neutral("embedding_scale", {"0", "1"});
  reader.Neutral("residual_scale", {"0", "1"});
  reader.Neutral("tensor_data_layout",
                 {"Meta AI original pth"});  // the only order of Q and K rows that this format uses for llama
  return reader.RefuseTheRest();
}

absl::Status CheckSizes(const LlamaConfig& c) {
  if (c.layers > kMaxLayers)
    return absl::InvalidArgumentError(
        absl::StrCat("'llama.block_count' is ", c.layers, ", the limit is ", kMaxLayers));
  if (c.heads > kMaxHeads) {
    return absl::InvalidArgumentError(
        absl::StrCat("'llama.attention.head_count' is ", c.heads, ", the limit is ", kMaxHeads));
  }
  if (c.heads % c.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("'llama.attention.head_count' is ", c.heads,
                                                   ", no multiple of the ", c.kv_heads,
                                                   " in 'llama.attention.head_count_kv'"));
  }
  if (c.head_dim < kMinHeadDim || c.head_dim > kMaxHeadDim || c.head_dim % kHeadDimStep != 0) {
    return absl::UnimplementedError(absl::StrCat("heads of ", c.head_dim,
                                                 " dimensions are not supported: only multiples of ",
                                                 kHeadDimStep, " from ", kMinHeadDim, " to ", kMaxHeadDim));
  }
  if (c.rope_dims % 2 != 0 || c.rope_dims > c.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("'llama.rope.dimension_count' is ", c.rope_dims,
                                                   ", not an even number up to the head's ", c.head_dim,
                                                   " dimensions"));
  }
  return absl::OkStatus();
}

// The vocabulary is the embedding's height; whatever else states it must agree.
absl::Status ReadVocabulary(const GgufFile& file, LlamaConfig* c) {
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) return absl::InvalidArgumentError("tensor 'token_embd.weight' is missing");
  uint64_t rows = embedding->shape.front();
  if (embedding->shape.size() != 2 || rows > kMaxSize) {
    return absl::InvalidArgumentError(absl::StrCat("tensor 'token_embd.weight' has shape ",
                                                   ShapeText(embedding->shape), ", wanted [vocabulary, ",
                                                   c->hidden, "]"));
  }
  if (c->vocabulary != 0 && c->vocabulary != rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("'llama.vocab_size' is ", c->vocabulary, ", the embedding has ", rows, " rows"));
  }
  if (auto tokens = file.GetStrings("tokenizer.ggml.tokens"); tokens.ok() && tokens->size() != rows) {
    return absl::InvalidArgumentError(absl::StrCat("'tokenizer.ggml.tokens' has ", tokens->size(),
                                                   " tokens, the embedding has ", rows, " rows"));
  }
  c->vocabulary = static_cast<uint32_t>(rows);
  return absl::OkStatus();
}

absl::Status CheckTensors(const GgufFile& file, LlamaConfig* c) {
  TensorCheck check(file);
  uint64_t hidden = c->hidden, inner = c->intermediate, vocabulary = c->vocabulary;
  uint64_t q = uint64_t{c->heads} * c->head_dim, kv = uint64_t{c->kv_heads} * c->head_dim;
  QUIRE_RETURN_IF_ERROR(check.Want("token_embd.weight", {vocabulary, hidden}));
  QUIRE_RETURN_IF_ERROR(check.Want("output_norm.weight", {hidden}));
  c->tied_output = file.Find("output.weight") == nullptr;
  if (!c->tied_output) QUIRE_RETURN_IF_ERROR(check.Want("output.weight", {vocabulary, hidden}));
  for (uint32_t layer = 0; layer < c->layers; ++layer) {
    auto name = [&](std::string_view part) {
      return absl::StrCat("blk.", layer, ".", std::string(part), ".weight");
    };
    QUIRE_RETURN_IF_ERROR(check.Want(name("attn_norm"), {hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("attn_q"), {q, hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("attn_k"), {kv, hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("attn_v"), {kv, hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("attn_output"), {hidden, q}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("ffn_norm"), {hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("ffn_gate"), {inner, hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("ffn_up"), {inner, hidden}));
    QUIRE_RETURN_IF_ERROR(check.Want(name("ffn_down"), {hidden, inner}));
  }
  return check.RefuseTheRest();
}

}  // namespace

absl::StatusOr<LlamaConfig> LlamaConfig::FromGguf(const GgufFile& file) {
  LlamaConfig config;
  QUIRE_ASSIGN_OR_RETURN(config.architecture, file.GetString("general.architecture"));
  if (config.architecture != "llama") {
    return absl::UnimplementedError(
        absl::StrCat("model architecture '", config.architecture, "' is not supported, only 'llama'"));
  }
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

Layout LlamaConfig::KvLayout(const Digest& model_digest) const {
  Layout layout = Layout::Uniform(model_digest, layers, kv_heads, head_dim);
  layout.dtype = DType::kBf16;
  // Adjacent channels (2i, 2i+1) turn together, as this format orders the rows of Q and K for llama. The
  // norm's epsilon is no tensor, so the model digest misses it, and it changes K as well.
  layout.rope_state = absl::StrCat("rope=adjacent;dims=", rope_dims, ";base=", FloatText(rope_base),
                                   ";scaling=none;rms_epsilon=", FloatText(norm_epsilon));
  return layout;
}

}  // namespace quire
