// A store that dies between any two steps of a Put, and starts again on the same disk: what it had
// acknowledged is there where the disk had it first, nothing is there by halves, and the Put can be repeated.
#include <sys/wait.h>

#include <cstdlib>

#include "gmock/gmock.h"
#include "services/runtime/server.h"
#include "services/store/client/admin_client.h"
#include "services/store/client/remote_store.h"
#include "services/store/tier/faults.h"
#include "tests/services/store/sample_chain.h"
#include "tests/services/store/store_process.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;

struct Case {
  const char* point;
  bool write_through;
};
std::string CaseName(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.point) + (info.param.write_through ? "_write_through" : "_write_back");
}

class CrashPoints : public testing::TestWithParam<Case> {
 protected:
  void Start() {
    const char* bin = std::getenv("QUIRE_BIN_DIR");
    std::vector<std::string> arguments = {
        "--listen",     "127.0.0.1:0", "--host-bytes",    "32MiB",
        "--disk-bytes", "256MiB",      "--disk-folder",   folder_.path() + "/disk",
        "--disk-sync",  "sync",        "--enable-faults", "--log-level",
        "critical"};
    if (GetParam().write_through) arguments.push_back("--write-through");
    auto process =
        StoreProcess::Start(std::string(bin ? bin : QUIRE_TEST_BIN_DIR) + "/quire-store", arguments);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    channel_ = *runtime::NewChannel(process_->address());
    store_ = std::make_unique<RemoteStore>(channel_);
    ASSERT_TRUE(store_->RegisterLayout(chain_.layout).ok());
  }
  void Arm() {
    ASSERT_TRUE(AdminClient(channel_, std::chrono::seconds(10)).InjectFault(GetParam().point, 1).ok());
  }
  // Puts block after block until the store dies, two of them before it is armed; how many were acknowledged.
  uint32_t PutUntilItDies() {
    bool at_announce = std::string(GetParam().point) == "crash_after_announce";
    if (at_announce) Arm();
    auto session = store_->BeginPut(chain_.ns(), chain_.announces(), {});
    if (!session.ok()) return 0;
    EXPECT_FALSE(at_announce);
    uint32_t acknowledged = 0;
    for (uint32_t i : (*session)->wanted()) {
      if (i == 2) Arm();
      if (!WriteAndCommit(**session, i, chain_.objects[i]).ok()) break;
      ++acknowledged;
    }
    return acknowledged;
  }
  // The first `promised` blocks are there; the others are, wholly, or are not.
  void ExpectWholeOrMissing(const SampleChain& chain, size_t promised) {
    Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
    ASSERT_TRUE(gotten.status.ok()) << gotten.status;
    for (size_t i = 0; i < chain.objects.size(); ++i) {
      if (i < promised) EXPECT_EQ(gotten.misses[i], StatusCode::kOk) << "acknowledged and lost: " << i;
      if (gotten.misses[i] == StatusCode::kOk) {
        EXPECT_EQ(gotten.objects[i], chain.objects[i]) << i;
      } else {
        EXPECT_EQ(gotten.misses[i], StatusCode::kNotFound) << i;
      }
    }
    LookupOptions all;
    all.all = true;
    for (const BlockState& state : store_->Lookup(chain.ns(), chain.keys(), all)->blocks)
      EXPECT_NE(state.state, BlockState::kPending);
  }

  TempFolder folder_;
  SampleChain before_{SampleLayout(), 3, "tq:k4v4", 1}, chain_{SampleLayout(), 5, "tq:k4v4", 2};
  std::unique_ptr<StoreProcess> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<RemoteStore> store_;
};

TEST_P(CrashPoints, LeaveNothingByHalves) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_TRUE(PutChain(*store_, before_).ok());
  uint32_t acknowledged = PutUntilItDies();
  if (HasFatalFailure()) return;
  ASSERT_EQ(process_->AwaitEnd(), FaultPoints::kCrashExitCode);

  ASSERT_NO_FATAL_FAILURE(Start());
  bool durable = GetParam().write_through;
  ExpectWholeOrMissing(before_, durable ? before_.objects.size() : 0);
  ExpectWholeOrMissing(chain_, durable ? acknowledged : 0);
  EXPECT_EQ(store_->Stats()->checksum_failures, 0u);
  ASSERT_TRUE(PutChain(*store_, before_).ok());
  ASSERT_TRUE(PutChain(*store_, chain_).ok());
  ExpectWholeOrMissing(before_, before_.objects.size());
  ExpectWholeOrMissing(chain_, chain_.objects.size());
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const char* point :
       {"crash_after_announce", "crash_after_room", "crash_amid_bytes", "crash_after_stage",
        "crash_after_verify", "crash_before_disk_commit", "crash_amid_disk_commit", "crash_after_disk_commit",
        "crash_after_index", "crash_before_answer", "crash_after_answer"}) {
    for (bool write_through : {true, false}) cases.push_back({point, write_through});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(EveryStep, CrashPoints, testing::ValuesIn(AllCases()), CaseName);

// No point is forgotten above: there are as many as the store knows.
TEST(CrashPointNames, AreAllTried) {
  size_t known = 0;
  for (size_t i = 0; i < kFaults; ++i) known += FaultName(static_cast<Fault>(i)).starts_with("crash_");
  EXPECT_EQ(AllCases().size(), 2 * known);
}

}  // namespace
}  // namespace quire::store
