// The Llama family: RMSNorm, rotary attention with grouped KV heads, SwiGLU.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/attention.h"
#include "services/worker/engine/language_model.h"
#include "services/worker/engine/parallel.h"
#include "services/worker/engine/weight_loader.h"

namespace quire::worker {
namespace {

struct Layer {
  at::Tensor attention_norm, mlp_norm;  // [hidden]
  at::Tensor qkv;                       // [(heads + 2 · KV heads) · d, hidden]
  at::Tensor attention_out;             // [hidden, heads · d]
  at::Tensor gate_up;                   // [2 · intermediate, hidden]
  at::Tensor down;                      // [hidden, intermediate]
};

// cos and sin of position · base^(−2i/dims) for a chunk's positions, [position][dims/2].
struct Turns {
  const uint32_t pairs;
  std::vector<float> cos, sin;

  Turns(uint32_t start, size_t positions, uint32_t dims, double base) : pairs(dims / 2) {
    cos.reserve(positions * pairs);
    sin.reserve(positions * pairs);
    for (size_t p = 0; p < positions; ++p) {
      for (uint32_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(start + p) * std::pow(base, -2.0 * i / dims);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }
  // GGUF stores llama's query and key rows so that the channels 2i and 2i+1 turn together.
  void Apply(size_t p, float* x) const {
    const float* c = cos.data() + p * pairs;
    const float* s = sin.data() + p * pairs;
    for (uint32_t i = 0; i < pairs; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * c[i] - b * s[i];
      x[2 * i + 1] = a * s[i] + b * c[i];
    }
  }
};

constexpr int64_t kLeastRows = 8;

// x [n, in] · weight [out, in]ᵀ. The matrix library multiplies a single row on one thread, though what it
// waits for is memory: two threads read nearly twice as fast.
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight) {
  if (x.size(0) > 1) return at::linear(x, weight);
  const int64_t rows = weight.size(0), parts = std::min<int64_t>(rows, 2 * Threads());
  const at::Tensor row = x.view({-1});
  at::Tensor out = at::empty({1, rows}, at::kFloat);
  ParallelFor(parts, [&](int64_t i) {
    c10::InferenceMode inference;  // of this thread
    const int64_t first = rows * i / parts, n = rows * (i + 1) / parts - first;
    at::Tensor mine = out.view({-1}).narrow(0, first, n);
    at::mv_out(mine, weight.narrow(0, first, n), row);
  });
  return out;
}

// x += y · weightᵀ
void AddProduct(at::Tensor& x, const at::Tensor& y, const at::Tensor& weight) {
  if (x.size(0) > 1) {
    x.addmm_(y, weight.t());
  } else {
    x.add_(Product(y, weight));
  }
}

class Llama final : public LanguageModel {
 public:
  Llama(const LlamaConfig& config, std::shared_ptr<const BlockCodec> codec)
      : config_(config), attention_(std::move(codec), config.heads), layers_(config.layers) {}

  absl::Status Read(const GgufFile& file, const WeightsProgress& progress);
  absl::StatusOr<at::Tensor> Forward(std::span<const uint32_t> tokens, KvSequence& kv) override;
  at::Tensor Logits(const at::Tensor& hidden) const override {
    return Product(hidden, output_.defined() ? output_ : embedding_);
  }

 private:
  at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight) const {
    return at::rms_norm(x, {static_cast<int64_t>(config_.hidden)}, weight, config_.norm_epsilon);
  }
  at::Tensor TurnAndStore(const at::Tensor& qkv, const Turns& turns, uint32_t layer, KvSequence& kv) const;

