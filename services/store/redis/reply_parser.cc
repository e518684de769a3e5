#include "services/store/redis/reply_parser.h"

#include <hiredis/read.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {

struct ReplyParser::Limits {
  uint64_t elements = 0;
  bool exceeded = false;
};

namespace {

// The place of a task's object: a new tree, or the element that its parent array made for it.
Reply* PlaceOf(const redisReadTask* task) {
  if (task->parent == nullptr) return new Reply;
  return &static_cast<Reply*>(task->parent->obj)->elements[static_cast<size_t>(task->idx)];
}

void* CreateString(const redisReadTask* task, char* text, size_t bytes) {
  Reply* reply = PlaceOf(task);
  reply->type = task->type == REDIS_REPLY_ERROR    ? Reply::Type::kError
                : task->type == REDIS_REPLY_STATUS ? Reply::Type::kStatus
                                                   : Reply::Type::kString;
  reply->text.assign(text, bytes);
  return reply;
}

// hiredis asks for a root's array first; the limit is per reply, so it is kept in the reader's private data,
// which tasks carry.
void* CreateArray(const redisReadTask* task, int elements) {
  auto* limits = static_cast<ReplyParser::Limits*>(task->privdata);
  if (elements < 0 || limits->elements + static_cast<uint64_t>(elements) > ReplyParser::kMaxElements) {
    limits->exceeded = true;
    return nullptr;  // hiredis takes it for a lack of memory and gives up
  }
  limits->elements += static_cast<uint64_t>(elements);
  Reply* reply = PlaceOf(task);
  reply->type = Reply::Type::kArray;
  reply->elements.resize(static_cast<size_t>(elements));
  return reply;
}

void* CreateInteger(const redisReadTask* task, long long value) {
  Reply* reply = PlaceOf(task);
  reply->type = Reply::Type::kInteger;
  reply->integer = value;
  return reply;
}

void* CreateNil(const redisReadTask* task) {
  Reply* reply = PlaceOf(task);
  reply->type = Reply::Type::kNil;
  return reply;
}

// Only ever called with a root: elements belong to their arrays.
void FreeObject(void* reply) { delete static_cast<Reply*>(reply); }

redisReplyObjectFunctions kFunctions = {CreateString, CreateArray, CreateInteger, CreateNil, FreeObject};

}  // namespace

void ReplyParser::ReaderDeleter::operator()(redisReader* reader) const { redisReaderFree(reader); }

ReplyParser::ReplyParser()
    : reader_(redisReaderCreateWithFunctions(&kFunctions)),
      limits_(std::make_unique<Limits>()),
      buffer_(kBufferBytes) {
  reader_->privdata = limits_.get();
}

ReplyParser::~ReplyParser() = default;

std::array<MutableBytes, 2> ReplyParser::Space() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {state_ == State::kPlacing ? rest_ : MutableBytes(), MutableBytes(buffer_).subspan(end_)};
}

void ReplyParser::Filled(size_t bytes) {
  if (state_ == State::kPlacing) {
    size_t placed = std::min(bytes, rest_.size());
    rest_ = rest_.subspan(placed);
    bytes -= placed;
  }
  end_ += bytes;
}

absl::StatusOr<bool> ReplyParser::Next(MutableBytes into, Reply* reply) {
  switch (state_) {
    case State::kStart:
      return Start(into, reply);
    case State::kParsing:
      return Parse(reply);
    case State::kPlacing:
      return Place(reply);
    case State::kSkipping:
      return Skip(reply);
  }
  return absl::InternalError("a reply parser in no state");
}

