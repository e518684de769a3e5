// The gRPC client against servers that misbehave: wrong bytes, wrong order, unavailable, restarted, killed.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// Answers every Get with a script, every Lookup with the next of `lookups`.
class Impostor final : public v1::KvStore::Service {
 public:
  std::vector<v1::GetResponse> get;
  std::vector<grpc::Status> lookups;
  std::atomic<int> registered{0}, looked_up{0}, gets{0};

  grpc::Status RegisterLayout(grpc::ServerContext*, const v1::RegisterLayoutRequest* request,
                              v1::RegisterLayoutResponse* response) override {
    ++registered;
    response->set_fingerprint(std::string(FromProto(request->layout())->Fingerprint().AsString()));
    return grpc::Status::OK;
  }
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest*, v1::LookupResponse*) override {
    size_t i = static_cast<size_t>(looked_up++);
    return i < lookups.size() ? lookups[i] : grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest*,
                   grpc::ServerWriter<v1::GetResponse>* writer) override {
    ++gets;
    for (const v1::GetResponse& response : get) writer->Write(response);
    return grpc::Status::OK;
  }
};

class RemoteStoreTest : public testing::Test {
 protected:
  RemoteStoreTest() : chain_(SampleLayout(), 2) {
    server_ = *runtime::Server::Start({}, {&impostor_});
    RemoteStoreOptions options;
    options.first_pause = std::chrono::milliseconds(1);
    store_ = std::make_unique<RemoteStore>(*runtime::NewChannel(server_->address()), options);
    EXPECT_TRUE(store_->RegisterLayout(chain_.layout).ok());
  }
  ~RemoteStoreTest() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  static v1::GetResponse Data(uint32_t block, uint64_t offset, Bytes bytes, uint64_t total) {
    v1::GetResponse response;
    response.mutable_data()->set_block(block);
    response.mutable_data()->set_offset(offset);
    response.mutable_data()->set_data(std::string(AsString(bytes)));
    response.mutable_data()->set_object_bytes(total);
    return response;
  }
  v1::GetResponse Object(uint32_t block, Bytes bytes) { return Data(block, 0, bytes, bytes.size()); }
  Gotten Get() { return GetAll(*store_, chain_.ns(), chain_.identities); }

  SampleChain chain_;
  Impostor impostor_;
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<RemoteStore> store_;
};

TEST_F(RemoteStoreTest, WrongBytesAreMisses) {
  std::vector<uint8_t> flipped = chain_.objects[0];
  flipped[flipped.size() - 20] ^= 1;
  impostor_.get = {Object(0, flipped), Object(1, chain_.objects[1])};
  Gotten gotten = Get();
  EXPECT_TRUE(gotten.status.ok()) << gotten.status;
  EXPECT_THAT(gotten.misses, ElementsAre(StatusCode::kDataLoss, StatusCode::kOk));
  EXPECT_EQ(gotten.objects[1], chain_.objects[1]);

  impostor_.get = {Object(0, chain_.objects[1]),
                   Object(1, std::vector<uint8_t>(3))};  // another block; garbage
  EXPECT_THAT(Get().misses, ElementsAre(StatusCode::kDataLoss, StatusCode::kDataLoss));
}

TEST_F(RemoteStoreTest, WrongStreamsAreErrors) {
  Bytes object = chain_.objects[0];
  auto expect_internal = [&](std::vector<v1::GetResponse> script) {
    impostor_.get = std::move(script);
    EXPECT_EQ(Get().status.code(), StatusCode::kInternal);
  };
  expect_internal({});
  expect_internal({Object(0, object)});
  expect_internal({Object(1, object)});
  expect_internal({Data(0, 16, object, object.size())});
  expect_internal({Data(0, 0, object, object.size() - 1)});
  expect_internal({Data(0, 0, object.first(10), UINT64_MAX)});
  expect_internal({Data(0, 0, {}, 0)});
  expect_internal({Object(0, object), Object(1, chain_.objects[1]), Object(2, object)});
  v1::GetResponse miss;
  miss.mutable_miss()->set_block(0);  // with code OK
  expect_internal({miss});
  miss.mutable_miss()->set_code(5);
  expect_internal({Data(0, 0, object.first(10), object.size()), miss});
}

