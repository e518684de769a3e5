#include "tests/bench/turns.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace quire::bench {

double Work::median() {
  auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

absl::Status TakeTurns(std::span<Work> works, int rounds) {
  using Clock = std::chrono::steady_clock;
  for (int round = -1; round < rounds; ++round) {  // the first is not counted
    for (Work& work : works) {
      auto begin = Clock::now();
      if (absl::Status status = work.run(); !status.ok())
        return absl::Status(status.code(), absl::StrCat(work.name, ": ", std::string(status.message())));
      if (round >= 0) work.seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
  }
  return absl::OkStatus();
}

}  // namespace quire::bench
