// Watch, over a real server: what comes, in which order, to whom, and what a reader is told that cannot go
// on.
#include <thread>

#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/client/event_stream.h"
#include "services/store/client/remote_store.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using Kind = WatchedEvent::Kind;

class WatchTest : public testing::Test {
 protected:
  WatchTest() : chain_(SampleLayout(), 3) { Start(); }
  void Start(const LocalStoreOptions& options = SmallStore(), StoreServicesOptions services = {}) {
    served_ = std::make_unique<ServedStore>(options, services);
    channel_ = served_->NewChannel();
  }
  absl::StatusOr<std::unique_ptr<EventStream>> Open(const WatchOptions& options) {
    return EventStream::Open(channel_, options);
  }
  std::unique_ptr<EventStream> Watch(const WatchOptions& options) {
    auto stream = Open(options);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *std::move(stream) : nullptr;
  }
  LocalStore& engine() { return served_->engine(); }

  SampleChain chain_;
  std::unique_ptr<ServedStore> served_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(WatchTest, TellsWhatIsStoredAndRemoved) {
  auto stream = Watch({"a"});
  ASSERT_TRUE(PutChain(engine(), chain_, "a").ok());
  ASSERT_EQ(*engine().Delete(chain_.ns("a"), {{chain_.identities[2].key}}, false), 1u);
  for (uint32_t i = 0; i < 3; ++i) {
    WatchedEvent event = *stream->Next();
    EXPECT_EQ(event.sequence, i + 1);
    EXPECT_NE(event.run, 0u);
    EXPECT_EQ(event.kind, Kind::kStored);
    EXPECT_EQ(event.key, chain_.identities[i].key);
    EXPECT_EQ(event.fingerprint, chain_.fingerprint);
    EXPECT_EQ(event.tier, Tier::kHost);
    EXPECT_EQ(event.levels, 3u);
  }
  WatchedEvent removed = *stream->Next();
  EXPECT_EQ(removed.sequence, 4u);
  EXPECT_EQ(removed.kind, Kind::kRemoved);
  EXPECT_EQ(removed.key, chain_.identities[2].key);
  EXPECT_EQ(removed.levels, 0u);
}

TEST_F(WatchTest, ReplaysAndGoesOn) {
  ASSERT_TRUE(PutChain(engine(), chain_, "a").ok());
  auto stream = Watch({"a", std::nullopt, 2});
  WatchedEvent event = *stream->Next();
  EXPECT_EQ(event.sequence, 2u);
  EXPECT_EQ(event.key, chain_.identities[1].key);
  EXPECT_EQ(stream->Next()->sequence, 3u);
  ASSERT_EQ(*engine().Delete(chain_.ns("a"), chain_.keys(), false), 3u);
  EXPECT_EQ(stream->Next()->kind, Kind::kRemoved);
  // Another goes on where this one ended.
  stream = Watch({"a", std::nullopt, 5, event.run});
  EXPECT_EQ(stream->Next()->sequence, 5u);
  EXPECT_EQ(stream->Next()->sequence, 6u);
}

TEST_F(WatchTest, TellsEvictionsAndDamage) {
  LocalStoreOptions options = SmallStore(1 << 20);
  options.enable_faults = true;
  options.floor_levels = kMaxLevels;  // blocks go whole
  Start(options);
  ASSERT_TRUE(PutChain(engine(), chain_, "a").ok());
  auto stream = Watch({"a"});
  ASSERT_TRUE(engine().InjectFault("corrupt_byte", 1).ok());
  EXPECT_EQ(GetAll(engine(), chain_.ns("a"), {{chain_.identities[2]}}).misses[0], StatusCode::kDataLoss);
  WatchedEvent event = *stream->Next();
  EXPECT_EQ(event.kind, Kind::kRemoved);
  EXPECT_EQ(event.key, chain_.identities[2].key);
  // As many blocks of the same size as there is room for: the others go.
  SampleChain larger(SampleLayout(), static_cast<uint32_t>((1 << 20) / (chain_.objects[1].size() + 64)),
                     "tq:k4v4", 2);
  ASSERT_TRUE(PutChain(engine(), larger, "a").ok());
  do {
    event = *stream->Next();
  } while (event.kind == Kind::kStored);
  EXPECT_EQ(event.kind, Kind::kRemoved);
  EXPECT_EQ(event.key, chain_.identities[1].key);
}

TEST_F(WatchTest, ATenantSeesItsOwnEventsAndNumbersOnly) {
  auto a = Watch({"a"});
  ASSERT_TRUE(PutChain(engine(), chain_, "b").ok());
  ASSERT_TRUE(PutChain(engine(), chain_, "a").ok());
  EXPECT_EQ(a->Next()->sequence, 1u);
  EXPECT_EQ(Watch({"b", std::nullopt, 3})->Next()->sequence, 3u);
}

TEST_F(WatchTest, ALayoutMayBeAskedFor) {
  SampleChain other(SampleLayout(3), 1);
  auto stream = Watch({"", other.fingerprint});
  ASSERT_TRUE(PutChain(engine(), chain_).ok());
  ASSERT_TRUE(PutChain(engine(), other).ok());
  WatchedEvent event = *stream->Next();
  EXPECT_EQ(event.fingerprint, other.fingerprint);
  EXPECT_EQ(event.sequence, 4u);
}

TEST_F(WatchTest, WhatIsGoneOrNotToComeIsOutOfRange) {
  ASSERT_TRUE(PutChain(engine(), chain_).ok());
  absl::Status status = Open({"", std::nullopt, 5}).status();
  EXPECT_EQ(status.code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the next is 4"));
  status = Open({"", std::nullopt, 1, engine().events().run() ^ 1}).status();
  EXPECT_EQ(status.code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("restarted"));

  // Many events later, the first are not kept any more.
  uint32_t tenant = *engine().TenantToWatch("");
  for (int i = 0; i < 40'000; ++i) engine().events().Append(tenant, {chain_.keys()[0], 0});
  status = Open({"", std::nullopt, 1}).status();
  EXPECT_EQ(status.code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the oldest kept is "));
}

TEST_F(WatchTest, AReaderThatDoesNotReadIsToldInTheEnd) {
  auto stream = Watch({""});
  uint32_t tenant = *engine().TenantToWatch("");
  ASSERT_TRUE(engine().RegisterLayout(chain_.layout).ok());
  // More than the connection and the ring hold together.
  for (int i = 0; i < 2'000'000; ++i) engine().events().Append(tenant, {chain_.keys()[0], 0});
  absl::StatusOr<WatchedEvent> event = stream->Next();
  uint64_t expected = 1;
  while (event.ok()) {
    ASSERT_EQ(event->sequence, expected++);  // no gap before the end
    event = stream->Next();
  }
  EXPECT_EQ(event.status().code(), StatusCode::kOutOfRange);
}

TEST_F(WatchTest, EndsWhenItsClientEndsIt) {
  auto stream = Watch({""});
  std::thread other([&] { stream->Cancel(); });
  EXPECT_EQ(stream->Next().status().code(), StatusCode::kCancelled);
  other.join();
}

TEST_F(WatchTest, NoMoreThanAllowedAtATime) {
  StoreServicesOptions services;
  services.max_watchers = 2;
  Start(SmallStore(), services);
  auto first = Watch({""}), second = Watch({""});
  EXPECT_EQ(Open({""}).status().code(), StatusCode::kResourceExhausted);
  first.reset();
  while (!Open({""}).ok()) std::this_thread::yield();
}

TEST_F(WatchTest, MalformedRequestsAreRefused) {
  EXPECT_EQ(Open({std::string(257, 't')}).status().code(), StatusCode::kInvalidArgument);
  auto stub = v1::KvStore::NewStub(channel_);
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.mutable_namespace_()->set_fingerprint("short");
  auto stream = stub->Watch(&context, request);
  v1::WatchResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace quire::store