TEST_F(RemoteStoreTest, TriesAgainWhereTheStoreWasUnavailableOnly) {
  grpc::Status unavailable(grpc::StatusCode::UNAVAILABLE, "later");
  impostor_.lookups = {unavailable, unavailable};
  EXPECT_TRUE(store_->Lookup(chain_.ns(), chain_.keys(), {}).ok());
  EXPECT_EQ(impostor_.looked_up, 3);
  impostor_.looked_up = 0;
  impostor_.lookups = {unavailable, unavailable, unavailable, unavailable};
  EXPECT_EQ(store_->Lookup(chain_.ns(), chain_.keys(), {}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(impostor_.looked_up, 3);
  impostor_.looked_up = 0;
  impostor_.lookups = {grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "no")};
  EXPECT_EQ(store_->Lookup(chain_.ns(), chain_.keys(), {}).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(impostor_.looked_up, 1);
}

TEST_F(RemoteStoreTest, TellsAStoreThatForgotTheLayout) {
  impostor_.lookups = {grpc::Status(grpc::StatusCode::NOT_FOUND, "call RegisterLayout first")};
  EXPECT_TRUE(store_->Lookup(chain_.ns(), chain_.keys(), {}).ok());
  EXPECT_EQ(impostor_.registered, 2);
  EXPECT_EQ(impostor_.looked_up, 2);
}

TEST_F(RemoteStoreTest, NobodyThereIsUnavailable) {
  std::string address = server_->address();
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_EQ(store_->Lookup(chain_.ns(), chain_.keys(), {}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(store_->Stats().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Get().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(store_->BeginPut(chain_.ns(), chain_.announces(), {}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(store_->Delete(chain_.ns(), chain_.keys(), false).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(store_->RegisterLayout(chain_.layout).status().code(), StatusCode::kUnavailable);
}

TEST(RemoteStoreDeadline, EndsAPutSessionThatTakesTooLong) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(), 1);
  RemoteStoreOptions options;
  options.stream_timeout = std::chrono::milliseconds(200);
  RemoteStore store(served.NewChannel(), options);
  ASSERT_TRUE(store.RegisterLayout(chain.layout).ok());
  auto session = store.BeginPut(chain.ns(), chain.announces(), {});
  AwaitNoSessions(served.engine());  // the session's time is over
  absl::Status status =
      session.ok() ? WriteAndCommit(**session, 0, chain.objects[0]).status() : session.status();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(UsedBytes(served.engine()), 0u);
}

// quire-store as a process of its own.
class StoreProcess {
 public:
  explicit StoreProcess(const std::string& listen) {
    int out[2];
    EXPECT_EQ(pipe(out), 0);
    const char* folder = std::getenv("QUIRE_BIN_DIR");
    std::string binary = std::string(folder ? folder : QUIRE_TEST_BIN_DIR) + "/quire-store";
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], 1);
      close(out[0]);
      execl(binary.c_str(), "quire-store", "--listen", listen.c_str(), "--host-bytes", "64MiB", "--log-level",
            "error", nullptr);
      _exit(127);
    }
    close(out[1]);
    FILE* lines = fdopen(out[0], "r");
    char line[256] = "";
    EXPECT_NE(fgets(line, sizeof(line), lines), nullptr) << binary;
    address_ = std::string(line).substr(std::string(line).rfind(' ') + 1);
    address_.pop_back();  // the newline
    fclose(lines);
  }
  ~StoreProcess() {
    if (pid_ > 0) Stop(SIGKILL);
  }
  // Sends the signal, waits for the end; the exit code, or −signal.
  int Stop(int signal) {
    int status = 0;
    kill(pid_, signal);
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  const std::string& address() const { return address_; }

 private:
  pid_t pid_ = -1;
  std::string address_;
};

TEST(KilledStore, InTheMiddleOfAGetIsUnavailable) {
  StoreProcess process("127.0.0.1:0");
  RemoteStore store(*runtime::NewChannel(process.address()));
  SampleChain chain(SampleLayout(16), 40, "raw");  // 20 MiB: more than the transport buffers
  ASSERT_TRUE(PutChain(store, chain).ok());
  int blocks = 0;
  GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes object) {
    if (++blocks == 1) process.Stop(SIGKILL);
    EXPECT_TRUE(std::equal(object.begin(), object.end(), chain.objects[i].begin(), chain.objects[i].end()));
    return absl::OkStatus();
  };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  absl::Status status = store.Get(chain.ns(), chain.identities, {}, sink);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_LT(blocks, 40);
}

TEST(KilledStore, InTheMiddleOfAPutIsUnavailable) {
  StoreProcess process("127.0.0.1:0");
  RemoteStore store(*runtime::NewChannel(process.address()));
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(store.RegisterLayout(chain.layout).ok());
  auto session = *store.BeginPut(chain.ns(), chain.announces(), {});
  ASSERT_TRUE(WriteAndCommit(*session, 0, chain.objects[0]).ok());
  process.Stop(SIGKILL);
  EXPECT_EQ(WriteAndCommit(*session, 1, chain.objects[1]).status().code(), StatusCode::kUnavailable);
}

TEST(KilledStore, DrainsOnSigterm) {
  StoreProcess process("127.0.0.1:0");
  EXPECT_TRUE(RemoteStore(*runtime::NewChannel(process.address())).Stats().ok());
  EXPECT_EQ(process.Stop(SIGTERM), 0);
}

TEST(KilledStore, ComesBackEmptyAndIsToldTheLayoutAgain) {
  auto process = std::make_unique<StoreProcess>("127.0.0.1:0");
  std::string address = process->address();
  RemoteStoreOptions options;
  options.max_tries = 1000;  // a new process takes its time
  options.call_timeout = std::chrono::seconds(60);
  RemoteStore store(*runtime::NewChannel(address), options);
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(store, chain).ok());
  process->Stop(SIGKILL);
  process = std::make_unique<StoreProcess>(address);
  EXPECT_EQ(StoredPrefix(store, chain), 0u);
  ASSERT_TRUE(PutChain(store, chain).ok());
  EXPECT_EQ(GetAll(store, chain.ns(), chain.identities).objects, chain.objects);
}

}  // namespace
}  // namespace quire::store
