#include "services/worker/eval/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::worker {
namespace {

// Computing a text's prefix and its scored tokens against one more run of the scored tokens: what is taken
// for granted until both have been seen.
constexpr std::array<double, 2> kTypicalCost = {3, 1};

}  // namespace

void WorkEstimate::Done(Work kind, double seconds) {
  done_[Index(kind)] += 1;
  seconds_[Index(kind)] += seconds;
}

double WorkEstimate::CostOf(size_t kind) const {
  if (done_[kind] > 0) return seconds_[kind] / done_[kind];
  const size_t other = 1 - kind;
  const double unit = done_[other] > 0 ? seconds_[other] / done_[other] / kTypicalCost[other] : 1;
  return unit * kTypicalCost[kind];
}

double WorkEstimate::Left() const {
  double left = 0;
  for (size_t kind = 0; kind < 2; ++kind) {
    left += std::max(0.0, expected_[kind] - done_[kind]) * CostOf(kind);
  }
  return left;
}

double WorkEstimate::fraction() const {
  const double spent = seconds_[0] + seconds_[1], left = Left();
  if (left == 0) return 1;
  return done_[0] + done_[1] == 0 ? 0 : spent / (spent + left);
}

std::optional<double> WorkEstimate::remaining() const {
  if (done_[0] + done_[1] == 0) return std::nullopt;
  return Left();
}

std::string FormatDuration(double seconds) {
  const int64_t s = std::llround(std::max(0.0, seconds));
  if (s >= 3600) return absl::StrFormat("%d h %02d min", s / 3600, s % 3600 / 60);
  if (s >= 60) return absl::StrFormat("%d min %02d s", s / 60, s % 60);
  return absl::StrFormat("%d s", s);
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO) != 0) {}

void Progress::Print(double fraction, const std::string& rest, const std::string& step) {
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%3.0f %%  %s%.100s", 100 * fraction, rest.c_str(), step.c_str());
  } else if (step != last_) {
    std::fprintf(stderr, "%3.0f %%  %s%s\n", 100 * fraction, rest.c_str(), step.c_str());
  }
  last_ = step;
  std::fflush(stderr);
}

void Progress::ShowLoad(const std::string& step, double fraction) { Print(fraction, "", step); }

void Progress::Show(const WorkEstimate& estimate, const std::string& step) {
  const std::optional<double> remaining = estimate.remaining();
  Print(estimate.fraction(), remaining.has_value() ? absl::StrCat(FormatDuration(*remaining), " left  ") : "",
        step);
}

void Progress::Clear() {
  if (terminal_) std::fputs("\r\033[K", stderr);
  last_.clear();
}

}  // namespace quire::worker
