// The client against real servers that are there, absent, silent, protected, restarted.
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "services/store/redis/client.h"
#include "tests/services/store/redis/redis_server.h"

namespace quire::store::redis {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using testing::HasSubstr;
using Type = Reply::Type;

ClientOptions OptionsFor(const std::string& address) {
  ClientOptions options;
  options.addresses = {address};
  options.timeout = milliseconds(5000);
  options.last_pause = milliseconds(50);
  return options;
}

std::unique_ptr<Client> Connect(const ClientOptions& options) {
  auto client = Client::Create(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// The outcome of one PING: the status, or that of an error reply.
absl::Status Ping(Client& client, milliseconds timeout = milliseconds(5000)) {
  Request request;
  request.command = Command({"PING"});
  client.Execute({&request, 1}, Clock::now() + timeout);
  return request.status.ok() ? request.reply.status() : request.status;
}

std::vector<uint8_t> Pattern(size_t bytes, uint32_t seed) {
  std::vector<uint8_t> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>((i * 2654435761u + seed) >> 13);
  return out;
}

// Sets values and gets them back into place, all pipelined.
void RoundTrip(Client& client, size_t values, size_t bytes) {
  std::vector<std::vector<uint8_t>> in, out(values, std::vector<uint8_t>(bytes));
  std::vector<std::string> keys;
  std::vector<Request> sets(values), gets(values);
  for (size_t i = 0; i < values; ++i) {
    in.push_back(Pattern(bytes, static_cast<uint32_t>(i)));
    keys.push_back(absl::StrCat("value", i));
    sets[i].command = Command({"SET", keys[i]}, 2, in[i]);
    gets[i].command = Command({"GET", keys[i]});
    gets[i].into = out[i];
  }
  client.Execute(sets, Clock::now() + milliseconds(20'000));
  for (const Request& set : sets) ASSERT_TRUE(set.status.ok() && set.reply.text == "OK") << set.status;
  client.Execute(gets, Clock::now() + milliseconds(20'000));
  for (size_t i = 0; i < values; ++i) {
    ASSERT_TRUE(gets[i].status.ok()) << gets[i].status;
    EXPECT_EQ(gets[i].reply.type, Type::kPlaced);
    EXPECT_TRUE(in[i] == out[i]) << "value " << i;
  }
}

TEST(RedisClient, MovesValuesOverTcpAndUnixSockets) {
  RedisServer server;
  for (const std::string& address : {server.address(), server.unix_address()}) {
    ClientOptions options = OptionsFor(address);
    options.window_bytes = 1 << 20;
    auto client = Connect(options);
    RoundTrip(*client, 40, 300'000);
    RoundTrip(*client, 3, 5 << 20);
    RoundTrip(*client, 2000, 100);
    EXPECT_EQ(client->counters().broken, 0u);
  }
}

TEST(RedisClient, ManyThreadsShareItsConnections) {
  RedisServer server;
  auto client = Connect(OptionsFor(server.address()));
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        std::string key = absl::StrCat("k", t), value = absl::StrCat(t, "-", i);
        std::vector<Request> batch(2);
        batch[0].command = Command({"SET", key, value});
        batch[1].command = Command({"GET", key});
        client->Execute(batch, Clock::now() + milliseconds(5000));
        ASSERT_EQ(batch[1].reply.text, value);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(RedisClient, AsksForTheDatabaseAndNamesItself) {
  RedisServer server;
  ClientOptions options = OptionsFor(server.address());
  options.database = 3;
  options.client_name = "quire-test";
  auto client = Connect(options);
  EXPECT_EQ(Ask(*client, {"SET", "here", "1"}).text, "OK");
  EXPECT_EQ(Ask(*client, {"CLIENT", "GETNAME"}).text, "quire-test");
  auto other = ClientOf(server.address());
  EXPECT_EQ(Ask(*other, {"DBSIZE"}).integer, 0);
}

TEST(RedisClient, LogsInByPasswordAndByUser) {
  TempFolder folder;
  std::string good = WriteFile(folder, "good", "s3cret\n"), bad = WriteFile(folder, "bad", "guess\n");
  std::string reader = WriteFile(folder, "reader", "r3ader");
  RedisServer server({.arguments = {"--requirepass", "s3cret"}});
  ClientOptions options = OptionsFor(server.address());
  EXPECT_EQ(Ping(*Connect(options)).code(), StatusCode::kUnauthenticated);
  options.password_file = bad;
  EXPECT_EQ(Ping(*Connect(options)).code(), StatusCode::kUnauthenticated);
  options.password_file = good;
  auto client = Connect(options);
  EXPECT_TRUE(Ping(*client).ok());
  EXPECT_EQ(Ask(*client, {"SET", "k", "v"}).text, "OK");

  EXPECT_EQ(Ask(*client, {"ACL", "SETUSER", "reader", "on", ">r3ader", "~*", "+@read", "+ping"}).text, "OK");
  options.user = "reader";
  options.password_file = reader;
  auto user = Connect(options);
  EXPECT_EQ(Ask(*user, {"GET", "k"}).text, "v");
  EXPECT_EQ(Ask(*user, {"SET", "k", "w"}).status().code(), StatusCode::kPermissionDenied);
}

TEST(RedisClient, TakesANewPasswordFromItsFile) {
  TempFolder folder;
  std::string file = WriteFile(folder, "password", "old\n");
  RedisServer server({.arguments = {"--requirepass", "new"}});
  ClientOptions options = OptionsFor(server.address());
  options.password_file = file;
  auto client = Connect(options);
  EXPECT_EQ(Ping(*client).code(), StatusCode::kUnauthenticated);
  WriteFile(folder, "password", "new\n");
  EXPECT_TRUE(Eventually([&] { return Ping(*client).ok(); }));
}

// A CA, a server's certificate for 127.0.0.1 and for a name, a client's; made by openssl as an operator
// would.
class Certificates {
 public:
  Certificates() {
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout "
        "ca.key -out ca.pem");
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other-ca -keyout "
        "other.key -out other.pem");
    WriteFile(folder_, "ip.ext", "subjectAltName=IP:127.0.0.1\n");
    WriteFile(folder_, "name.ext", "subjectAltName=DNS:redis.example\n");
    Sign("server", "ip.ext");
    Sign("named", "name.ext");
    Sign("client", "name.ext");
  }
  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }
  std::vector<std::string> ServerArguments(const std::string& name) const {
    return {"--tls-cert-file",   file(name + ".pem"),  "--tls-key-file",
            file(name + ".key"), "--tls-ca-cert-file", file("ca.pem")};
  }

 private:
  void Run(const std::string& arguments) const {
    std::string command = "cd " + folder_.path() + " && openssl " + arguments + " >openssl.log 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
  void Sign(const std::string& name, const std::string& extensions) const {
    Run(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name, " -keyout ",
                     name, ".key -out ", name, ".csr"));
    Run(absl::StrCat("x509 -req -in ", name,
                     ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ", extensions, " -out ",
                     name, ".pem"));
  }
  TempFolder folder_;
};

TEST(RedisClient, SpeaksTlsAndChecksWhoAnswers) {
  Certificates certificates;
  RedisServer server({.arguments = certificates.ServerArguments("server"), .tls = true});
  ClientOptions options = OptionsFor(server.address());
  options.tls_ca = certificates.file("ca.pem");
  // The server wants a certificate of its clients, as it does unless told otherwise.
  absl::Status refused = Ping(*Connect(options));
  EXPECT_EQ(refused.code(), StatusCode::kUnavailable) << refused;
  options.tls_certificate = certificates.file("client.pem");
  options.tls_key = certificates.file("client.key");
  auto client = Connect(options);
  ASSERT_TRUE(Ping(*client).ok()) << Ping(*client);
  RoundTrip(*client, 10, 2 << 20);

  options.tls_ca = certificates.file("other.pem");
  absl::Status wrong_ca = Ping(*Connect(options));
  EXPECT_EQ(wrong_ca.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(wrong_ca.message()), HasSubstr("certificate verify failed"));

  RedisServer named({.arguments = certificates.ServerArguments("named"), .tls = true});
  ClientOptions by_address = options;
  by_address.addresses = {named.address()};
  by_address.tls_ca = certificates.file("ca.pem");
  absl::Status wrong_name = Ping(*Connect(by_address));
  EXPECT_THAT(std::string(wrong_name.message()), HasSubstr("certificate verify failed"));

  // TLS to a server without it, and none to one with it.
  RedisServer plain;
  ClientOptions to_plain = options;
  to_plain.addresses = {"rediss://" + plain.address()};
  to_plain.timeout = milliseconds(300);
  EXPECT_EQ(Ping(*Connect(to_plain)).code(), StatusCode::kUnavailable);
  ClientOptions to_tls = OptionsFor(absl::StrCat("127.0.0.1:", server.port()));
  to_tls.timeout = milliseconds(300);
  EXPECT_EQ(Ping(*Connect(to_tls)).code(), StatusCode::kUnavailable);
}

TEST(RedisClient, RefusesOptionsThatCannotWork) {
  auto code = [](const std::function<void(ClientOptions&)>& change) {
    ClientOptions options = OptionsFor("127.0.0.1:1");
    change(options);
    return Client::Create(options).status().code();
  };
  EXPECT_EQ(code([](ClientOptions&) {}), StatusCode::kOk);
  for (const auto& change : std::vector<std::function<void(ClientOptions&)>>{
           [](ClientOptions& o) { o.addresses.clear(); },
           [](ClientOptions& o) {
             o.addresses = {"a", "b"};
           },
           [](ClientOptions& o) { o.addresses = {"h:x"}; },
           [](ClientOptions& o) { o.password_file = "/nowhere"; }, [](ClientOptions& o) { o.user = "u"; },
           [](ClientOptions& o) { o.tls_ca = "/nowhere"; }, [](ClientOptions& o) { o.connections = 0; },
           [](ClientOptions& o) { o.addresses = {"rediss://h"}, o.tls_ca = "/nowhere"; },
           [](ClientOptions& o) { o.addresses = {"rediss://h"}, o.tls_key = "/nowhere"; },
           [](ClientOptions& o) { o.cluster = true, o.database = 1; },
           [](ClientOptions& o) { o.cluster = true, o.addresses = {"unix:/a"}; },
           [](ClientOptions& o) {
             o.cluster = true, o.addresses = {"a:1", "rediss://b:1"};
           }}) {
    EXPECT_EQ(code(change), StatusCode::kInvalidArgument);
  }
}

TEST(RedisClient, AnAbsentServerIsUnavailableAtOnceAndFoundWhenItComes) {
  RedisServer server;
  server.Kill();
  auto client = Connect(OptionsFor(server.address()));
  EXPECT_EQ(Ping(*client).code(), StatusCode::kUnavailable);
  auto before = Clock::now();
  absl::Status status = Ping(*client);
  EXPECT_LT(Clock::now() - before, milliseconds(1000));
  EXPECT_THAT(std::string(status.message()), HasSubstr(server.address()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused"));
  server.Restart();
  EXPECT_TRUE(Eventually([&] { return Ping(*client).ok(); }));
}

TEST(RedisClient, AServerThatDiesFailsWhatIsUnderWay) {
  RedisServer server;
  auto client = Connect(OptionsFor(server.address()));
  ASSERT_TRUE(Ping(*client).ok());
  Request blocked;
  blocked.command = Command({"BLPOP", "nothing", "0"});
  std::thread waiter([&] { client->Execute({&blocked, 1}, Clock::now() + milliseconds(60'000)); });
  auto admin = ClientOf(server.address());
  EXPECT_TRUE(Eventually([&] {
    return Ask(*admin, {"INFO", "clients"}).text.find("blocked_clients:1") != std::string::npos;
  }));
  server.Kill();
  waiter.join();
  EXPECT_EQ(blocked.status.code(), StatusCode::kUnavailable) << blocked.status;
  server.Restart();
  EXPECT_TRUE(Eventually([&] { return Ping(*client).ok(); }));
  EXPECT_GE(client->counters().broken, 1u);
}

TEST(RedisClient, AHalfOpenServerCostsADeadlineAndNoMore) {
  RedisServer server;
  ClientOptions options = OptionsFor(server.address());
  options.timeout = milliseconds(300);
  auto client = Connect(options);
  ASSERT_TRUE(Ping(*client).ok());
  server.Stop();
  std::vector<uint8_t> value = Pattern(4 << 20, 1);
  Request set;
  set.command = Command({"SET", "k"}, 2, value);
  auto before = Clock::now();
  client->Execute({&set, 1}, Clock::now() + milliseconds(200));
  EXPECT_EQ(set.status.code(), StatusCode::kDeadlineExceeded) << set.status;
  EXPECT_GE(Clock::now() - before, milliseconds(200));
  EXPECT_LT(Clock::now() - before, milliseconds(3000));
  server.Continue();
  EXPECT_TRUE(Eventually([&] { return Ping(*client).ok(); }));
}

TEST(RedisClient, KeepaliveFindsAHalfOpenConnectionThatNobodyUses) {
  RedisServer server;
  ClientOptions options = OptionsFor(server.address());
  options.timeout = milliseconds(100);
  options.keepalive = milliseconds(50);
  options.connections = 1;
  auto client = Connect(options);
  ASSERT_TRUE(Ping(*client).ok());
  server.Stop();
  EXPECT_TRUE(Eventually([&] { return client->counters().timeouts >= 1; }));
  EXPECT_TRUE(Eventually([&] { return client->counters().failed_connects >= 1; }));
  auto before = Clock::now();
  EXPECT_EQ(Ping(*client).code(), StatusCode::kUnavailable);  // known by now: no waiting
  EXPECT_LT(Clock::now() - before, milliseconds(2000));
  server.Continue();
  EXPECT_TRUE(Eventually([&] { return Ping(*client).ok(); }));
}

TEST(RedisClient, AnIdleConnectionThatTheServerClosedIsReplaced) {
  RedisServer server;
  ClientOptions options = OptionsFor(server.address());
  options.connections = 1;
  auto client = Connect(options);
  ASSERT_TRUE(Ping(*client).ok());
  auto admin = ClientOf(server.address());
  EXPECT_GE(Ask(*admin, {"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}).integer, 1);
  EXPECT_TRUE(Eventually([&] { return client->counters().connects >= 2; }));
  EXPECT_TRUE(Ping(*client).ok());
}

TEST(RedisClient, EndsWhileConnectingAndWhileDown) {
  RedisServer server;
  for (int i = 0; i < 50; ++i) Connect(OptionsFor(server.address()));
  server.Kill();
  for (int i = 0; i < 50; ++i) Connect(OptionsFor(server.address()));
  Connect(OptionsFor("no-such-host.invalid:1"));
}

}  // namespace
}  // namespace quire::store::redis
