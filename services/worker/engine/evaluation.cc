#include "services/worker/engine/evaluation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "services/worker/engine/loaded_model.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

constexpr int64_t kStrip = 32;  // positions whose logits over the vocabulary exist at a time

class TorchEvaluator final : public Evaluator {
 public:
  explicit TorchEvaluator(LoadedModel loaded)
      : loaded_(std::move(loaded)), root_(RootKey(loaded_.codec->fingerprint(), "", "quire-eval")) {}

  const ModelInfo& info() const override { return loaded_.info; }
  const Layout& layout() const override { return loaded_.codec->layout(); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return loaded_.tokenizer; }
  absl::Status ForEachPosition(std::span<const uint32_t> tokens, const std::optional<CodecSpec>& codec,
                               absl::FunctionRef<void(size_t, std::span<const float>)> visit) override;
  absl::Status SetText(std::span<const uint32_t> tokens, uint32_t prefix, uint32_t score) override;
  absl::StatusOr<TextFidelity> Measure(const CodecSpec& spec, int levels) override;

 private:
  std::unique_ptr<KvSequence> NewSequence() const {
    return loaded_.NewSequence(root_, CodecSpec(), KvSequence::Mode::kEvaluation);
  }
  std::span<const uint32_t> Prefix() const { return std::span(tokens_).first(prefix_); }
  std::span<const uint32_t> Scored() const { return std::span(tokens_).subspan(prefix_, score_); }
  // The hidden states [n, hidden] of tokens run behind kv.
  absl::StatusOr<at::Tensor> Hidden(KvSequence& kv, std::span<const uint32_t> tokens) const;
  absl::StatusOr<std::unique_ptr<KvSequence>> CodedPrefix(const CodecSpec& spec, int levels,
                                                          uint64_t* bytes) const;
  void Compare(const at::Tensor& coded_hidden, TextFidelity* out) const;

  const LoadedModel loaded_;
  const Digest root_;
  std::vector<uint32_t> tokens_;
  uint32_t prefix_ = 0, score_ = 0;
  std::unique_ptr<KvSequence> reference_;  // the prefix and the scored tokens, raw
  at::Tensor reference_hidden_;            // of the scored tokens
};

absl::StatusOr<at::Tensor> TorchEvaluator::Hidden(KvSequence& kv, std::span<const uint32_t> tokens) const {
  std::vector<at::Tensor> chunks;
  QUIRE_RETURN_IF_ERROR(loaded_.Run(kv, tokens, [&](const at::Tensor& hidden) { chunks.push_back(hidden); }));
  at::Tensor all;
  QUIRE_RETURN_IF_ERROR(CatchTorch([&] {
    all = at::cat(chunks);
    return absl::OkStatus();
  }));
  return all;
}

absl::Status TorchEvaluator::ForEachPosition(std::span<const uint32_t> tokens,
                                             const std::optional<CodecSpec>& codec,
                                             absl::FunctionRef<void(size_t, std::span<const float>)> visit) {
  std::unique_ptr<KvSequence> kv =
      codec.has_value() ? loaded_.NewSequence(root_, *codec, KvSequence::Mode::kServing) : NewSequence();
  size_t position = 0;
  return loaded_.Run(*kv, tokens, [&](const at::Tensor& hidden) {
    for (const at::Tensor& strip : hidden.split(kStrip)) {
      const at::Tensor logits = loaded_.model->Logits(strip).contiguous();
      const size_t vocabulary = static_cast<size_t>(logits.size(1));
      for (int64_t i = 0; i < logits.size(0); ++i) {
        visit(position++, {logits.data_ptr<float>() + i * logits.size(1), vocabulary});
      }
    }
  });
}

absl::Status TorchEvaluator::SetText(std::span<const uint32_t> tokens, uint32_t prefix, uint32_t score) {
  const uint64_t used = uint64_t{prefix} + score;
  if (prefix == 0 || prefix % kBlockTokens != 0 || score == 0 || tokens.size() < used ||
      tokens.size() > used + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", tokens.size(), " tokens can't be split in ", prefix, " prefix and ", score,
                     " scored tokens; the prefix must be whole blocks of ", kBlockTokens));
  }
  reference_ = NewSequence();
  tokens_.assign(tokens.begin(), tokens.end());
  prefix_ = prefix;
  score_ = score;
  QUIRE_RETURN_IF_ERROR(loaded_.Run(*reference_, Prefix(), [](const at::Tensor&) {}));
  QUIRE_ASSIGN_OR_RETURN(reference_hidden_, Hidden(*reference_, Scored()));
  return absl::OkStatus();
}

