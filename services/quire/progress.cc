#include "services/quire/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace quire {
namespace {

constexpr int kBarWidth = 30;
constexpr int kLineEvery = 25;  // percent

}  // namespace

Progress::Progress() : on_terminal_(isatty(STDOUT_FILENO) == 1) {}

Progress::~Progress() { EndStep(); }

void Progress::Show(const std::string& step, double fraction) {
  if (step != step_) {
    EndStep();
    step_ = step;
  }
  const int percent = std::isnan(fraction) ? 0 : static_cast<int>(std::clamp(fraction, 0.0, 1.0) * 100);
  const bool moved =
      on_terminal_ ? percent != percent_ : percent_ < 0 || percent / kLineEvery != percent_ / kLineEvery;
  if (!moved) return;
  percent_ = percent;
  Draw();
}

void Progress::Draw() {
  if (on_terminal_) {
    const std::string bar(static_cast<size_t>(percent_ * kBarWidth / 100), '#');
    std::printf("\r\033[K  %s [%-*s] %3d %%", step_.c_str(), kBarWidth, bar.c_str(), percent_);
  } else {
    std::printf("  %s %3d %%\n", step_.c_str(), percent_);
  }
  std::fflush(stdout);
}

void Progress::EndStep() {
  if (on_terminal_ && percent_ >= 0) {
    std::printf("\n");
    std::fflush(stdout);
  }
  percent_ = -1;
}

}  // namespace quire
