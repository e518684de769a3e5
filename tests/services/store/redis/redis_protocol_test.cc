// What needs no server: commands, replies in pieces of any size, limits, slots, addresses.
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "services/store/redis/command.h"
#include "services/store/redis/options.h"
#include "services/store/redis/reply_parser.h"
#include "services/store/redis/slots.h"

namespace quire::store::redis {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using Type = Reply::Type;

// Feeds `stream` in pieces of `piece` bytes at most and takes a reply for each buffer of `into`.
struct Fed {
  absl::Status status;
  std::vector<Reply> replies;
  bool empty = false;
};
Fed Feed(std::string_view stream, std::vector<MutableBytes> into, const std::function<size_t()>& piece) {
  ReplyParser parser;
  Fed fed;
  while (true) {
    MutableBytes place = fed.replies.size() < into.size() ? into[fed.replies.size()] : MutableBytes();
    Reply reply;
    absl::StatusOr<bool> complete = parser.Next(place, &reply);
    if (!complete.ok()) {
      fed.status = complete.status();
      break;
    }
    if (*complete) {
      fed.replies.push_back(std::move(reply));
      continue;
    }
    if (stream.empty()) break;
    size_t left = std::min(piece(), stream.size());
    size_t total = 0;
    for (MutableBytes space : parser.Space()) {
      size_t here = std::min(left, space.size());
      std::copy_n(stream.begin(), here, space.begin());
      stream.remove_prefix(here);
      left -= here;
      total += here;
    }
    EXPECT_GT(total, 0u);
    parser.Filled(total);
  }
  fed.empty = parser.empty();
  return fed;
}

TEST(RedisCommand, HasTheWireFormThatTheProtocolSays) {
  EXPECT_EQ(Command({"GET", "key"}).head(), "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
  std::string value = "val";
  Command set({"SET", "key", "PX", "10"}, 2, AsBytes(value));
  EXPECT_EQ(set.head() + std::string(AsString(set.payload())) + set.tail(),
            "*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$3\r\nval\r\n$2\r\nPX\r\n$2\r\n10\r\n");
  EXPECT_EQ(set.payload().data(), reinterpret_cast<const uint8_t*>(value.data()));
  EXPECT_EQ(set.bytes(), set.head().size() + 3 + set.tail().size());
}

TEST(RedisReplies, ComeOutTheSameHoweverTheStreamIsCut) {
  std::string value(100'000, 'x');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 7 + i / 256);
  std::string stream = "+OK\r\n:42\r\n$5\r\nhello\r\n$-1\r\n";
  absl::StrAppend(&stream, "$", value.size(), "\r\n", value, "\r\n");
  stream += "-MOVED 1 h:2\r\n*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n+s\r\n";
  absl::StrAppend(&stream, "$", value.size(), "\r\n", value, "\r\n");
  stream += "$0\r\n\r\n$3\r\nabc\r\n-ERR no\r\n$-1\r\n";

  std::mt19937 generator(1);
  for (int round = 0; round < 60; ++round) {
    std::vector<uint8_t> placed(value.size()), wrong(5, 0xee), small(3);
    std::vector<MutableBytes> into(12);
    into[4] = placed;
    into[7] = wrong;  // another size than what comes
    into[9] = into[10] = into[11] = small;
    size_t most = round == 0 ? 1 : size_t{1} << (round % 18);
    Fed fed = Feed(stream, into, [&] { return 1 + generator() % most; });
    ASSERT_TRUE(fed.status.ok()) << fed.status;
    ASSERT_EQ(fed.replies.size(), 12u);
    EXPECT_TRUE(fed.empty);
    EXPECT_EQ(fed.replies[0].text, "OK");
    EXPECT_EQ(fed.replies[0].type, Type::kStatus);
    EXPECT_EQ(fed.replies[1].integer, 42);
    EXPECT_EQ(fed.replies[2].text, "hello");
    EXPECT_EQ(fed.replies[3].type, Type::kNil);
    EXPECT_EQ(fed.replies[4].type, Type::kPlaced);
    EXPECT_EQ(AsString(placed), value);
    EXPECT_EQ(fed.replies[5].type, Type::kError);
    ASSERT_EQ(fed.replies[6].elements.size(), 3u);
    EXPECT_EQ(fed.replies[6].elements[1].elements[0].text, "a");
    EXPECT_EQ(fed.replies[6].elements[1].elements[1].type, Type::kNil);
    EXPECT_EQ(fed.replies[6].elements[2].text, "s");
    EXPECT_EQ(fed.replies[7].type, Type::kMisfit);
    EXPECT_EQ(fed.replies[7].integer, static_cast<int64_t>(value.size()));
    EXPECT_EQ(wrong, std::vector<uint8_t>(5, 0xee));
    EXPECT_EQ(fed.replies[8].text, "");
    EXPECT_EQ(fed.replies[9].type, Type::kPlaced);
    EXPECT_EQ(AsString(small), "abc");
    EXPECT_EQ(fed.replies[10].type, Type::kError);
    EXPECT_EQ(fed.replies[11].type, Type::kNil);
  }
}

TEST(RedisReplies, BeyondLimitsOrUnreadableEndTheStream) {
  std::vector<uint8_t> buffer(10);
  struct Case {
    std::string stream;
    MutableBytes into;
  };
  std::string nested;
  for (int i = 0; i < 12; ++i) nested += "*1\r\n";
  std::string many;
  for (int i = 0; i < 3; ++i) many += "*200000\r\n";
  for (const Case& c : std::vector<Case>{{"what\r\n", {}},
                                         {"*2000000000\r\n", {}},
                                         {many, {}},
                                         {nested + ":1\r\n", {}},
                                         {"$99999999999\r\n", buffer},
                                         {"$-2\r\n", buffer},
                                         {"$1x\r\n", buffer},
                                         {"$\r\n", buffer},
                                         {"$00000000000000000000000000000000", buffer},
                                         {"$10\r\n0123456789ab", buffer},
                                         {":notanumber\r\n", {}}}) {
    Fed fed = Feed(c.stream, {c.into}, [] { return size_t{1000}; });
    EXPECT_EQ(fed.status.code(), StatusCode::kDataLoss) << c.stream << ": " << fed.status;
    EXPECT_TRUE(fed.replies.empty());
  }
  std::string endless = "$400000000\r\n" + std::string(ReplyParser::kMaxReplyBytes + 100'000, 'a');
  Fed fed = Feed(endless, {}, [] { return size_t{100'000}; });
  EXPECT_EQ(fed.status.code(), StatusCode::kDataLoss);
}

TEST(RedisReplies, RandomBytesNeverHarm) {
  std::mt19937 generator(5);
  const std::string alphabet = "$*+-:\r\n0123456789\0a";
  for (int round = 0; round < 20'000; ++round) {
    std::string stream;
    for (uint32_t n = generator() % 40; n > 0; --n) stream += alphabet[generator() % alphabet.size()];
    std::vector<uint8_t> buffer(generator() % 4);
    Feed(stream, {buffer, buffer, {}, buffer}, [&] { return size_t{1 + generator() % 7}; });
  }
}

TEST(RedisReplies, ErrorsBecomeStatuses) {
  auto code = [](const std::string& text) {
    Reply reply;
    reply.type = Type::kError;
    reply.text = text;
    return reply.status().code();
  };
  EXPECT_EQ(code("OOM command not allowed when used memory > 'maxmemory'."), StatusCode::kResourceExhausted);
  EXPECT_EQ(code("ERR Error running script: @user_script:3: OOM command not allowed"),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(code("WRONGPASS invalid username-password pair"), StatusCode::kUnauthenticated);
  EXPECT_EQ(code("NOAUTH Authentication required."), StatusCode::kUnauthenticated);
  EXPECT_EQ(code("NOPERM this user has no permissions"), StatusCode::kPermissionDenied);
  EXPECT_EQ(code("LOADING Redis is loading the dataset in memory"), StatusCode::kUnavailable);
  EXPECT_EQ(code("CLUSTERDOWN Hash slot not served"), StatusCode::kUnavailable);
  EXPECT_EQ(code("ERR unknown command"), StatusCode::kInternal);
  EXPECT_TRUE(Reply().status().ok());
}

TEST(RedisSlots, FollowTheSpecification) {
  EXPECT_EQ(KeySlot("123456789"), 0x31C3 % kSlots);  // CRC-16/XMODEM's check value
  EXPECT_EQ(KeySlot(""), 0);
  EXPECT_EQ(KeySlot("foo"), 12182);
  EXPECT_EQ(KeySlot("{user1000}.following"), KeySlot("{user1000}.followers"));
  EXPECT_EQ(KeySlot("{user1000}.following"), KeySlot("user1000"));
  EXPECT_EQ(KeySlot("foo{}{bar}"), KeySlot("foo{}{bar}"));
  EXPECT_NE(KeySlot("foo{}{bar}"), KeySlot("bar"));
  EXPECT_EQ(KeySlot("foo{{bar}}zap"), KeySlot("{bar"));
  EXPECT_EQ(KeySlot("foo{bar}{zap}"), KeySlot("bar"));
}

TEST(RedisSlots, RedirectsAreParsedAndOddOnesRefused) {
  auto moved = ParseRedirect("MOVED 3999 127.0.0.1:6381");
  ASSERT_TRUE(moved.ok());
  EXPECT_FALSE(moved->ask);
  EXPECT_EQ(moved->slot, 3999);
  EXPECT_EQ(moved->host, "127.0.0.1");
  EXPECT_EQ(moved->port, 6381);
  auto ask = ParseRedirect("ASK 16383 ::1:6381");
  ASSERT_TRUE(ask.ok());
  EXPECT_TRUE(ask->ask);
  EXPECT_EQ(ask->host, "::1");
  EXPECT_EQ(ParseRedirect("MOVED 1 :6381")->host, "");
  EXPECT_EQ(ParseRedirect("ERR no").status().code(), StatusCode::kNotFound);
  for (const char* odd : {"MOVED", "MOVED 1", "MOVED 16384 h:1", "MOVED x h:1", "MOVED 1 h:0",
                          "MOVED 1 h:65536", "MOVED 1 h", "ASK -1 h:1", "MOVED 1 "}) {
    EXPECT_FALSE(ParseRedirect(odd).ok()) << odd;
  }
}

TEST(RedisSlots, MapsOfAnotherShapeAreRefused) {
  auto parse = [](const std::string& stream) {
    Fed fed = Feed(stream, {}, [] { return size_t{4000}; });
    return ParseSlots(fed.replies.at(0));
  };
  auto map = parse("*1\r\n*4\r\n:0\r\n:100\r\n*3\r\n$1\r\nh\r\n:7\r\n$2\r\nid\r\n*2\r\n$1\r\nr\r\n:8\r\n");
  ASSERT_TRUE(map.ok()) << map.status();
  ASSERT_EQ(map->size(), 1u);
  EXPECT_EQ((*map)[0].last, 100u);
  EXPECT_EQ((*map)[0].host, "h");
  EXPECT_EQ((*map)[0].port, 7);
  for (const char* odd :
       {"+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\nh\r\n:7\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:7\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nh\r\n:70000\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:1\r\n:7\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\nh\r\n"}) {
    EXPECT_EQ(parse(odd).status().code(), StatusCode::kDataLoss) << odd;
  }
}

TEST(RedisEndpoints, AreParsedAndWrongOnesNamed) {
  auto tls = Endpoint::Parse("rediss://cache.example:7000");
  ASSERT_TRUE(tls.ok());
  EXPECT_TRUE(tls->tls);
  EXPECT_EQ(tls->host, "cache.example");
  EXPECT_EQ(tls->port, 7000);
  EXPECT_EQ(Endpoint::Parse("localhost")->port, 6379);
  EXPECT_EQ(Endpoint::Parse("redis://localhost/")->host, "localhost");
  EXPECT_EQ(Endpoint::Parse("[::1]:7")->host, "::1");
  EXPECT_EQ(Endpoint::Parse("unix:/run/redis.sock")->path, "/run/redis.sock");
  for (const char* address : {"rediss://h:7000", "127.0.0.1:6379", "[::1]:7", "unix:/a/b"})
    EXPECT_EQ(Endpoint::Parse(address)->ToString(), address);
  for (const char* odd : {"", "unix:", ":1", "h:", "h:0", "h:65536", "h:x", "a:b:1", "[::1", "[::1]x",
                          "redis://user@h:1", "rediss://h/0"}) {
    auto endpoint = Endpoint::Parse(odd);
    EXPECT_EQ(endpoint.status().code(), StatusCode::kInvalidArgument) << odd;
    EXPECT_THAT(std::string(endpoint.status().message()), HasSubstr(odd));
  }
}

}  // namespace
}  // namespace quire::store::redis
