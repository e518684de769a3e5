#include "services/store/tier/faults.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

constexpr std::array<std::string_view, kFaults> kNames = {"disk_read_error",
                                                          "disk_write_error",
                                                          "disk_short_write",
                                                          "disk_full",
                                                          "corrupt_byte",
                                                          "redis_down",
                                                          "redis_slow",
                                                          "redis_half_open",
                                                          "allocation_failure",
                                                          "slow_tier",
                                                          "crash_after_announce",
                                                          "crash_after_room",
                                                          "crash_amid_bytes",
                                                          "crash_after_stage",
                                                          "crash_after_verify",
                                                          "crash_before_disk_commit",
                                                          "crash_amid_disk_commit",
                                                          "crash_after_disk_commit",
                                                          "crash_after_index",
                                                          "crash_before_answer",
                                                          "crash_after_answer"};
static_assert(static_cast<size_t>(Fault::kCrashAfterAnswer) + 1 == kFaults);

std::string AllNames() {
  std::string out;
  for (std::string_view name : kNames) absl::StrAppend(&out, out.empty() ? "" : ", ", std::string(name));
  return out;
}

}  // namespace

std::string_view FaultName(Fault fault) { return kNames[static_cast<size_t>(fault)]; }

absl::Status FaultPoints::Arm(std::string_view point, uint32_t count, uint64_t parameter) {
  if (!kBuiltIn)
    return absl::FailedPreconditionError("this store was built without fault points (QUIRE_FAULTS=OFF)");
  auto found = std::find(kNames.begin(), kNames.end(), point);
  if (found == kNames.end()) {
    return absl::NotFoundError(
        absl::StrCat("no fault point is called ", std::string(point), "; there are ", AllNames()));
  }
  Point& armed = points_[static_cast<size_t>(found - kNames.begin())];
  armed.left.store(0, std::memory_order_relaxed);
  armed.parameter.store(parameter, std::memory_order_relaxed);
  armed.left.store(count, std::memory_order_release);
  return absl::OkStatus();
}

void FaultPoints::DisarmAll() {
  for (Point& point : points_) point.left.store(0, std::memory_order_relaxed);
}

std::optional<uint64_t> FaultPoints::TakeArmed(Point& point) {
  uint32_t left = point.left.load(std::memory_order_acquire);
  while (left != 0 && !point.left.compare_exchange_weak(left, left - 1, std::memory_order_acquire)) {
  }
  if (left == 0) return std::nullopt;
  return point.parameter.load(std::memory_order_relaxed);
}

void FaultPoints::Crash(Fault fault) {
  std::string line = absl::StrCat("crash at fault point ", std::string(FaultName(fault)), "\n");
  // Whether anybody reads it does not matter: the process ends here.
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  _exit(kCrashExitCode);
}

void FaultPoints::Delay(uint64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace quire::store
