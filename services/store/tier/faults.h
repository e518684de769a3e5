// Named places where a test makes something go wrong. Tiers and the engine ask at each place whether it is
// armed; unarmed, asking is one relaxed load, and a build with -DQUIRE_FAULTS=OFF does not even ask.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace quire::store {

enum class Fault : uint8_t {
  kDiskReadError,      // the next reads of files fail (I/O error)
  kDiskWriteError,     // the next writes to files fail
  kDiskShortWrite,     // the next writes to files put half of their bytes there and fail
  kDiskFull,           // the next writes to files find no space on the device
  kCorruptByte,        // one byte of the next objects read is another; parameter: its offset, modulo the size
  kRedisDown,          // the next commands find the connection refused
  kRedisSlow,          // the next answers come late by so many ms
  kRedisHalfOpen,      // the next commands are sent and never answered
  kAllocationFailure,  // the next reservations of memory find none
  kSlowTier,           // the next calls of a tier take so many ms more
  // The process ends between two steps of a Put:
  kCrashAfterAnnounce,     // its blocks are announced, no room is taken
  kCrashAfterRoom,         // room is made, no byte has been taken
  kCrashAmidBytes,         // some of a block's bytes are taken
  kCrashAfterStage,        // all of them, not verified
  kCrashAfterVerify,       // verified, not in the index
  kCrashBeforeDiskCommit,  // about to be given to the disk's log
  kCrashAmidDiskCommit,    // half of the next bytes written to a file are there
  kCrashAfterDiskCommit,   // in the disk's log
  kCrashAfterIndex,        // in the index, where readers find it
  kCrashBeforeAnswer,      // all is done, nobody has been told
  kCrashAfterAnswer,       // the client has been told
};
inline constexpr size_t kFaults = 21;

#ifndef QUIRE_FAULTS
#define QUIRE_FAULTS 1
#endif

// Thread-safe.
class FaultPoints {
 public:
  static constexpr bool kBuiltIn = QUIRE_FAULTS != 0;
  static constexpr int kCrashExitCode = 77;

  // The next `count` askers at `point` ("disk_read_error", …: the names above in lower case with underscores)
  // get the fault and `parameter`; replaces what was armed, 0 disarms. NOT_FOUND for an unknown point, with
  // the list; FAILED_PRECONDITION in a build without fault points.
  absl::Status Arm(std::string_view point, uint32_t count, uint64_t parameter = 0);
  void DisarmAll();

  // Whether the fault strikes here and now; consumes one of its count.
  bool Take(Fault fault) { return TakeParameter(fault).has_value(); }
  std::optional<uint64_t> TakeParameter(Fault fault) {
    if constexpr (!kBuiltIn) return std::nullopt;
    Point& point = points_[static_cast<size_t>(fault)];
    if (point.left.load(std::memory_order_relaxed) == 0) [[likely]]
      return std::nullopt;
    return TakeArmed(point);
  }
  // Ends the process with kCrashExitCode, as suddenly as SIGKILL, if the fault strikes.
  void CrashHere(Fault fault) {
    if constexpr (kBuiltIn) {
      if (Take(fault)) [[unlikely]]
        Crash(fault);
    }
  }
  // As suddenly as SIGKILL, with kCrashExitCode.
  [[noreturn]] static void Crash(Fault fault);
  // Waits the armed milliseconds if the fault strikes.
  void DelayHere(Fault fault) {
    if (std::optional<uint64_t> ms = TakeParameter(fault)) [[unlikely]]
      Delay(*ms);
  }

  uint32_t left(Fault fault) const {
    return points_[static_cast<size_t>(fault)].left.load(std::memory_order_relaxed);
  }

 private:
  struct Point {
    std::atomic<uint32_t> left{0};
    std::atomic<uint64_t> parameter{0};
  };
  static std::optional<uint64_t> TakeArmed(Point& point);
  static void Delay(uint64_t ms);

  std::array<Point, kFaults> points_;
};

std::string_view FaultName(Fault fault);

}  // namespace quire::store
