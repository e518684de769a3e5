// Arenas between a host and its clients, without gRPC: who gets which memory, and when it is free again.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "services/store/arena/arena_host.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/arena/range_allocator.h"

namespace quire::store {
namespace {

using absl::StatusCode;
constexpr auto kPatience = std::chrono::seconds(20);

TEST(RangeAllocator, AgreesWithAMapOfBytes) {
  constexpr uint64_t kUnits = 64;
  RangeAllocator ranges(kUnits * 64 + 63);  // what is less than a unit at the end is of no use
  std::vector<int> owner(kUnits, 0);
  std::map<int, std::pair<uint64_t, uint64_t>> held;
  std::mt19937 random(3);
  for (int i = 1; i < 20'000; ++i) {
    if (random() % 2 == 0) {
      uint64_t bytes = random() % 700;
      uint64_t units = std::max<uint64_t>(1, (bytes + 63) / 64), longest = 0, run = 0;
      for (int o : owner) longest = std::max(longest, run = o == 0 ? run + 1 : 0);
      std::optional<uint64_t> offset = ranges.Take(bytes);
      ASSERT_EQ(offset.has_value(), longest >= units);
      if (!offset) continue;
      ASSERT_EQ(*offset % 64, 0u);
      for (uint64_t u = *offset / 64; u < *offset / 64 + units; ++u) {
        ASSERT_EQ(owner.at(u), 0);
        owner[u] = i;
      }
      held[i] = {*offset, bytes};
    } else if (!held.empty()) {
      auto it = std::next(held.begin(), static_cast<ptrdiff_t>(random() % held.size()));
      ranges.Give(it->second.first, it->second.second);
      for (int& o : owner) o = o == it->first ? 0 : o;
      held.erase(it);
    }
    ASSERT_EQ(ranges.free_bytes(), 64u * static_cast<uint64_t>(std::ranges::count(owner, 0)));
  }
  EXPECT_FALSE(ranges.Take(UINT64_MAX));
}

class ArenaHostTest : public testing::Test {
 protected:
  ArenaHostTest() {
    options_.max_bytes = 1 << 20;
    options_.max_client_bytes = 512 << 10;
    options_.max_arenas = 3;
    Start();
  }
  void Start() { host_ = *ArenaHost::Start(options_); }
  absl::StatusOr<std::shared_ptr<AttachedArena>> Claim(const Arena& arena, const std::string& token) {
    return AttachedArena::Claim(host_->socket(), token, arena.id(), arena.bytes(), kPatience);
  }
  std::shared_ptr<AttachedArena> Claim(const Arena& arena) {
    auto attached = Claim(arena, std::string(arena.token().AsString()));
    EXPECT_TRUE(attached.ok()) << attached.status();
    return attached.ok() ? *attached : nullptr;
  }

