#include "services/worker/eval/eval_codec.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

// The bits behind '@': one digit.
absl::StatusOr<int> KeptBits(std::string_view text, size_t at) {
  const std::string_view digits = text.substr(at + 1);
  if (digits.size() != 1 || digits[0] < '1' || digits[0] > '9') {
    return absl::InvalidArgumentError(absl::StrCat("codec '", std::string(text), "' at ", at + 1,
                                                   ": expected the bits to read, one digit"));
  }
  return digits[0] - '0';
}

uint64_t BaselineBytes(const Baseline& baseline, const Layout& layout, uint32_t prefix) {
  const double a_token = static_cast<double>(TokenElements(layout)) / 8;
  const double raw = 8.0 * static_cast<double>(SizeOf(layout.dtype));
  return static_cast<uint64_t>(
      std::llround(a_token * (baseline.bits() * (prefix - kMaxSinkTokens) + raw * kMaxSinkTokens)));
}

}  // namespace

absl::StatusOr<EvalCodec> EvalCodec::Parse(std::string_view text, const Layout& layout) {
  EvalCodec codec;
  if (IsBaselineName(text)) {
    QUIRE_ASSIGN_OR_RETURN(codec.baseline_, MakeBaseline(text, layout));
    codec.name_ = codec.baseline_->name();
    codec.bits_ = {codec.baseline_->bits(), codec.baseline_->bits()};
    return codec;
  }
  const size_t at = text.rfind('@');
  QUIRE_ASSIGN_OR_RETURN(codec.spec_, CodecSpec::Parse(text.substr(0, at)));
  codec.name_ = codec.spec_.ToString();
  if (codec.spec_.last_named_layer() >= static_cast<int64_t>(layout.layers.size())) {
    return absl::InvalidArgumentError(absl::StrCat("codec ", std::string(text), " names layer ",
                                                   codec.spec_.last_named_layer(),
                                                   ", the model has layers 0 to ", layout.layers.size() - 1));
  }
  if (at != std::string_view::npos) {
    QUIRE_ASSIGN_OR_RETURN(const int kept, KeptBits(text, at));
    QUIRE_ASSIGN_OR_RETURN(codec.levels_, LevelsFor(layout, codec.spec_, kept));
    absl::StrAppend(&codec.name_, "@", kept);
  }
  QUIRE_ASSIGN_OR_RETURN(codec.bits_, BitsOf(layout, codec.spec_, codec.levels_));
  return codec;
}

absl::StatusOr<TextFidelity> EvalCodec::Measure(Evaluator& evaluator, uint32_t prefix) const {
  if (baseline_ == nullptr) return evaluator.Measure(spec_, levels_);
  QUIRE_ASSIGN_OR_RETURN(TextFidelity fidelity, evaluator.MeasureTransformed([this](std::span<float> rows) {
    baseline_->Apply(rows);
  }));
  fidelity.object_bytes = BaselineBytes(*baseline_, evaluator.layout(), prefix);
  return fidelity;
}

absl::StatusOr<std::vector<EvalCodec>> ParseCodecs(const std::vector<std::string>& texts,
                                                   const Layout& layout) {
  std::vector<EvalCodec> codecs;
  for (const std::string& text : texts) {
    QUIRE_ASSIGN_OR_RETURN(EvalCodec codec, EvalCodec::Parse(text, layout));
    codecs.push_back(std::move(codec));
  }
  return codecs;
}

}  // namespace quire::worker
