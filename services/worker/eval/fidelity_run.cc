#include "services/worker/eval/fidelity_run.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

FidelityRun::FidelityRun(Evaluator& evaluator, Journal& journal, Progress& progress,
                         std::vector<EvalText> texts, uint32_t prefix, uint32_t score)
    : evaluator_(evaluator),
      journal_(journal),
      progress_(progress),
      texts_(std::move(texts)),
      prefix_(prefix),
      score_(score) {}

MeasurementKey FidelityRun::KeyOf(size_t text, const EvalCodec& codec) const {
  return {texts_[text].digest, codec.name(), prefix_, score_};
}

// Each phase takes a text once. A text that two phases want in a row is taken once too, so this may count one
// uncoded run too many.
void FidelityRun::Expect(std::span<const EvalCodec> codecs, size_t texts) {
  for (size_t text = 0; text < std::min(texts, texts_.size()); ++text) {
    const auto missing = std::count_if(codecs.begin(), codecs.end(), [&](const EvalCodec& codec) {
      return journal_.Find(KeyOf(text, codec)) == nullptr;
    });
    if (missing == 0) continue;
    estimate_.Expect(Work::kUncodedRun, 1);
    estimate_.Expect(Work::kMeasurement, static_cast<double>(missing));
  }
}

void FidelityRun::ExpectUnknown(size_t codecs) {
  estimate_.Expect(Work::kMeasurement, static_cast<double>(codecs * texts_.size()));
}

absl::Status FidelityRun::MeasureText(std::span<const EvalCodec> codecs, size_t text) {
  for (const EvalCodec& codec : codecs) {
    const MeasurementKey key = KeyOf(text, codec);
    if (journal_.Find(key) != nullptr) continue;
    if (current_ != text) {
      progress_.Show(estimate_, absl::StrCat(texts_[text].path, ": uncoded run"));
      const Clock::time_point start = Clock::now();
      current_ = kNone;
      QUIRE_RETURN_IF_ERROR(evaluator_.SetText(texts_[text].tokens, prefix_, score_));
      current_ = text;
      estimate_.Done(Work::kUncodedRun, SecondsSince(start));
    }
    progress_.Show(estimate_, absl::StrCat(texts_[text].path, ": ", codec.name()));
    const Clock::time_point start = Clock::now();
    QUIRE_ASSIGN_OR_RETURN(TextFidelity fidelity, codec.Measure(evaluator_, prefix_));
    estimate_.Done(Work::kMeasurement, SecondsSince(start));
    QUIRE_RETURN_IF_ERROR(journal_.Add(key, std::move(fidelity)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<FidelityReport>> FidelityRun::Measure(std::span<const EvalCodec> codecs,
                                                                 size_t texts) {
  const size_t n = std::min(texts, texts_.size());
  for (size_t text = 0; text < n; ++text) QUIRE_RETURN_IF_ERROR(MeasureText(codecs, text));
  std::vector<FidelityReport> reports;
  for (const EvalCodec& codec : codecs) {
    std::vector<TextFidelity> results;
    for (size_t text = 0; text < n; ++text) results.push_back(*journal_.Find(KeyOf(text, codec)));
    FidelityReport report = Summarize(results, TokenElements(layout()) * prefix_);
    report.codec = codec.name();
    report.bits = codec.bits();
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace quire::worker
