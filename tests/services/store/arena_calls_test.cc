// Put and Get through shared memory: what may be named, what happens to bytes that change under the store's
// eyes, and what is left of clients that die.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/runtime/authenticator.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/client/remote_store.h"
#include "services/store/wire/convert.h"
#include "tests/services/runtime/test_certificates.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::Each;

// A client as others write it: the stub and the memory.
class RawClient {
 public:
  explicit RawClient(std::shared_ptr<grpc::Channel> channel, const std::string& token = "",
                     uint64_t bytes = 1 << 20)
      : stub_(v1::KvStore::NewStub(std::move(channel))), token_(token) {
    v1::AttachArenaRequest request;
    request.set_bytes(bytes);
    Authorize(context_);
    stream_ = stub_->AttachArena(&context_, request);
    EXPECT_TRUE(stream_->Read(&attached_));
    auto claimed = AttachedArena::Claim(attached_.socket(), attached_.token(), attached_.arena(),
                                        attached_.bytes(), std::chrono::seconds(20));
    EXPECT_TRUE(claimed.ok()) << claimed.status();
    if (claimed.ok()) arena_ = *claimed;
  }
  ~RawClient() { End(); }
  void End() {
    if (stream_ == nullptr) return;
    context_.TryCancel();
    stream_->Finish();
    stream_.reset();
  }
  void Authorize(grpc::ClientContext& context) {
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  }
  v1::KvStore::Stub& stub() { return *stub_; }
  AttachedArena& arena() { return *arena_; }
  const std::string& id() const { return attached_.arena(); }
  void Disconnect() { arena_.reset(); }

  // Puts block 0 of a chain with `chunk` as its only bytes; the stream's status, or the block's.
  absl::Status Put(const SampleChain& chain, const std::string& arena, const v1::BlockData& chunk,
                   const std::string& tenant = "", const std::function<void()>& sent = nullptr) {
    grpc::ClientContext context;
    Authorize(context);
    auto stream = stub_->Put(&context);
    v1::PutRequest request;
    ToProto(chain.ns(tenant), request.mutable_announce()->mutable_namespace_());
    ToProto(chain.identities[0], chain.objects[0].size(), request.mutable_announce()->add_blocks());
    request.mutable_announce()->set_arena(arena);
    v1::PutResponse response;
    stream->Write(request);
    absl::Status result = absl::UnknownError("no result");
    if (stream->Read(&response)) {
      *request.mutable_data() = chunk;
      stream->Write(request);
      if (sent) sent();
      stream->WritesDone();
      while (stream->Read(&response)) {
        if (response.has_result())
          result =
              absl::Status(static_cast<StatusCode>(response.result().code()), response.result().message());
      }
    }
    grpc::Status status = stream->Finish();
    return status.ok() ? result
                       : absl::Status(static_cast<StatusCode>(status.error_code()), status.error_message());
  }
  absl::Status Get(const SampleChain& chain, const std::string& arena,
                   const std::vector<std::pair<uint64_t, uint64_t>>& ranges, std::vector<v1::BlockData>* got,
                   v1::GetRequest request = {}) {
    grpc::ClientContext context;
    Authorize(context);
    ToProto(chain.ns(), request.mutable_namespace_());
    for (const BlockIdentity& block : chain.identities) ToProto(block, 0, request.add_blocks());
    request.set_arena(arena);
    for (auto [offset, length] : ranges) {
      v1::ArenaRange* range = request.add_arena_ranges();
      range->set_offset(offset), range->set_length(length);
    }
    auto stream = stub_->Get(&context, request);
    v1::GetResponse response;
    while (stream->Read(&response)) got->push_back(response.data());
    grpc::Status status = stream->Finish();
    return absl::Status(static_cast<StatusCode>(status.error_code()), status.error_message());
  }

 private:
  std::unique_ptr<v1::KvStore::Stub> stub_;
  const std::string token_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::AttachArenaResponse>> stream_;
  v1::AttachArenaResponse attached_;
  std::shared_ptr<AttachedArena> arena_;
};

v1::BlockData ChunkAt(uint64_t offset, uint64_t length) {
  v1::BlockData chunk;
  chunk.mutable_arena_range()->set_offset(offset);
  chunk.mutable_arena_range()->set_length(length);
  return chunk;
}