// A sequence that holds the prefix as codes only, restored from objects like any other.
absl::StatusOr<std::unique_ptr<KvSequence>> TorchEvaluator::CodedPrefix(const CodecSpec& spec, int levels,
                                                                        uint64_t* bytes) const {
  const std::vector<Digest> keys = BlockKeys(root_, Prefix());
  std::vector<std::shared_ptr<std::vector<uint8_t>>> objects(keys.size());
  std::vector<absl::Status> statuses(keys.size());
  ParallelFor(static_cast<int64_t>(keys.size()), [&](int64_t i) {
    const size_t index = static_cast<size_t>(i);
    const BlockIdentity identity{index == 0 ? root_ : keys[index - 1], keys[index],
                                 static_cast<uint32_t>(index)};
    objects[index] = std::make_shared<std::vector<uint8_t>>();
    absl::Status status = reference_->EncodeBlock(identity.index, identity, spec, objects[index].get());
    if (status.ok() && levels > 0) {
      absl::StatusOr<BlockReader> reader = BlockReader::Open(loaded_.codec, identity, *objects[index]);
      status = reader.status();
      if (reader.ok())
        objects[index]->resize(reader->slices().ObjectBytes(std::min(levels, reader->levels())));
    }
    statuses[index] = std::move(status);
  });
  for (const absl::Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  std::unique_ptr<KvSequence> kv = NewSequence();
  for (size_t i = 0; i < objects.size(); ++i) {
    *bytes += objects[i]->size();
    QUIRE_RETURN_IF_ERROR(
        kv->Restore(Prefix().subspan(i * kBlockTokens, kBlockTokens), std::move(objects[i])));
  }
  return kv;
}

// In double: at 8 bits the divergence is a few 1e-6, which is what fp32 loses in the sum over the vocabulary.
void TorchEvaluator::Compare(const at::Tensor& coded_hidden, TextFidelity* out) const {
  for (int64_t first = 0; first < coded_hidden.size(0); first += kStrip) {
    const int64_t n = std::min(kStrip, coded_hidden.size(0) - first);
    const at::Tensor p =
        at::log_softmax(loaded_.model->Logits(reference_hidden_.narrow(0, first, n)), -1, at::kDouble);
    const at::Tensor q =
        at::log_softmax(loaded_.model->Logits(coded_hidden.narrow(0, first, n)), -1, at::kDouble);
    const at::Tensor kl = (at::exp(p) * (p - q)).sum(-1), same = at::eq(p.argmax(-1), q.argmax(-1));
    for (int64_t i = 0; i < n; ++i) {
      out->kl.push_back(kl.data_ptr<double>()[i]);
      out->same_top.push_back(same.data_ptr<bool>()[i]);
      const size_t next = prefix_ + static_cast<size_t>(first + i) + 1;
      if (next >= tokens_.size()) continue;
      const int64_t at = i * p.size(1) + tokens_[next];
      out->nll_difference.push_back(p.data_ptr<double>()[at] - q.data_ptr<double>()[at]);
    }
  }
}

absl::StatusOr<TextFidelity> TorchEvaluator::Measure(const CodecSpec& spec, int levels) {
  TextFidelity result;
  absl::StatusOr<std::unique_ptr<KvSequence>> kv;
  QUIRE_RETURN_IF_ERROR(CatchTorch([&] {
    kv = CodedPrefix(spec, levels, &result.object_bytes);
    return kv.status();
  }));
  QUIRE_ASSIGN_OR_RETURN(const at::Tensor hidden, Hidden(**kv, Scored()));
  QUIRE_RETURN_IF_ERROR(CatchTorch([&] {
    Compare(hidden, &result);
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Evaluator>> Evaluator::Load(const std::string& model_path, int threads,
                                                           const LoadProgress& progress) {
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded, LoadedModel::Load(model_path, threads, 0, progress));
  return std::make_unique<TorchEvaluator>(std::move(loaded));
}

}  // namespace quire::worker