// At a reply's first byte: only what may be a wanted value is looked at here.
absl::StatusOr<bool> ReplyParser::Start(MutableBytes into, Reply* reply) {
  if (begin_ == end_) return false;
  const char* first = reinterpret_cast<const char*>(buffer_.data()) + begin_;
  const char* last = reinterpret_cast<const char*>(buffer_.data()) + end_;
  if (into.empty() || *first != '$') {
    state_ = State::kParsing;
    return Parse(reply);
  }
  constexpr ptrdiff_t kLongestHeader = 1 + 20 + 2;
  const char* line_end = std::find(first, last, '\r');
  if (line_end == last || line_end + 1 == last) {
    if (last - first < kLongestHeader) return false;
    return absl::DataLossError("redis sent a value whose length does not end");
  }
  auto [parsed_to, error] = std::from_chars(first + 1, line_end, value_bytes_);
  bool valid = error == std::errc() && parsed_to == line_end && line_end[1] == '\n' && value_bytes_ >= -1 &&
               value_bytes_ <= static_cast<int64_t>(kMaxValueBytes);
  if (!valid) return absl::DataLossError("redis sent a value whose length is no number up to 512 MiB");
  begin_ += static_cast<size_t>(line_end + 2 - first);
  if (value_bytes_ == -1) {
    reply->type = Reply::Type::kNil;
    return true;
  }
  if (static_cast<uint64_t>(value_bytes_) != into.size()) {
    skip_ = static_cast<uint64_t>(value_bytes_) + 2;
    state_ = State::kSkipping;
    return Skip(reply);
  }
  size_t here = std::min(into.size(), end_ - begin_);
  std::memcpy(into.data(), buffer_.data() + begin_, here);
  begin_ += here;
  rest_ = into.subspan(here);
  state_ = State::kPlacing;
  return Place(reply);
}

absl::StatusOr<bool> ReplyParser::Place(Reply* reply) {
  if (!rest_.empty() || end_ - begin_ < 2) return false;
  if (std::memcmp(buffer_.data() + begin_, "\r\n", 2) != 0)
    return absl::DataLossError("redis sent a value that is longer than it says");
  begin_ += 2;
  state_ = State::kStart;
  reply->type = Reply::Type::kPlaced;
  return true;
}

absl::StatusOr<bool> ReplyParser::Skip(Reply* reply) {
  uint64_t here = std::min<uint64_t>(skip_, end_ - begin_);
  begin_ += here;
  skip_ -= here;
  if (skip_ > 0) return false;
  state_ = State::kStart;
  reply->type = Reply::Type::kMisfit;
  reply->integer = value_bytes_;
  return true;
}

absl::StatusOr<bool> ReplyParser::Parse(Reply* reply) {
  size_t bytes = end_ - begin_;
  parsed_bytes_ += bytes;
  if (redisReaderFeed(reader_.get(), reinterpret_cast<const char*>(buffer_.data()) + begin_, bytes) !=
      REDIS_OK)
    return absl::DataLossError(absl::StrCat("redis' bytes cannot be kept: ", reader_->errstr));
  begin_ = end_ = 0;
  void* root = nullptr;
  if (redisReaderGetReply(reader_.get(), &root) != REDIS_OK) {
    if (limits_->exceeded)
      return absl::DataLossError(absl::StrCat("redis sent a reply of more than ", kMaxElements, " elements"));
    return absl::DataLossError(absl::StrCat("redis' bytes are no reply: ", reader_->errstr));
  }
  if (root == nullptr) {
    if (parsed_bytes_ > kMaxReplyBytes)
      return absl::DataLossError(absl::StrCat("redis sent a reply of more than ", kMaxReplyBytes, " bytes"));
    return false;
  }
  std::unique_ptr<Reply> owned(static_cast<Reply*>(root));
  *reply = std::move(*owned);
  // What follows the reply comes back here: the next one may be a value to be placed. It was fed by this
  // call, so it fits.
  size_t left = reader_->len - reader_->pos;
  std::memcpy(buffer_.data(), reader_->buf + reader_->pos, left);
  end_ = left;
  reader_->pos = reader_->len;
  parsed_bytes_ = 0;
  limits_->elements = 0;
  state_ = State::kStart;
  return true;
}

}  // namespace quire::store::redis