class ArenaCallsTest : public testing::Test {
 protected:
  ArenaCallsTest() : chain_(SampleLayout(), 4) { Start(); }
  void Start(StoreServicesOptions options = {}) {
    served_ = std::make_unique<ServedStore>(SmallStore(), options);
    ASSERT_TRUE(served_->engine().RegisterLayout(chain_.layout).ok());
  }
  std::unique_ptr<RemoteStore> Client(uint64_t arena_bytes = 1 << 20) {
    RemoteStoreOptions options;
    options.arena_bytes = arena_bytes;
    auto store = std::make_unique<RemoteStore>(served_->NewChannel(), options);
    EXPECT_TRUE(store->RegisterLayout(chain_.layout).ok());
    return store;
  }
  void AwaitNoArenas() {
    while (served_->arenas().used_bytes() > 0) std::this_thread::yield();
  }

  SampleChain chain_;
  std::unique_ptr<ServedStore> served_;
};

TEST_F(ArenaCallsTest, RangesAreCheckedAgainstTheClientsOwnArena) {
  RawClient client(served_->NewChannel());
  RawClient other(served_->NewChannel());
  uint64_t size = chain_.objects[0].size(), all = client.arena().bytes();
  std::memcpy(client.arena().Take(size)->bytes().data(), chain_.objects[0].data(), size);  // at 0
  auto code = [&](const std::string& arena, const v1::BlockData& chunk) {
    return client.Put(chain_, arena, chunk).code();
  };
  EXPECT_EQ(code(client.id(), ChunkAt(all - size + 1, size)), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), ChunkAt(UINT64_MAX - 10, size)), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), ChunkAt(0, UINT64_MAX)), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), ChunkAt(0, 0)), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), ChunkAt(0, size + 1)), StatusCode::kInvalidArgument);  // more than announced
  EXPECT_EQ(code("", ChunkAt(0, size)), StatusCode::kInvalidArgument);               // no arena was announced
  EXPECT_EQ(code("guess", ChunkAt(0, size)), StatusCode::kFailedPrecondition);
  v1::BlockData both = ChunkAt(0, size);
  both.set_data("x");
  EXPECT_EQ(code(client.id(), both), StatusCode::kInvalidArgument);
  // The other's arena is the other's memory: what lies in this one's is not there.
  EXPECT_EQ(code(other.id(), ChunkAt(0, size)), StatusCode::kDataLoss);
  AwaitNoSessions(served_->engine());
  EXPECT_EQ(UsedBytes(served_->engine()), 0u);
  EXPECT_EQ(code(client.id(), ChunkAt(0, size)), StatusCode::kOk);
  EXPECT_EQ(StoredPrefix(served_->engine(), chain_), 1u);
}

