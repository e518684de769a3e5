// One Redis command as it goes onto the wire, and the answer that comes back (RESP 2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/base/bytes.h"

namespace quire::store::redis {

// What Redis takes as one value (proto-max-bulk-len), hence what we send and believe.
inline constexpr uint64_t kMaxValueBytes = uint64_t{512} << 20;

// A command in its wire form: head, payload, tail. The payload (one value of megabytes) is borrowed and never
// copied; hiredis' redisFormatCommandArgv would copy every argument into one buffer.
class Command {
 public:
  // `arguments` around one borrowed argument, which stands after the first `payload_at` of them.
  explicit Command(const std::vector<std::string_view>& arguments);
  Command(const std::vector<std::string_view>& arguments, size_t payload_at, Bytes payload);
  Command() = default;

  const std::string& head() const { return head_; }
  Bytes payload() const { return payload_; }
  const std::string& tail() const { return tail_; }
  uint64_t bytes() const { return head_.size() + payload_.size() + tail_.size(); }

 private:
  std::string head_;
  Bytes payload_;
  std::string tail_;
};

struct Reply {
  enum class Type : uint8_t {
    kNil,
    kStatus,  // +OK
    kError,   // -ERR …
    kInteger,
    kString,  // in `text`
    kArray,   // in `elements`
    kPlaced,  // a string of exactly the wanted size, put where the caller asked for it
    kMisfit,  // a string of another size than the caller asked for, thrown away; `integer` is its size
  };
  Type type = Type::kNil;
  int64_t integer = 0;
  std::string text;
  std::vector<Reply> elements;

  bool is(Type t) const { return type == t; }
  // OK unless an error: RESOURCE_EXHAUSTED for OOM; UNAUTHENTICATED and PERMISSION_DENIED for what ACLs
  // refuse; UNAVAILABLE for a server that is loading, read-only, failing over or down; INTERNAL otherwise.
  absl::Status status() const;
};

// DATA_LOSS naming what was expected and what came; for replies whose type a server must not choose.
absl::Status Unexpected(std::string_view wanted, const Reply& reply);

}  // namespace quire::store::redis
