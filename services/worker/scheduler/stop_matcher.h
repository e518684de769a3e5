// Stop strings, matched on the text as it comes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quire::worker {

// Passes text through until a stop string appears in it, and holds back whatever may still become one, so
// that no part of a stop string is ever passed on. The stop string whose last byte comes first wins, and of
// those that end together the longest: the result does not depend on how the text was cut into pieces. Not
// thread-safe.
class StopMatcher {
 public:
  // Each at least one byte. None: everything passes at once.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Adds text; returns what may be sent now. After a match nothing passes any more.
  std::string Push(std::string_view text);
  // The text has ended: what was held back.
  std::string Flush();
  bool matched() const { return matched_; }

 private:
  size_t LongestPossibleStart() const;

  std::vector<std::string> stops_;
  std::string held_;  // a proper prefix of some stop string
  bool matched_ = false;
};

}  // namespace quire::worker
