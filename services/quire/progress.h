// What a person sees while something long runs.
#pragma once

#include <string>

namespace quire {

// Shows the steps of one long task on standard output: a bar that is redrawn on a terminal, a line for every
// quarter elsewhere. Used by one thread at a time.
class Progress {
 public:
  Progress();
  ~Progress();  // ends the line of a step that was left unfinished
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // fraction: 0…1 of `step`; a step ends when another begins or at 1.
  void Show(const std::string& step, double fraction);

 private:
  void Draw();
  void EndStep();

  const bool on_terminal_;
  std::string step_;
  int percent_ = -1;  // shown last; −1: nothing of this step
};

}  // namespace quire
