#include "services/worker/scheduler/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace quire::worker {

std::string StopMatcher::Push(std::string_view text) {
  if (matched_) return {};
  if (stops_.empty()) return std::string(text);
  size_t first_new = held_.size();
  held_.append(text);
  for (size_t end = first_new + 1; end <= held_.size(); ++end) {
    std::string_view so_far(held_.data(), end);
    size_t longest = 0;
    for (const std::string& stop : stops_) {
      if (so_far.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest == 0) continue;
    matched_ = true;
    return std::exchange(held_, {}).substr(0, end - longest);
  }
  size_t hold = LongestPossibleStart();
  std::string out = held_.substr(0, held_.size() - hold);
  held_.erase(0, held_.size() - hold);
  return out;
}

// Bytes at the end of held_ that begin some stop string.
size_t StopMatcher::LongestPossibleStart() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) {
        longest = n;
        break;
      }
    }
  }
  return longest;
}

std::string StopMatcher::Flush() { return matched_ ? std::string() : std::exchange(held_, {}); }

}  // namespace quire::worker
