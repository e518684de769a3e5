// Replies out of a byte stream in pieces of any size. hiredis' reader parses all but one kind: a bulk string
// that the caller wants in a buffer of its own goes there straight from the socket, because that reader
// would copy it twice (into its own buffer, which must hold the whole string, and out of it). What of a value
// arrives in the same read as something before it, at most kBufferBytes, is copied once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "services/store/redis/command.h"

struct redisReader;

namespace quire::store::redis {

// Not thread-safe. After an error the stream cannot be understood any more: close it.
class ReplyParser {
 public:
  static constexpr size_t kBufferBytes = 16 << 10;
  // Of one reply that is not placed: bytes, and elements of all its arrays together. Beyond: DATA_LOSS.
  static constexpr uint64_t kMaxReplyBytes = 16 << 20;
  static constexpr uint64_t kMaxElements = 1 << 18;

  ReplyParser();
  ~ReplyParser();

  // Where the next bytes belong, in this order; never both empty. Call when Next returned false.
  std::array<MutableBytes, 2> Space();
  void Filled(size_t bytes);  // so many were written there

  // Takes the next reply; false: more bytes are needed. A bulk string goes to `into` if that is not empty:
  // all of it or, if its size is another, nothing (kPlaced, kMisfit). After false the next call must give
  // the same `into`. DATA_LOSS for bytes that are no RESP and for replies beyond the limits.
  absl::StatusOr<bool> Next(MutableBytes into, Reply* reply);
  // Nothing of a reply was read that Next did not take.
  bool empty() const { return state_ == State::kStart && begin_ == end_; }

  struct Limits;  // what hiredis' callbacks share

 private:
  enum class State : uint8_t { kStart, kParsing, kPlacing, kSkipping };

  absl::StatusOr<bool> Start(MutableBytes into, Reply* reply);
  absl::StatusOr<bool> Parse(Reply* reply);
  absl::StatusOr<bool> Place(Reply* reply);
  absl::StatusOr<bool> Skip(Reply* reply);

  struct ReaderDeleter {
    void operator()(redisReader* reader) const;
  };
  std::unique_ptr<redisReader, ReaderDeleter> reader_;
  std::unique_ptr<Limits> limits_;
  std::vector<uint8_t> buffer_;
  size_t begin_ = 0, end_ = 0;  // unread bytes of buffer_
  State state_ = State::kStart;
  uint64_t parsed_bytes_ = 0;  // given to hiredis since its last reply
  MutableBytes rest_;          // of the value being placed
  uint64_t skip_ = 0;          // bytes to throw away
  int64_t value_bytes_ = 0;
};

}  // namespace quire::store::redis
