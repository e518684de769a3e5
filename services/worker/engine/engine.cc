#include "services/worker/engine/engine.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/kv_sequence.h"
#include "services/worker/engine/loaded_model.h"

namespace quire::worker {
namespace {

// A spec may name a layer that the model lacks or a codec that can't code stored blocks; better known at
// start than at the first block.
// Before anything is loaded: what no model can be served with.
absl::Status CheckServable(const CodecSpec& spec) {
  if (spec.codec() != CodecId::kTqProd) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("codec ", spec.ToString(),
                                                 " is for vector search, not for attention, where its spread "
                                                 "costs 8 to 15 times tq's divergence; a worker codes its "
                                                 "KV with raw, fp8 or tq"));
}

absl::Status CheckSpec(const CodecSpec& spec, const LoadedModel& loaded) {
  if (spec.last_named_layer() >= static_cast<int64_t>(loaded.codec->part().layers())) {
    return absl::InvalidArgumentError(absl::StrCat("codec ", spec.ToString(), " names layer ",
                                                   spec.last_named_layer(), ", the model has layers 0 to ",
                                                   loaded.codec->part().layers() - 1));
  }
  std::vector<LayerCodec> codecs;
  for (uint32_t layer = 0; layer < loaded.codec->part().layers(); ++layer)
    codecs.push_back(spec.ForLayer(layer));
  return SliceMap::Create(loaded.codec->layout(), loaded.codec->part(), codecs, kMaxSinkTokens).status();
}

class TorchEngine final : public Engine {
 public:
  TorchEngine(LoadedModel loaded, CodecSpec spec) : loaded_(std::move(loaded)), spec_(std::move(spec)) {}

  const ModelInfo& info() const override { return loaded_.info; }
  const Layout& layout() const override { return loaded_.codec->layout(); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return loaded_.tokenizer; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return loaded_.chat_template; }

  std::unique_ptr<Sequence> NewSequence(const Digest& root) override {
    return loaded_.NewSequence(root, spec_, KvSequence::Mode::kServing);
  }

  absl::StatusOr<std::vector<float>> Forward(Sequence& sequence, std::span<const uint32_t> tokens) override {
    if (tokens.empty()) return absl::InvalidArgumentError("Forward needs at least one token");
    at::Tensor last;
    QUIRE_RETURN_IF_ERROR(
        loaded_.Run(static_cast<KvSequence&>(sequence), tokens,
                    [&](const at::Tensor& hidden) { last = hidden.narrow(0, hidden.size(0) - 1, 1); }));
    std::vector<float> logits;
    QUIRE_RETURN_IF_ERROR(CatchTorch([&] {
      const at::Tensor values = loaded_.model->Logits(last).contiguous();
      const float* from = values.data_ptr<float>();
      logits.assign(from, from + values.numel());
      return absl::OkStatus();
    }));
    return logits;
  }

 private:
  const LoadedModel loaded_;
  const CodecSpec spec_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Load(const EngineOptions& options,
                                                     const LoadProgress& progress) {
  QUIRE_RETURN_IF_ERROR(CheckServable(options.kv_codec));
  const bool steered = options.kv_codec.codec() == CodecId::kTq;
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded,
                         LoadedModel::Load({options.model_path, options.threads, options.max_context,
                                            steered ? options.query_tokens : 0},
                                           progress));
  QUIRE_RETURN_IF_ERROR(CheckSpec(options.kv_codec, loaded));
  loaded.info.name = options.served_name.empty() ? std::filesystem::path(options.model_path).stem().string()
                                                 : options.served_name;
  return std::make_unique<TorchEngine>(std::move(loaded), options.kv_codec);
}

}  // namespace quire::worker
