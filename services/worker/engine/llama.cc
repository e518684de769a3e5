// The Llama family: RMSNorm, rotary attention with grouped KV heads, SwiGLU.
#include <ATen/ATen.h>

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
  at::Tensor attention_norm, mlp_norm;  // [hidden]
  at::Tensor qkv;                       // [(heads + 2 · KV heads) · d, hidden]
  at::Tensor attention_out;             // [hidden, heads · d]
  at::Tensor gate_up;                   // [2 · intermediate, hidden]
  at::Tensor down;                      // [hidden, intermediate]
};

class Llama final : public LanguageModel {
 public:
  Llama(const DecoderConfig& config, std::shared_ptr<const BlockCodec> codec)
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
    return at::rms_norm(x, {static_cast<int64_t>(config_.hidden)}, weight, config_.norm_epsilon);
  }

  const DecoderConfig config_;
  PageAttention attention_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, final_norm_, output_;  // output_ undefined: tied to the embedding
  QueryMoments* moments_ = nullptr;
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

absl::StatusOr<at::Tensor> Llama::Forward(std::span<const uint32_t> tokens, KvSequence& kv) {
  const int64_t n = static_cast<int64_t>(tokens.size()), intermediate = config_.intermediate;
  const at::Tensor ids =
      at::from_blob(const_cast<uint32_t*>(tokens.data()), {n}, at::kInt);  // ids are below 2^31
  const Turns::Options rope{RopePairs::kAdjacent, config_.rope_dims, config_.rope_base, config_.rope_factor};
  const Turns turns(kv.length(), tokens.size(), rope);
  at::Tensor x = PadRows(at::index_select(embedding_, 0, ids));
  for (uint32_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor q =
        TurnAndStore(Product(Norm(x, layer.attention_norm), layer.qkv), turns, config_.heads, i, kv);
    if (moments_ != nullptr) moments_->Add(i, q, rope);
    QUIRE_ASSIGN_OR_RETURN(const at::Tensor attended, attention_.Run(kv, i, q));
    AddProduct(x, PadRows(attended), layer.attention_out);
    const at::Tensor gate_up = Product(Norm(x, layer.mlp_norm), layer.gate_up);
    at::Tensor gate = at::silu(gate_up.narrow(1, 0, intermediate));
    AddProduct(x, gate.mul_(gate_up.narrow(1, intermediate, intermediate)), layer.down);
  }
  return Norm(x.narrow(0, 0, n), final_norm_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> LoadLlama(const GgufFile& file, const DecoderConfig& config,
                                                         std::shared_ptr<const BlockCodec> codec,
                                                         const WeightsProgress& progress) {
  auto model = std::make_unique<Llama>(config, std::move(codec));
  QUIRE_RETURN_IF_ERROR(model->Read(file, progress));
  return model;
}

}  // namespace quire::worker