TEST_F(ArenaCallsTest, GetFillsTheRangesItIsGiven) {
  ASSERT_TRUE(PutChain(served_->engine(), chain_).ok());
  RawClient client(served_->NewChannel());
  MutableBytes memory = client.arena().Take(client.arena().bytes())->bytes();
  std::vector<v1::BlockData> got;
  uint64_t size = chain_.objects[0].size() + 64;
  // Room for one block, for none, for two; the fourth comes as data.
  ASSERT_TRUE(
      client.Get(chain_, client.id(), {{64, size}, {size + 64, 100}, {100'000, 2 * size}}, &got).ok());
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[0].arena_range().offset(), 64u);
  EXPECT_EQ(got[1].arena_range().offset(), 100'032u);  // the next 64 bytes' boundary
  EXPECT_EQ(got[3].data().size(), chain_.objects[3].size());
  EXPECT_FALSE(got[3].has_arena_range());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(got[i].data().empty());
    Bytes placed = Bytes(memory).subspan(got[i].arena_range().offset(), got[i].arena_range().length());
    EXPECT_TRUE(std::ranges::equal(placed, chain_.objects[i]));
  }
}

TEST_F(ArenaCallsTest, GetByLayerAndDecodedGoThroughTheArenaToo) {
  ASSERT_TRUE(PutChain(served_->engine(), chain_).ok());
  RawClient client(served_->NewChannel());
  MutableBytes memory = client.arena().Take(client.arena().bytes())->bytes();
  for (bool decoded : {false, true}) {
    v1::GetRequest request;
    request.set_order(v1::GetRequest::BY_LAYER);
    if (decoded) request.mutable_decode()->set_dtype(v1::BF16);
    std::vector<v1::BlockData> by_data, by_arena;
    ASSERT_TRUE(client.Get(chain_, "", {}, &by_data, request).ok());
    ASSERT_TRUE(client.Get(chain_, client.id(), {{0, memory.size()}}, &by_arena, request).ok());
    ASSERT_EQ(by_arena.size(), by_data.size());
    for (size_t i = 0; i < by_data.size(); ++i) {
      EXPECT_EQ(by_arena[i].layer(), by_data[i].layer());
      EXPECT_EQ(by_arena[i].offset(), by_data[i].offset());
      ASSERT_EQ(by_arena[i].arena_range().length(), by_data[i].data().size());
      EXPECT_EQ(std::memcmp(memory.data() + by_arena[i].arena_range().offset(), by_data[i].data().data(),
                            by_data[i].data().size()),
                0);
    }
  }
}

TEST_F(ArenaCallsTest, WrongRangesOfAGetAreRefused) {
  ASSERT_TRUE(PutChain(served_->engine(), chain_).ok());
  RawClient client(served_->NewChannel());
  uint64_t all = client.arena().bytes();
  auto code = [&](const std::string& arena, const std::vector<std::pair<uint64_t, uint64_t>>& ranges) {
    std::vector<v1::BlockData> got;
    absl::Status status = client.Get(chain_, arena, ranges, &got);
    EXPECT_TRUE(got.empty() || status.ok());
    return status.code();
  };
  EXPECT_EQ(code(client.id(), {{0, all + 1}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), {{0, 10}, {all, 1}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), {{UINT64_MAX, 2}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client.id(), std::vector<std::pair<uint64_t, uint64_t>>(257, {0, 10})),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", {{0, 10}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("guess", {{0, 10}}), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(client.id(), {}), StatusCode::kOk);
}

TEST_F(ArenaCallsTest, BytesThatChangeWhileTheStoreLooksAreNeverStoredWrong) {
  RawClient client(served_->NewChannel());
  Bytes object = chain_.objects[0];
  AttachedArena::Range range = *client.arena().Take(object.size());
  auto* memory = reinterpret_cast<volatile uint8_t*>(range.bytes().data());
  std::atomic<bool> stop = false;
  std::thread scribbler([&] {
    std::mt19937 random(11);
    while (!stop) {
      size_t at = random() % object.size();
      memory[at] = static_cast<uint8_t>(memory[at] ^ 0x40);
      memory[at] = static_cast<uint8_t>(object[at]);
    }
  });
  int stored = 0, refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::memcpy(range.bytes().data(), object.data(), object.size());
    absl::Status put = client.Put(chain_, client.id(), ChunkAt(range.offset(), object.size()));
    if (!put.ok()) {
      EXPECT_EQ(put.code(), StatusCode::kDataLoss) << put;
      ++refused;
      continue;
    }
    ++stored;
    Gotten gotten = GetAll(served_->engine(), chain_.ns(), {{chain_.identities[0]}});
    ASSERT_EQ(gotten.misses[0], StatusCode::kOk);
    ASSERT_TRUE(std::ranges::equal(gotten.objects[0], object));
    ASSERT_EQ(*served_->engine().Delete(chain_.ns(), {{chain_.identities[0].key}}, true), 1u);
  }
  stop = true;
  scribbler.join();
  EXPECT_EQ(stored + refused, 300);
  EXPECT_EQ(served_->engine().Stats()->checksum_failures, 0u);
}

TEST_F(ArenaCallsTest, AnotherIdentitysArenaIsNone) {
  runtime::TemporaryFolder folder;
  auto line = [](const std::string& name) {
    return R"({"name": ")" + name + R"(", "role": "client", "tenant": ")" + name + R"(", "token_sha256": ")" +
           Sha256().Update(name).Finish().Hex() + "\"}\n";
  };
  StoreServicesOptions options;
  options.authenticator = *runtime::Authenticator::Open(folder.Write("ids", line("alice") + line("bob")));
  Start(options);
  RawClient alice(served_->NewChannel(), "alice"), bob(served_->NewChannel(), "bob");
  uint64_t size = chain_.objects[0].size();
  std::memcpy(alice.arena().Take(size)->bytes().data(), chain_.objects[0].data(), size);
  EXPECT_EQ(bob.Put(chain_, alice.id(), ChunkAt(0, size)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(alice.Put(chain_, alice.id(), ChunkAt(0, size)).code(), StatusCode::kOk);
  std::vector<v1::BlockData> got;
  EXPECT_EQ(bob.Get(chain_, alice.id(), {{0, size}}, &got).code(), StatusCode::kFailedPrecondition);
  auto stub = v1::KvStore::NewStub(served_->NewChannel());
  grpc::ClientContext context;
  v1::AttachArenaResponse response;
  auto stream = stub->AttachArena(&context, {});
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(ArenaCallsTest, TheArenaEndsWithItsCallOrItsConnection) {
  RawClient ended(served_->NewChannel()), disconnected(served_->NewChannel());
  ended.End();
  disconnected.Disconnect();
  AwaitNoArenas();
  EXPECT_EQ(ended.Put(chain_, ended.id(), ChunkAt(0, 100)).code(), StatusCode::kFailedPrecondition);
}

TEST_F(ArenaCallsTest, LimitsAreTold) {
  StoreServicesOptions options;
  options.arena.max_client_bytes = 1 << 20;
  Start(options);
  auto stub = v1::KvStore::NewStub(served_->NewChannel());
  for (auto [bytes, code] : {std::pair{uint64_t{0}, grpc::StatusCode::INVALID_ARGUMENT},
                             {uint64_t{2} << 20, grpc::StatusCode::RESOURCE_EXHAUSTED}}) {
    grpc::ClientContext context;
    v1::AttachArenaRequest request;
    request.set_bytes(bytes);
    v1::AttachArenaResponse response;
    auto stream = stub->AttachArena(&context, request);
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), code);
  }
}

TEST_F(ArenaCallsTest, AClientDoesWithoutWhereThereIsNone) {
  StoreServicesOptions options;
  options.arena.max_bytes = 0;
  Start(options);
  auto store = Client();
  EXPECT_EQ(store->arena(), nullptr);
  ASSERT_TRUE(PutChain(*store, chain_).ok());
  EXPECT_EQ(GetAll(*store, chain_.ns(), chain_.identities).objects, chain_.objects);
}

TEST_F(ArenaCallsTest, BlocksLargerThanTheArenaGoAsData) {
  auto store = Client(/*arena_bytes=*/8192);
  ASSERT_NE(store->arena(), nullptr);
  ASSERT_TRUE(PutChain(*store, chain_).ok());
  EXPECT_EQ(GetAll(*store, chain_.ns(), chain_.identities).objects, chain_.objects);
  EXPECT_TRUE(store->arena()->usable());
}

TEST_F(ArenaCallsTest, AReaderThatStopsLeavesTheArenaWhole) {
  SampleChain longer(SampleLayout(), 40, "tq:k4v4", 3);
  ASSERT_TRUE(PutChain(served_->engine(), longer).ok());
  auto store = Client(256 << 10);
  std::shared_ptr<AttachedArena> arena = store->arena();
  for (uint32_t stop_at : {0u, 1u, 20u, 39u}) {
    GetSink sink;
    sink.on_block = [&](uint32_t block, Bytes object) {
      EXPECT_TRUE(std::ranges::equal(object, longer.objects[block]));
      return block == stop_at ? absl::FailedPreconditionError("enough") : absl::OkStatus();
    };
    sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
    EXPECT_EQ(store->Get(longer.ns(), longer.identities, {}, sink).code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(store->arena(), arena);
    EXPECT_EQ(arena->free_bytes(), arena->bytes());
  }
}

TEST_F(ArenaCallsTest, AnAbandonedPutsRangesAreNotUsedAgain) {
  auto store = Client();
  std::shared_ptr<AttachedArena> first = store->arena();
  {
    auto session = *store->BeginPut(chain_.ns(), chain_.announces(), {});
    ASSERT_TRUE(session->Write(0, 0, chain_.objects[0]).ok());
  }
  EXPECT_FALSE(first->usable());
  EXPECT_NE(store->arena(), first);
  ASSERT_TRUE(PutChain(*store, chain_).ok());
  EXPECT_EQ(GetAll(*store, chain_.ns(), chain_.identities).objects, chain_.objects);
}

TEST_F(ArenaCallsTest, WholePutsWaitForRoomAndRawOnesAreEncoded) {
  auto store = Client(64 << 10);  // of three blocks, or less than one raw
  std::vector<PutBlock> blocks;
  SampleChain longer(SampleLayout(), 30, "tq:k4v4", 4);
  for (size_t i = 0; i < longer.identities.size(); ++i)
    blocks.push_back({longer.identities[i], longer.objects[i]});
  std::vector<PutOutcome> outcomes;
  ASSERT_TRUE(store->PutBlocks(longer.ns(), blocks, {}, &outcomes).ok());
  for (const PutOutcome& outcome : outcomes)
    EXPECT_TRUE(outcome.wanted && outcome.status.ok()) << outcome.status;
  EXPECT_EQ(store->arena()->free_bytes(), store->arena()->bytes());
  EXPECT_EQ(GetAll(*store, longer.ns(), longer.identities).objects, longer.objects);

  blocks.clear();
  for (size_t i = 0; i < chain_.identities.size(); ++i)
    blocks.push_back({chain_.identities[i], chain_.raw[i]});
  PutOptions encode;
  encode.encode = "tq:k4v4";
  ASSERT_TRUE(store->PutBlocks(chain_.ns(), blocks, encode, &outcomes).ok());
  EXPECT_EQ(GetAll(*store, chain_.ns(), chain_.identities).objects, chain_.objects);
}

TEST_F(ArenaCallsTest, ManyThreadsShareOneArena) {
  auto store = Client(512 << 10);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      SampleChain mine(SampleLayout(), 8, "tq:k4v4", 20 + t);
      for (int round = 0; round < 15; ++round) {
        if (!PutChain(*store, mine).ok()) ++wrong;
        wrong += GetAll(*store, mine.ns(), mine.identities).objects != mine.objects;
        if (!store->Delete(mine.ns(), mine.keys(), true).ok()) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store->arena()->free_bytes(), store->arena()->bytes());
}

// What the process below runs: a client with an arena in the middle of a Put.
TEST(ArenaChild, HoldsAnArenaUntilItIsKilled) {
  const char* address = std::getenv("QUIRE_ARENA_CHILD");
  if (address == nullptr) GTEST_SKIP() << "is run by ArenaCallsTest.AClientThatIsKilledLeavesNothing";
  SampleChain chain(SampleLayout(), 2);
  RemoteStoreOptions options;
  options.arena_bytes = 1 << 20;
  RemoteStore store(*runtime::NewChannel(address), options);
  ASSERT_TRUE(store.RegisterLayout(chain.layout).ok());
  auto session = *store.BeginPut(chain.ns(), chain.announces(), {});
  ASSERT_TRUE(session->Write(0, 0, chain.objects[0]).ok());
  ASSERT_TRUE(session->Commit(0).ok());
  ASSERT_TRUE(session->Write(1, 0, Bytes(chain.objects[1]).first(17'000)).ok());
  ASSERT_EQ(write(STDOUT_FILENO, "ready", 5), 5);
  while (true) pause();
}

TEST_F(ArenaCallsTest, AClientThatIsKilledLeavesNothing) {
  int out[2];
  ASSERT_EQ(pipe(out), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, out[0]);
  std::string program = "/proc/self/exe", filter = "--gtest_filter=ArenaChild.*",
              address = "QUIRE_ARENA_CHILD=" + served_->address();
  char* argv[] = {program.data(), filter.data(), nullptr};
  char* environment[] = {address.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr, argv, environment), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  std::string said;
  char bytes[256];
  while (said.find("ready") == std::string::npos) {
    ssize_t got = read(out[0], bytes, sizeof bytes);
    ASSERT_GT(got, 0) << said;
    said.append(bytes, static_cast<size_t>(got));
  }
  close(out[0]);
  EXPECT_GE(served_->arenas().used_bytes(), 1u << 20);
  EXPECT_EQ(served_->engine().Stats()->put_sessions, 1u);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  AwaitNoArenas();
  AwaitNoSessions(served_->engine());
  // What it had committed is there, of the other block nothing.
  EXPECT_EQ(StoredPrefix(served_->engine(), SampleChain(SampleLayout(), 2)), 1u);
}

}  // namespace
}  // namespace quire::store
