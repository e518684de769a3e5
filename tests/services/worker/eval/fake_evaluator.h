// An evaluator without a model, whose divergences follow a formula: each layer's K and V add to the mean KL
// their weight times 4^−bits. It counts what it is asked for.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "services/worker/engine/evaluation.h"

namespace quire::worker {

class FakeEvaluator final : public Evaluator {
 public:
  explicit FakeEvaluator(uint32_t layers)
      : layout_(Layout::Uniform(Digest{}, layers, 2, 64)), k_weights(layers, 1), v_weights(layers, 1) {}

  const ModelInfo& info() const override { return info_; }
  const Layout& layout() const override { return layout_; }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return nullptr; }
  absl::Status ForEachPosition(std::span<const uint32_t>, const std::optional<CodecSpec>&,
                               absl::FunctionRef<void(size_t, std::span<const float>)>) override {
    return absl::UnimplementedError("no model");
  }
  absl::Status SetText(std::span<const uint32_t> tokens, uint32_t, uint32_t score) override {
    ++texts_set;
    text_ = tokens.front();
    score_ = score;
    return absl::OkStatus();
  }
  absl::StatusOr<TextFidelity> Measure(const CodecSpec& spec, int levels) override {
    ++measured;
    if (fail_after > 0 && measured > fail_after) return absl::InternalError("the machine broke");
    double kl = text_;  // a text's own share, the same for all codecs
    for (uint32_t layer = 0; layer < layout_.layers.size(); ++layer) {
      const LayerCodec codec = spec.ForLayer(layer);
      kl += k_weights[layer] * std::pow(4.0, -Kept(codec.k_bits, levels)) +
            v_weights[layer] * std::pow(4.0, -Kept(codec.v_bits, levels));
    }
    return Result(kl);
  }
  absl::StatusOr<TextFidelity> MeasureTransformed(BlockTransform transform) override {
    ++measured;
    std::vector<float> rows(64 * 64, 1.0f);
    transform(rows);
    return Result(rows[0]);
  }

 private:
  static int Kept(int bits, int levels) {
    return levels == 0 || levels >= 4 ? bits : std::min(bits, 1 + levels);
  }
  TextFidelity Result(double kl) const {
    TextFidelity result;
    result.kl.assign(score_, kl);
    result.same_top.assign(score_, true);
    result.nll_difference.assign(score_, 0);
    result.k_error.assign(layout_.layers.size(), {.energy = 2, .error = kl});
    result.v_error = result.k_error;
    return result;
  }

  ModelInfo info_;
  Layout layout_;
  double text_ = 0;
  uint32_t score_ = 0;

 public:
  std::vector<double> k_weights, v_weights;
  int texts_set = 0, measured = 0;
  int fail_after = 0;  // measurements; 0: never
};

}  // namespace quire::worker
