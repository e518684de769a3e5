// What stands in Redis for an object besides its levels' bytes: where the levels are, their authentication
// codes, and the record.
//
//   u8 version (1) · u8 flags (1: sealed) · u64 generation · u8 n · n × 16 bytes, one for each level
//   · the record (ObjectRecord::Serialize) · 16 bytes over all before and the name
//
// n is 0 and the last 16 bytes are absent unless sealed. Codes are HMAC-SHA-256, cut to 16 bytes:
//   of a level   "quire.redis.level.v1" ‖ encoded name ‖ u64 generation ‖ u32 level ‖ its bytes
//   of a record  "quire.redis.record.v1" ‖ encoded name ‖ all bytes before the code
// A generation is drawn at random for each write, so that two writers of one name never mix their levels.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/store/tier/object_tier.h"

namespace quire::store::redis {

// Seals with a key, or does nothing without one. Immutable, thread-safe.
class Seal {
 public:
  using Code = std::array<uint8_t, 16>;

  Seal() = default;
  explicit Seal(std::string_view key);  // of any length
  // INVALID_ARGUMENT unless the file holds 16 to 4096 bytes.
  static absl::StatusOr<Seal> FromFile(const std::string& file);

  explicit operator bool() const { return keyed_; }
  // REQUIRES: keyed.
  Code OfLevel(const ObjectName& name, uint64_t generation, uint32_t level, Bytes bytes) const;
  Code OfRecord(const ObjectName& name, Bytes bytes) const;
  // In a time that does not depend on where they differ.
  static bool Equal(const Code& a, const Code& b);

 private:
  Code Compute(std::initializer_list<Bytes> parts) const;

  bool keyed_ = false;
  std::array<uint8_t, 64> inner_{}, outer_{};  // the key, padded
};

struct StoredRecord {
  uint64_t generation = 0;
  std::vector<Seal::Code> level_codes;  // of the record's levels; empty: not sealed
  ObjectRecord record;

  // REQUIRES: level_codes as `seal` says.
  std::string Serialize(const Seal& seal, const ObjectName& name) const;
  // DATA_LOSS for anything malformed, for a wrong code, and for one that is missing where `seal` has a key;
  // UNIMPLEMENTED for a version it does not know.
  static absl::StatusOr<StoredRecord> Parse(const Seal& seal, const ObjectName& name, Bytes bytes);
  // Of a record that may be wrong otherwise; for cleaning up after it.
  static std::optional<uint64_t> GenerationOf(Bytes bytes);
};

}  // namespace quire::store::redis
