// SHA-256, HMAC-SHA-256 (OpenSSL) and XXH3-64. All functions are thread-safe and never fail on any input.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/bytes.h"

namespace quire {

// A 32-byte SHA-256 value: fingerprints, block keys, salts.
struct Digest {
  std::array<uint8_t, 32> bytes{};

  std::string Hex() const;
  std::string_view AsString() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  static std::optional<Digest> FromBytes(std::string_view raw);  // exactly 32 bytes
  static std::optional<Digest> FromHex(std::string_view hex);    // exactly 64 digits

  friend bool operator==(const Digest&, const Digest&) = default;
  friend auto operator<=>(const Digest&, const Digest&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    return H::combine(std::move(h), d.bytes);
  }
};

// Incremental SHA-256. Not thread-safe; one use each.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& Update(Bytes bytes);
  Sha256& Update(std::string_view s) { return Update(AsBytes(s)); }
  Sha256& UpdateU32(uint32_t value);
  Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Digest HmacSha256(std::string_view secret, std::string_view message);
uint64_t Xxh3(Bytes bytes);
std::string HexString(Bytes bytes);

}  // namespace quire
