// A store that is killed again and again while it writes under `sync`: whatever it acknowledged is there,
// equal to the byte, and nothing is there by halves.
//
// The test runs itself as the child (KillChild, below), which opens the tier, checks everything that the
// parent was told so far against what it finds, and then writes, replaces, drops and removes until it is
// killed. It says each thing on its standard output in one write: "open", then "done n v" when object n is at
// least at version v, and "gone n" before it removes n.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/store/disk/disk_tier.h"
#include "tests/services/store/sample_object.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

constexpr uint32_t kObjects = 120;
constexpr uint32_t kWriters = 3;
constexpr int kKills = 100;
constexpr const char* kFolderVariable = "QUIRE_KILL_FOLDER";

// Object n at a version, which its record tells (as its priority).
SampleObject At(uint32_t n, uint32_t version) {
  SampleObject o = MakeSample(n, 2000 + (n * 7919 + version * 104'729) % 60'000, version % 64);
  o.record.priority = static_cast<int32_t>(version);
  return o;
}

DiskTierOptions SyncOptions(const std::string& folder, bool direct_io) {
  DiskTierOptions options;
  options.folder = folder;
  options.capacity_bytes = 1 << 30;
  options.sync = DiskSync::kSync;
  options.direct_io = direct_io;
  options.write_buffer_bytes =
      2 << 20;  // so that buffers are written out, and files rewritten, when it strikes
  return options;
}

void Say(const std::string& line) {
  std::string whole = line + "\n";
  // One write: lines of several threads do not mix, and a line is there wholly or not at all.
  if (write(STDOUT_FILENO, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) _exit(3);
}

// What must be there: an object's version, at least; absent: it may be gone.
using Promises = std::map<uint32_t, uint32_t>;

// Versions found. Anything that is not whole and equal to what was written at its version fails.
std::map<uint32_t, uint32_t> CheckAll(DiskTier& tier, const Promises& promises) {
  std::map<uint32_t, ObjectRecord> found;
  absl::Status status = tier.Scan([&](const ObjectName& name, const ObjectRecord& record) {
    EXPECT_EQ(name, At(record.index, static_cast<uint32_t>(record.priority)).name);
    found[record.index] = record;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tier.figures().damaged_records, 0u);
  std::map<uint32_t, uint32_t> versions;
  uint64_t charged = 0;
  for (const auto& [n, record] : found) {
    SampleObject o = At(n, static_cast<uint32_t>(record.priority));
    o.record.levels = record.levels;  // some were dropped
    EXPECT_EQ(record, o.record) << n;
    EXPECT_TRUE(Holds(tier, o, static_cast<int>(record.levels))) << "half an object: " << n;
    versions[n] = static_cast<uint32_t>(record.priority);
    charged += tier.Charge(record);
  }
  EXPECT_EQ(tier.used_bytes(), charged);
  for (const auto& [n, version] : promises) {
    auto at = versions.find(n);
    EXPECT_TRUE(at != versions.end() && at->second >= version)
        << "acknowledged and lost: object " << n << " version " << version;
  }
  return versions;
}

Promises LoadPromises(const std::string& path) {
  Promises out;
  std::ifstream file(path);
  uint32_t n = 0, version = 0;
  while (file >> n >> version) out[n] = version;
  return out;
}

void WriteForever(DiskTier& tier, uint32_t writer, std::map<uint32_t, uint32_t> versions, uint32_t seed) {
  std::mt19937 random(seed * 10 + writer);
  while (true) {
    uint32_t n = static_cast<uint32_t>(random() % (kObjects / kWriters)) * kWriters + writer;
    auto at = versions.find(n);
    uint32_t what = random() % 10;
    if (at != versions.end() && what == 0) {
      Say(absl::StrCat("gone ", n));
      ObjectName name = At(n, 0).name;
      if (!tier.Remove({&name, 1}).ok()) _exit(4);
      // Its versions go on: an older one must not come back in place of a newer one.
      continue;
    }
    if (at != versions.end() && what == 1) {
      SampleObject o = At(n, at->second);
      o.record.levels = 1 + static_cast<uint32_t>(random() % 2);
      tier.DropLevels(o.name, o.record).IgnoreError();  // it may be gone, or have fewer
      continue;
    }
    SampleObject o = At(n, at == versions.end() ? 1 : at->second + 1);
    if (!WriteSample(tier, o).ok()) _exit(5);
    versions[n] = static_cast<uint32_t>(o.record.priority);
    Say(absl::StrCat("done ", n, " ", versions[n]));
  }
}

TEST(KillChild, DISABLED_WritesUntilItIsKilled) {
  const char* folder = std::getenv(kFolderVariable);
  if (folder == nullptr) GTEST_SKIP() << "run by KillTest";
  std::string base = folder;
  std::ifstream seed_file(base + "/seed");
  uint32_t seed = 0;
  seed_file >> seed;
  auto tier = DiskTier::Open(SyncOptions(base + "/store", seed % 2 == 0));
  if (!tier.ok()) {
    std::fprintf(stderr, "%s\n", tier.status().ToString().c_str());
    _exit(2);
  }
  std::map<uint32_t, uint32_t> versions = CheckAll(**tier, LoadPromises(base + "/promises"));
  if (testing::Test::HasFailure()) _exit(6);
  // Gone objects go on from the last version that was promised, wherever that was said.
  Promises last = LoadPromises(base + "/versions");
  for (const auto& [n, version] : last) versions[n] = std::max(versions[n], version);
  Say("open");
  std::vector<std::thread> writers;
  for (uint32_t w = 0; w < kWriters; ++w)
    writers.emplace_back([&, w] { WriteForever(**tier, w, versions, seed); });
  for (std::thread& t : writers) t.join();
}

class KillTest : public testing::Test {
 protected:
  TempFolder folder_;
  std::string base_ = folder_.path();
  Promises promises_, last_versions_;

  void Save(const std::string& name, const Promises& promises) {
    std::ofstream file(base_ + "/" + name, std::ios::trunc);
    for (const auto& [n, version] : promises) file << n << ' ' << version << '\n';
  }
  void Heard(const std::string& line) {
    std::istringstream words(line);
    std::string word;
    uint32_t n = 0, version = 0;
    words >> word >> n >> version;
    if (word == "done") last_versions_[n] = promises_[n] = version;
    if (word == "gone") promises_.erase(n);
  }

  // One life of the child: killed once it has said `lines` lines, amid whatever it does then.
  void LiveAndDie(uint32_t seed, int lines) {
    Save("promises", promises_);
    Save("versions", last_versions_);
    std::ofstream(base_ + "/seed", std::ios::trunc) << seed;
    std::array<int, 2> pipe_fds{};
    ASSERT_EQ(pipe2(pipe_fds.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    std::string filter = "--gtest_filter=KillChild.*";
    std::string disabled = "--gtest_also_run_disabled_tests";
    std::string self = "/proc/self/exe";
    std::array<char*, 4> arguments = {self.data(), filter.data(), disabled.data(), nullptr};
    pid_t child = 0;
    ASSERT_EQ(posix_spawn(&child, self.c_str(), &actions, nullptr, arguments.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[1]);

    std::unique_ptr<FILE, int (*)(FILE*)> out(fdopen(pipe_fds[0], "r"), &std::fclose);
    std::array<char, 256> line{};
    bool opened = false, killed = false;
    // After the kill, what had been said before it still comes.
    while (std::fgets(line.data(), line.size(), out.get()) != nullptr) {
      if (std::string(line.data()) == "open\n") opened = true;
      if (!opened) continue;  // what the test framework says
      Heard(line.data());
      if (lines-- <= 0 && !killed) {
        kill(child, SIGKILL);
        killed = true;
      }
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the child ended by itself, with " << WEXITSTATUS(status);
  }
};

TEST_F(KillTest, AcknowledgedObjectsSurviveAHundredKills) {
  ASSERT_EQ(setenv(kFolderVariable, base_.c_str(), 1), 0);
  std::mt19937 random(11);
  for (int life = 0; life < kKills; ++life) {
    LiveAndDie(static_cast<uint32_t>(life), static_cast<int>(random() % 25));
    if (HasFatalFailure()) return;
  }
  auto tier = DiskTier::Open(SyncOptions(base_ + "/store", true));
  ASSERT_TRUE(tier.ok()) << tier.status();
  EXPECT_GE(CheckAll(**tier, promises_).size(), promises_.size());
  EXPECT_GT(promises_.size(), kObjects / 2);
}

}  // namespace
}  // namespace quire::store
