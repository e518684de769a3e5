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

void AddError(std::span<const float> x, std::span<const float> decoded, StreamError* sum) {
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = double{x[i]} - decoded[i];
    sum->energy += double{x[i]} * x[i];
    sum->error += difference * difference;
  }
}

// K and V [heads][64][d] of one layer of a page, as attention would get them.
absl::Status LoadPage(const KvSequence& kv, uint32_t page, uint32_t layer, std::vector<float>* k,
                      std::vector<float>* v) {
  const size_t run = size_t{kBlockTokens} * kv.dim();
  k->resize(run * kv.heads());
  v->resize(run * kv.heads());
  const KvPage& from = kv.pages()[page];
  if (from.raw == nullptr) {
    const ptrdiff_t token = kv.dim(), head = static_cast<ptrdiff_t>(run);
    return from.codes->DecodeLayer(
        layer, from.codes->levels(),
        {.key = {k->data(), DType::kF32, token, head}, .value = {v->data(), DType::kF32, token, head}});
  }
  for (uint32_t head = 0; head < kv.heads(); ++head) {
    kv.LoadRaw(from, layer, head, 0, kBlockTokens, k->data() + head * run, v->data() + head * run);
  }
  return absl::OkStatus();
}

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
  absl::StatusOr<TextFidelity> MeasureTransformed(BlockTransform transform) override;

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
  absl::Status CompareCache(const KvSequence& kv, TextFidelity* out) const;
  absl::StatusOr<std::unique_ptr<KvSequence>> TransformedPrefix(BlockTransform transform) const;
  absl::Status Score(KvSequence& kv, TextFidelity* out) const;
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

// The prefix as fp32 values that went through transform.
absl::StatusOr<std::unique_ptr<KvSequence>> TorchEvaluator::TransformedPrefix(
    BlockTransform transform) const {
  std::unique_ptr<KvSequence> kv = NewSequence();
  QUIRE_RETURN_IF_ERROR(kv->Reserve(Prefix()));
  const uint32_t d = kv->dim(), blocks = prefix_ / kBlockTokens;
  ParallelFor(int64_t{blocks} * kv->layers(), [&](int64_t i) {
    const uint32_t block = static_cast<uint32_t>(i) / kv->layers(),
                   layer = static_cast<uint32_t>(i) % kv->layers();
    std::vector<float> k(size_t{kBlockTokens} * d), v(k.size()), sinks_k, sinks_v;
    for (uint32_t head = 0; head < kv->heads(); ++head) {
      reference_->LoadRaw(reference_->pages()[block], layer, head, 0, kBlockTokens, k.data(), v.data());
      const size_t kept = block == 0 ? size_t{kMaxSinkTokens} * d : 0;
      sinks_k.assign(k.data(), k.data() + kept);
      sinks_v.assign(v.data(), v.data() + kept);
      transform(k);
      transform(v);
      std::copy(sinks_k.begin(), sinks_k.end(), k.begin());
      std::copy(sinks_v.begin(), sinks_v.end(), v.begin());
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        kv->StoreKv(layer, head, block * kBlockTokens + t, k.data() + t * d, v.data() + t * d);
      }
    }
  });
  QUIRE_RETURN_IF_ERROR(kv->Commit());
  return kv;
}

// Sums are made block by block in order, so that they don't depend on the threads.
absl::Status TorchEvaluator::CompareCache(const KvSequence& kv, TextFidelity* out) const {
  const size_t layers = kv.layers(), blocks = prefix_ / kBlockTokens, run = size_t{kBlockTokens} * kv.dim();
  std::vector<StreamError> k_sums(layers * blocks), v_sums(layers * blocks);
  std::vector<absl::Status> statuses(layers * blocks);
  ParallelFor(static_cast<int64_t>(layers * blocks), [&](int64_t i) {
    const size_t index = static_cast<size_t>(i);
    const uint32_t layer = static_cast<uint32_t>(index / blocks),
                   block = static_cast<uint32_t>(index % blocks);
    std::vector<float> k, v, k_decoded, v_decoded;
    absl::Status status = LoadPage(*reference_, block, layer, &k, &v);
    if (status.ok()) status = LoadPage(kv, block, layer, &k_decoded, &v_decoded);
    const size_t skip = block == 0 ? size_t{kMaxSinkTokens} * kv.dim() : 0;
    for (uint32_t head = 0; status.ok() && head < kv.heads(); ++head) {
      const size_t at = head * run + skip, n = run - skip;
      AddError(std::span(k).subspan(at, n), std::span(k_decoded).subspan(at, n), &k_sums[index]);
      AddError(std::span(v).subspan(at, n), std::span(v_decoded).subspan(at, n), &v_sums[index]);
    }
    statuses[index] = std::move(status);
  });
  for (const absl::Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  out->k_error.assign(layers, {});
  out->v_error.assign(layers, {});
  for (size_t i = 0; i < layers * blocks; ++i) {
    StreamError &k = out->k_error[i / blocks], &v = out->v_error[i / blocks];
    k.energy += k_sums[i].energy;
    k.error += k_sums[i].error;
    v.energy += v_sums[i].energy;
    v.error += v_sums[i].error;
  }
  return absl::OkStatus();
}

// Runs the scored tokens behind kv, which holds the prefix in some form.
absl::Status TorchEvaluator::Score(KvSequence& kv, TextFidelity* out) const {
  QUIRE_ASSIGN_OR_RETURN(const at::Tensor hidden, Hidden(kv, Scored()));
  return CatchTorch([&] {
    Compare(hidden, out);
    return absl::OkStatus();
  });
}

absl::StatusOr<TextFidelity> TorchEvaluator::Measure(const CodecSpec& spec, int levels) {
  TextFidelity result;
  absl::StatusOr<std::unique_ptr<KvSequence>> kv;
  QUIRE_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    kv = CodedPrefix(spec, levels, &result.object_bytes);
    QUIRE_RETURN_IF_ERROR(kv.status());
    return CompareCache(**kv, &result);
  }));
  QUIRE_RETURN_IF_ERROR(Score(**kv, &result));
  return result;
}

absl::StatusOr<TextFidelity> TorchEvaluator::MeasureTransformed(BlockTransform transform) {
  TextFidelity result;
  absl::StatusOr<std::unique_ptr<KvSequence>> kv;
  QUIRE_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    kv = TransformedPrefix(transform);
    QUIRE_RETURN_IF_ERROR(kv.status());
    return CompareCache(**kv, &result);
  }));
  QUIRE_RETURN_IF_ERROR(Score(**kv, &result));
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Evaluator>> Evaluator::Load(const std::string& model_path, int threads,
                                                           uint32_t query_tokens,
                                                           const LoadProgress& progress) {
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded,
                         LoadedModel::Load({model_path, threads, 0, query_tokens}, progress));
  return std::make_unique<TorchEvaluator>(std::move(loaded));
}

}  // namespace quire::worker