  ArenaOptions options_;
  std::unique_ptr<ArenaHost> host_;
};

TEST_F(ArenaHostTest, BothSidesSeeTheSameMemory) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 100'000);
  EXPECT_EQ(arena->bytes(), 102'400u);  // whole pages
  EXPECT_EQ(host_->Find("a", arena->id()).status().code(),
            StatusCode::kFailedPrecondition);  // not claimed yet
  std::shared_ptr<AttachedArena> attached = Claim(*arena);
  EXPECT_TRUE(attached->usable());
  EXPECT_EQ(*host_->Find("a", arena->id()), arena);
  AttachedArena::Range range = *attached->Take(1000);
  std::memset(range.bytes().data(), 0xA5, 1000);
  MutableBytes seen = *arena->Range(range.offset(), 1000);
  EXPECT_EQ(seen[999], 0xA5);
  seen[0] = 7;
  EXPECT_EQ(range.bytes()[0], 7);
}

TEST_F(ArenaHostTest, TheSocketIsPrivateAndGoesWithTheHost) {
  std::filesystem::path folder = std::filesystem::path(host_->socket()).parent_path();
  struct stat status;
  ASSERT_EQ(stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  host_.reset();
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(ArenaHostTest, AForgedTokenHandsOutNothing) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  std::string token(arena->token().AsString());
  std::string forged = token;
  forged[31] = static_cast<char>(forged[31] ^ 1);
  EXPECT_EQ(Claim(*arena, forged).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Claim(*arena, std::string(32, '\0')).status().code(), StatusCode::kUnavailable);
}

TEST_F(ArenaHostTest, ATokenShownAgainHandsOutNothing) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  std::shared_ptr<AttachedArena> first = Claim(*arena);
  EXPECT_EQ(Claim(*arena, std::string(arena->token().AsString())).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(first->usable());
  EXPECT_FALSE(arena->closed());
}

TEST_F(ArenaHostTest, LimitsHoldForOneAndForAll) {
  EXPECT_EQ(host_->Create("a", 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->Create("a", (512 << 10) + 1).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(host_->Create("a", UINT64_MAX).status().code(), StatusCode::kResourceExhausted);
  auto first = *host_->Create("a", 512 << 10), second = *host_->Create("b", 512 << 10);
  EXPECT_EQ(host_->used_bytes(), 1u << 20);
  EXPECT_EQ(host_->Create("c", 1).status().code(), StatusCode::kResourceExhausted);
  host_->Close(*first);
  EXPECT_EQ(host_->used_bytes(), 1u << 20);  // somebody still uses it
  first.reset();
  EXPECT_EQ(host_->used_bytes(), 512u << 10);
  auto third = *host_->Create("c", 4096), fourth = *host_->Create("c", 4096);
  EXPECT_EQ(host_->Create("c", 4096).status().code(),
            StatusCode::kResourceExhausted);  // the fourth at a time
}

TEST_F(ArenaHostTest, RangesLieWithinTheArena) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 8192);
  auto code = [&](uint64_t offset, uint64_t length) { return arena->Range(offset, length).status().code(); };
  EXPECT_EQ(code(0, 8192), StatusCode::kOk);
  EXPECT_EQ(code(8192, 0), StatusCode::kOk);
  EXPECT_EQ(code(8191, 2), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, 8193), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(8193, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4096, UINT64_MAX), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(UINT64_MAX, 2), StatusCode::kInvalidArgument);
  host_->Close(*arena);
  EXPECT_EQ(code(0, 1), StatusCode::kFailedPrecondition);
}

TEST_F(ArenaHostTest, AnArenaIsItsOwnersOnly) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  auto attached = Claim(*arena);
  EXPECT_TRUE(host_->Find("a", arena->id()).ok());
  EXPECT_EQ(host_->Find("b", arena->id()).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_->Find("a", "guess").status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(ArenaHostTest, ItClosesWithItsConnection) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  auto attached = Claim(*arena);
  attached.reset();
  EXPECT_TRUE(arena->WaitClosed(kPatience));
  EXPECT_FALSE(host_->Find("a", arena->id()).ok());
  arena.reset();
  while (host_->used_bytes() > 0) std::this_thread::yield();
}

TEST_F(ArenaHostTest, ItsClientSeesThatTheHostIsGone) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  auto attached = Claim(*arena);
  AttachedArena::Range range = *attached->Take(10);
  arena.reset();
  host_.reset();
  EXPECT_FALSE(attached->usable());
  range.bytes()[0] = 1;  // the memory is still there for whoever holds it
}

TEST_F(ArenaHostTest, AnArenaNobodyClaimsIsClosed) {
  options_.claim_timeout = std::chrono::milliseconds(1);
  Start();
  std::shared_ptr<Arena> arena = *host_->Create("a", 4096);
  EXPECT_TRUE(arena->WaitClosed(kPatience));
  EXPECT_EQ(Claim(*arena, std::string(arena->token().AsString())).status().code(), StatusCode::kUnavailable);
}

TEST_F(ArenaHostTest, ARetiredArenaGivesNoMoreRanges) {
  std::shared_ptr<Arena> arena = *host_->Create("a", 8192);
  auto attached = Claim(*arena);
  AttachedArena::Range range = *attached->Take(100);
  attached->Retire();
  EXPECT_FALSE(attached->usable());
  EXPECT_FALSE(attached->Take(100));
  EXPECT_FALSE(arena->closed());  // as long as somebody has a range
}

TEST(SharedSegment, CannotBeShrunkOrGrown) {
  SharedSegment segment = *SharedSegment::Create(8192);
  EXPECT_NE(ftruncate(segment.fd(), 4096), 0);
  EXPECT_NE(ftruncate(segment.fd(), 16384), 0);
  EXPECT_NE(fcntl(segment.fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(SharedSegment, AClientTakesOnlyWhatItWasPromised) {
  SharedSegment segment = *SharedSegment::Create(8192);
  EXPECT_EQ(SharedSegment::Map(UniqueFd(dup(segment.fd())), 16384).status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(SharedSegment::Map(UniqueFd(dup(segment.fd())), 8192).ok());
  UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 8192), 0);
  EXPECT_EQ(SharedSegment::Map(std::move(unsealed), 8192).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(SharedSegment::Map(UniqueFd(), 8192).status().code(), StatusCode::kDataLoss);
}

TEST_F(ArenaHostTest, SilentAndTalkativeConnectionsAreClosed) {
  options_.claim_timeout = std::chrono::milliseconds(1);
  Start();
  for (std::string text : {std::string(), std::string(100, 'x')}) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, host_->socket().c_str());
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    if (!text.empty()) {
      ASSERT_GT(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), 0);
    }
    char byte;
    EXPECT_LE(recv(fd.get(), &byte, 1, 0), 0);  // the end, without a byte
  }
}

}  // namespace
}  // namespace quire::store
