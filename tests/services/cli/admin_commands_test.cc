// quirectl's commands for running a store, against one that answers by script.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/runtime/server.h"
#include "services/store/wire/metadata.h"
#include "tests/services/cli/run.h"

namespace quire::cli {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Admin final : public v1::StoreAdmin::Service {
 public:
  uint64_t quota = 0;
  std::vector<std::string> asked;
  int verify_steps = 2;
  uint64_t verify_failures = 0;
  uint64_t lookups = 0;
  std::string authorization;  // of the last quota asked for

  grpc::Status Stats(grpc::ServerContext*, const v1::StatsRequest*, v1::StatsResponse* response) override {
    v1::TierStats* tier = response->add_tiers();
    tier->set_tier(v1::DISK);
    tier->set_capacity_bytes(4 << 20), tier->set_used_bytes(1 << 20), tier->set_raw_bytes(4 << 20);
    response->set_lookups(lookups += 10);
    response->set_hit_tokens(64 * lookups), response->set_miss_tokens(192 * lookups);
    response->set_version("7.8.9");
    return grpc::Status::OK;
  }
  grpc::Status GetQuota(grpc::ServerContext* context, const v1::GetQuotaRequest* request,
                        v1::Quota* response) override {
    asked.push_back("quota of " + request->tenant());
    for (auto [first, last] = context->client_metadata().equal_range("authorization"); first != last; ++first)
      authorization.assign(first->second.data(), first->second.size());
    response->set_bytes(quota);
    return grpc::Status::OK;
  }
  grpc::Status SetQuota(grpc::ServerContext*, const v1::Quota* request, v1::Quota* response) override {
    asked.push_back("set quota of " + request->tenant());
    quota = request->bytes();
    *response = *request;
    return grpc::Status::OK;
  }
  grpc::Status Drain(grpc::ServerContext* context, const v1::DrainRequest* request,
                     v1::DrainResponse*) override {
    asked.push_back("drain in " + std::to_string(request->deadline_ms()) + " ms");
    // The call's own deadline leaves the drain its time.
    EXPECT_GT(context->deadline(), std::chrono::system_clock::now() + std::chrono::seconds(40));
    return grpc::Status::OK;
  }
  grpc::Status DeleteTenant(grpc::ServerContext*, const v1::DeleteTenantRequest* request,
                            v1::DeleteTenantResponse* response) override {
    asked.push_back("delete " + request->tenant());
    response->set_blocks(12);
    return grpc::Status::OK;
  }
  grpc::Status Verify(grpc::ServerContext*, const v1::VerifyRequest* request,
                      grpc::ServerWriter<v1::VerifyResponse>* writer) override {
    asked.push_back("verify tier " + v1::Tier_Name(request->tier()) + " at " +
                    std::to_string(request->bytes_per_second()));
    for (int i = 1; i <= verify_steps; ++i) {
      v1::VerifyResponse response;
      response.set_blocks(static_cast<uint64_t>(10 * i)), response.set_bytes(static_cast<uint64_t>(2048 * i));
      response.set_progress(static_cast<double>(i) / verify_steps), response.set_failures(verify_failures);
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
};

class Events final : public v1::KvStore::Service {
 public:
  v1::WatchRequest watched;
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    watched = *request;
    if (request->from_sequence() == 1)
      return {grpc::StatusCode::OUT_OF_RANGE, "events before 5 are forgotten"};
    context->AddInitialMetadata(store::kWatchBegun, "1");
    writer->SendInitialMetadata();
    for (uint64_t i = 5; !context->IsCancelled(); ++i) {  // until the client has enough
      v1::WatchResponse event;
      event.set_sequence(i), event.set_kind(static_cast<v1::WatchResponse::Kind>(i % 4));
      event.set_key(std::string(32, static_cast<char>(i))), event.set_tier(v1::HOST), event.set_levels(2);
      event.set_fingerprint(std::string(32, 'f'));
      if (!writer->Write(event)) break;
    }
    return grpc::Status::OK;
  }
};

class AdminCommands : public testing::Test {
 protected:
  AdminCommands() { server_ = *runtime::Server::Start({}, {&admin_, &events_}); }
  ~AdminCommands() override { server_->Shutdown(std::chrono::milliseconds(0)); }
  Ran Run(std::vector<std::string> arguments, bool terminal = false) {
    arguments.insert(arguments.begin(), {"--store", server_->address()});
    return RunQuirectl(std::move(arguments), terminal);
  }

