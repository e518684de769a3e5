// Which node of a cluster holds which key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/store/redis/command.h"

namespace quire::store::redis {

inline constexpr uint32_t kSlots = 16384;

// CRC-16/XMODEM of the key's hash tag (what stands between the first '{' and the next '}', if anything does)
// or of all of it, modulo kSlots.
uint16_t KeySlot(std::string_view key);

struct SlotRange {
  uint32_t first = 0, last = 0;  // both in the range; < kSlots
  std::string host;              // "": that of the node that was asked
  uint16_t port = 0;
};
// What CLUSTER SLOTS answers: masters only. DATA_LOSS for an answer of another shape.
absl::StatusOr<std::vector<SlotRange>> ParseSlots(const Reply& reply);

// "MOVED 3999 host:port" and "ASK 3999 host:port".
struct Redirect {
  bool ask = false;  // for this command only
  uint16_t slot = 0;
  std::string host;  // "": that of the node that answered
  uint16_t port = 0;
};
// NOT_FOUND: the error is no redirect; DATA_LOSS: it is one of another shape.
absl::StatusOr<Redirect> ParseRedirect(std::string_view error);

}  // namespace quire::store::redis
