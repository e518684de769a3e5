// How far a run of many measurements is, by the time that its two kinds of work have been seen to take.
#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <string>

namespace quire::worker {

enum class Work { kUncodedRun = 0, kMeasurement = 1 };

// Pure arithmetic: what was done took this long, so what is left will take that long.
class WorkEstimate {
 public:
  void Expect(Work kind, double count) { expected_[Index(kind)] += count; }
  void Done(Work kind, double seconds);
  double fraction() const;                  // of the time, 0…1
  std::optional<double> remaining() const;  // seconds; nothing before anything was done

 private:
  static size_t Index(Work kind) { return static_cast<size_t>(kind); }
  double CostOf(size_t kind) const;  // seconds, or, before anything was done, in units of a measurement
  double Left() const;

  std::array<double, 2> expected_{}, done_{}, seconds_{};
};

// "2 h 05 min", "3 min 20 s", "8 s"
std::string FormatDuration(double seconds);

// One line on stderr: rewritten in place on a terminal, else a line whenever the step's name changes.
class Progress {
 public:
  Progress();
  void ShowLoad(const std::string& step, double fraction);
  // The step that begins now.
  void Show(const WorkEstimate& estimate, const std::string& step);
  void Clear();

 private:
  void Print(double fraction, const std::string& rest, const std::string& step);
  const bool terminal_;
  std::string last_;
};

}  // namespace quire::worker