  Admin admin_;
  Events events_;
  std::unique_ptr<runtime::Server> server_;
};

TEST_F(AdminCommands, QuotasAreShownAndSet) {
  EXPECT_EQ(Run({"quota", "--tenant", "a"}).out, "no limit\n");
  EXPECT_EQ(Run({"quota", "--tenant", "a", "--set", "10GiB"}).out, "10737418240 bytes (10.00 GiB)\n");
  EXPECT_EQ(json::parse(Run({"--json", "quota", "--tenant", "a"}).out)["bytes"], uint64_t{10} << 30);
  EXPECT_EQ(Run({"quota", "--tenant", "a", "--set", "0"}).out, "no limit\n");
  EXPECT_THAT(admin_.asked, ElementsAre("quota of a", "set quota of a", "quota of a", "set quota of a"));
  EXPECT_NE(Run({"quota", "--set", "much"}).code, 0);
}

TEST_F(AdminCommands, TenantsAreDeletedAndStoresDrained) {
  EXPECT_EQ(Run({"delete-tenant", "--tenant", "b"}).out, "deleted 12 blocks\n");
  EXPECT_EQ(Run({"drain", "--deadline", "45"}).out, "drained\n");
  EXPECT_THAT(admin_.asked, ElementsAre("delete b", "drain in 45000 ms"));
}

TEST_F(AdminCommands, VerifyTellsWhatItFound) {
  Ran good = Run({"verify", "--tier", "disk", "--rate", "1MiB"});
  EXPECT_EQ(good.code, 0);
  EXPECT_EQ(good.out, "verified 20 blocks, 4.00 KiB; 0 failed and were dropped\n");
  EXPECT_THAT(admin_.asked, ElementsAre("verify tier DISK at 1048576"));
  EXPECT_THAT(Run({"verify"}, /*terminal=*/true).out, HasSubstr("\r 50.0 %  10 blocks"));
  admin_.verify_failures = 3;
  Ran bad = Run({"--json", "verify"});
  EXPECT_EQ(bad.code, 2);
  EXPECT_EQ(json::parse(bad.out)["failures"], 3);
  EXPECT_NE(Run({"verify", "--tier", "tape"}).code, 0);
}

TEST_F(AdminCommands, EventsArePrintedAsTheyCome) {
  Ran some = Run({"watch", "--tenant", "a", "--from", "5", "--count", "3"});
  EXPECT_EQ(some.code, 0) << some.err;
  EXPECT_THAT(some.out, HasSubstr("           5  degraded  0505"));
  EXPECT_THAT(some.out, HasSubstr("           7  removed   0707"));
  EXPECT_THAT(some.out, Not(HasSubstr("0808")));
  EXPECT_EQ(events_.watched.namespace_().tenant(), "a");
  EXPECT_EQ(events_.watched.from_sequence(), 5u);
  std::istringstream lines(Run({"--json", "watch", "--count", "2"}).out);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(json::parse(line)["sequence"], 5);
  EXPECT_EQ(json::parse(line)["tier"], "host");
  Ran old = Run({"watch", "--from", "1"});
  EXPECT_EQ(old.code, 1);
  EXPECT_THAT(old.err, HasSubstr("OUT_OF_RANGE: events before 5 are forgotten"));
}

TEST_F(AdminCommands, ATokenIsShown) {
  std::string token = testing::TempDir() + "/quirectl_token." + std::to_string(getpid());
  EXPECT_THAT(Run({"quota", "--token-file", token}).err, HasSubstr(token));
  std::ofstream(token) << "secret";
  EXPECT_EQ(Run({"quota", "--token-file", token}).code, 0);
  EXPECT_EQ(admin_.authorization, "Bearer secret");
  std::filesystem::remove(token);
}

TEST_F(AdminCommands, StatsAreWatchedLive) {
  Ran live = Run({"stats", "--watch", "0.05", "--count", "3"}, /*terminal=*/true);
  EXPECT_EQ(live.code, 0) << live.err;
  EXPECT_THAT(live.out, HasSubstr("\x1b[H\x1b[2Jquire-store 7.8.9"));
  EXPECT_THAT(live.out, HasSubstr("disk   [##########                              ]  25.0 % of 4.00 MiB"));
  EXPECT_THAT(live.out, HasSubstr("4.00 x smaller than raw"));
  EXPECT_THAT(live.out, HasSubstr("25.0 % since the last look"));
  EXPECT_EQ(admin_.lookups, 30u);
  Ran lines = Run({"stats", "--json", "--watch", "0.05", "--count", "2"});
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 2);
  EXPECT_THAT(lines.out, HasSubstr("\"version\":\"7.8.9\""));
}

}  // namespace
}  // namespace quire::cli