  const LlamaConfig config_;
  PageAttention attention_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, final_norm_, output_;  // output_ undefined: tied to the embedding
};

absl::Status Llama::Read(const GgufFile& file, const WeightsProgress& progress) {
  const int64_t hidden = config_.hidden, intermediate = config_.intermediate, vocabulary = config_.vocabulary;
  const int64_t q_rows = int64_t{config_.heads} * config_.head_dim,
                kv_rows = int64_t{config_.kv_heads} * config_.head_dim;
  WeightLoader loader(file);
  loader.Add("token_embd.weight", {vocabulary, hidden}, &embedding_);
  loader.Add("output_norm.weight", {hidden}, &final_norm_);
  if (!config_.tied_output) loader.Add("output.weight", {vocabulary, hidden}, &output_);
  for (uint32_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[i];
    const std::string prefix = absl::StrCat("blk.", i, ".");
    loader.Add(prefix + "attn_norm.weight", {hidden}, &layer.attention_norm);
    loader.Add(prefix + "ffn_norm.weight", {hidden}, &layer.mlp_norm);
    loader.AddRows({{prefix + "attn_q.weight", q_rows},
                    {prefix + "attn_k.weight", kv_rows},
                    {prefix + "attn_v.weight", kv_rows}},
                   {0, hidden}, &layer.qkv);
    loader.Add(prefix + "attn_output.weight", {hidden, q_rows}, &layer.attention_out);
    loader.AddRows({{prefix + "ffn_gate.weight", intermediate}, {prefix + "ffn_up.weight", intermediate}},
                   {0, hidden}, &layer.gate_up);
    loader.Add(prefix + "ffn_down.weight", {hidden, intermediate}, &layer.down);
  }
  return loader.Read(progress);
}

// qkv [n or more, (heads + 2 · KV heads) · d], n being what kv has reserved: turns queries and keys, puts K
// and V into kv, and returns the queries [n, heads, d].
at::Tensor Llama::TurnAndStore(const at::Tensor& qkv, const Turns& turns, uint32_t layer,
                               KvSequence& kv) const {
  const uint32_t d = config_.head_dim, heads = config_.heads, kv_heads = config_.kv_heads,
                 start = kv.length();
  const int64_t n = kv.reserved_end() - start, width = qkv.size(1);
  at::Tensor q = at::empty({n, heads, d}, at::kFloat);
  float* const from = qkv.data_ptr<float>();
  float* const q_to = q.data_ptr<float>();
  ParallelFor(n, [&](int64_t i) {
    const uint32_t position = start + static_cast<uint32_t>(i);
    float* row = from + i * width;
    for (uint32_t h = 0; h < heads + kv_heads; ++h) turns.Apply(static_cast<size_t>(i), row + h * d);
    std::copy_n(row, heads * d, q_to + i * heads * d);
    const float* k = row + heads * d;
    const float* v = k + kv_heads * d;
    for (uint32_t h = 0; h < kv_heads; ++h) kv.StoreKv(layer, h, position, k + h * d, v + h * d);
  });
  return q;
}

// Below 8 rows the matrix library goes other ways and rounds otherwise. A few tokens at once are the end of a
// prompt whose beginning was restored; padded they give the very bits that they would have given among the
// rest. One token alone is a decode step, and is one in both cases.
at::Tensor PadRows(const at::Tensor& x) {
  const int64_t n = x.size(0);
  return n == 1 || n >= kLeastRows ? x : at::constant_pad_nd(x, {0, 0, 0, kLeastRows - n});
}

absl::StatusOr<at::Tensor> Llama::Forward(std::span<const uint32_t> tokens, KvSequence& kv) {
  const int64_t n = static_cast<int64_t>(tokens.size()), intermediate = config_.intermediate;
  const at::Tensor ids =
      at::from_blob(const_cast<uint32_t*>(tokens.data()), {n}, at::kInt);  // ids are below 2^31
  const Turns turns(kv.length(), tokens.size(), config_.rope_dims, config_.rope_base);
  at::Tensor x = PadRows(at::index_select(embedding_, 0, ids));
  for (uint32_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor q = TurnAndStore(Product(Norm(x, layer.attention_norm), layer.qkv), turns, i, kv);
    QUIRE_ASSIGN_OR_RETURN(const at::Tensor attended, attention_.Run(kv, i, q));
    AddProduct(x, PadRows(attended), layer.attention_out);
    const at::Tensor gate_up = Product(Norm(x, layer.mlp_norm), layer.gate_up);
    at::Tensor gate = at::silu(gate_up.narrow(1, 0, intermediate));
    AddProduct(x, gate.mul_(gate_up.narrow(1, intermediate, intermediate)), layer.down);
  }
  return Norm(x.narrow(0, 0, n), final_norm_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> LoadLlama(const GgufFile& file, const LlamaConfig& config,
                                                         std::shared_ptr<const BlockCodec> codec,
                                                         const WeightsProgress& progress) {
  auto model = std::make_unique<Llama>(config, std::move(codec));
  QUIRE_RETURN_IF_ERROR(model->Read(file, progress));
  return model;
}

}  // namespace quire::worker
