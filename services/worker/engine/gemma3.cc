// Gemma 3: RMSNorm before and after attention and MLP and on every query and key head, rotary attention that
// is local in most layers, GELU-gated MLP. GGUF holds the norms' weights with the 1 that the family adds to
// them.
#include <ATen/ATen.h>

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/attention.h"
#include "services/worker/engine/decoder_ops.h"
#include "services/worker/engine/language_model.h"
#include "services/worker/engine/weight_loader.h"

namespace quire::worker {
namespace {

struct Layer {
  at::Tensor attention_norm, post_attention_norm, mlp_norm, post_mlp_norm;  // [hidden]
  at::Tensor q_norm, k_norm;                                                // [d]
  at::Tensor qkv;            // [(heads + 2 · KV heads) · d, hidden]
  at::Tensor attention_out;  // [hidden, heads · d]
  at::Tensor gate_up;        // [2 · intermediate, hidden]
  at::Tensor down;           // [hidden, intermediate]
};

class Gemma3 final : public LanguageModel {
 public:
  Gemma3(const DecoderConfig& config, std::shared_ptr<const BlockCodec> codec)
      : config_(config),
        attention_(std::move(codec), config.heads, config.score_scale),
        layers_(config.layers) {}

  absl::Status Read(const GgufFile& file, const WeightsProgress& progress);
  absl::StatusOr<at::Tensor> Forward(std::span<const uint32_t> tokens, KvSequence& kv) override;
  void ObserveQueries(QueryMoments* moments) override { moments_ = moments; }
  at::Tensor Logits(const at::Tensor& hidden) const override {
    return Product(hidden, output_.defined() ? output_ : embedding_);
  }

 private:
  at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight) const {
    return at::rms_norm(x, {x.size(-1)}, weight, config_.norm_epsilon);
  }
  // Norms the query and key heads of qkv in place.
  void NormHeads(const at::Tensor& qkv, const Layer& layer) const;
  Turns::Options RopeOf(bool local) const;

  const DecoderConfig config_;
  PageAttention attention_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, final_norm_, output_;  // output_ undefined: tied to the embedding
  QueryMoments* moments_ = nullptr;
};

absl::Status Gemma3::Read(const GgufFile& file, const WeightsProgress& progress) {
  const int64_t hidden = config_.hidden, intermediate = config_.intermediate, vocabulary = config_.vocabulary,
                d = config_.head_dim;
  const int64_t q_rows = config_.heads * d, kv_rows = config_.kv_heads * d;
  WeightLoader loader(file);
  loader.Add("token_embd.weight", {vocabulary, hidden}, &embedding_);
  loader.Add("output_norm.weight", {hidden}, &final_norm_);
  if (!config_.tied_output) loader.Add("output.weight", {vocabulary, hidden}, &output_);
  for (uint32_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[i];
    const std::string prefix = absl::StrCat("blk.", i, ".");
    loader.Add(prefix + "attn_norm.weight", {hidden}, &layer.attention_norm);
    loader.Add(prefix + "post_attention_norm.weight", {hidden}, &layer.post_attention_norm);
    loader.Add(prefix + "ffn_norm.weight", {hidden}, &layer.mlp_norm);
    loader.Add(prefix + "post_ffw_norm.weight", {hidden}, &layer.post_mlp_norm);
    loader.Add(prefix + "attn_q_norm.weight", {d}, &layer.q_norm);
    loader.Add(prefix + "attn_k_norm.weight", {d}, &layer.k_norm);
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

void Gemma3::NormHeads(const at::Tensor& qkv, const Layer& layer) const {
  const int64_t n = qkv.size(0), d = config_.head_dim;
  at::Tensor heads = qkv.view({n, -1, d});
  at::Tensor q = heads.narrow(1, 0, config_.heads), k = heads.narrow(1, config_.heads, config_.kv_heads);
  q.copy_(Norm(q, layer.q_norm));
  k.copy_(Norm(k, layer.k_norm));
}

Turns::Options Gemma3::RopeOf(bool local) const {
  return {.pairs = RopePairs::kHalves,
          .dims = config_.rope_dims,
          .base = local ? config_.local_rope_base : config_.rope_base,
          .factor = local ? 1.0 : config_.rope_factor};
}

absl::StatusOr<at::Tensor> Gemma3::Forward(std::span<const uint32_t> tokens, KvSequence& kv) {
  const int64_t n = static_cast<int64_t>(tokens.size()), intermediate = config_.intermediate;
  const at::Tensor ids =
      at::from_blob(const_cast<uint32_t*>(tokens.data()), {n}, at::kInt);  // ids are below 2^31
  const Turns global(kv.length(), tokens.size(), RopeOf(false)),
      local(kv.length(), tokens.size(), RopeOf(true));
  at::Tensor x = PadRows(at::index_select(embedding_, 0, ids));
  x.mul_(std::sqrt(static_cast<float>(config_.hidden)));
  for (uint32_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor qkv = Product(Norm(x, layer.attention_norm), layer.qkv);
    NormHeads(qkv, layer);
    const at::Tensor q = TurnAndStore(qkv, config_.IsLocal(i) ? local : global, config_.heads, i, kv);
    if (moments_ != nullptr) moments_->Add(i, q, RopeOf(config_.IsLocal(i)));
    QUIRE_ASSIGN_OR_RETURN(const at::Tensor attended, attention_.Run(kv, i, q));
    x.add_(Norm(Product(PadRows(attended), layer.attention_out), layer.post_attention_norm));
    const at::Tensor gate_up = Product(Norm(x, layer.mlp_norm), layer.gate_up);
    at::Tensor gate = at::gelu(gate_up.narrow(1, 0, intermediate), "tanh");
    gate.mul_(gate_up.narrow(1, intermediate, intermediate));
    x.add_(Norm(Product(gate, layer.down), layer.post_mlp_norm));
  }
  return Norm(x.narrow(0, 0, n), final_norm_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> LoadGemma3(const GgufFile& file, const DecoderConfig& config,
                                                          std::shared_ptr<const BlockCodec> codec,
                                                          const WeightsProgress& progress) {
  auto model = std::make_unique<Gemma3>(config, std::move(codec));
  QUIRE_RETURN_IF_ERROR(model->Read(file, progress));
  return model;
}

}  // namespace quire::worker
