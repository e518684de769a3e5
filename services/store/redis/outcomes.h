// What the tier's files share: sizes of levels, and what answers mean to the engine.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "core/base/status_macros.h"
#include "services/store/redis/connection.h"
#include "services/store/tier/object_tier.h"

namespace quire::store::redis {

inline int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Of level `level` within an object.
inline Extent LevelExtent(const ObjectRecord& record, uint32_t level) {
  uint64_t begin = level == 0 ? 0 : record.ends[level - 1];
  return {begin, record.ends[level] - begin};
}

// The engine knows two kinds of trouble with a medium: it fails, or it is full. Whatever else a server says
// about us and our commands is the first.
inline absl::Status Outcome(const Request& request) {
  absl::Status status = request.status.ok() ? request.reply.status() : request.status;
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDataLoss:
      return status;
    default:
      return absl::UnavailableError(status.message());
  }
}

inline absl::Status FirstFailure(std::span<const Request> requests) {
  for (const Request& request : requests) QUIRE_RETURN_IF_ERROR(Outcome(request));
  return absl::OkStatus();
}

}  // namespace quire::store::redis
