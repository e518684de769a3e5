#include "services/runtime/process.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "services/runtime/log.h"

namespace quire::runtime {
namespace {

class Flags : public testing::Test {
 protected:
  int Parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "program");
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    CLI::App app;
    AddCommonFlags(app, flags_);
    return ParseFlags(app, static_cast<int>(argv.size()), argv.data());
  }
  CommonFlags flags_;
};

TEST_F(Flags, CommandLineBeatsEnvironmentBeatsFile) {
  std::string path = testing::TempDir() + "/quire_process_test.toml";
  std::ofstream(path) << "max-streams = 7\nlog-level = \"debug\"\nlisten = \"127.0.0.1:1\"\n";
  setenv("QUIRE_LOG_LEVEL", "warn", 1);
  EXPECT_EQ(Parse({"--config", path, "--listen", "127.0.0.1:2"}), -1);
  unsetenv("QUIRE_LOG_LEVEL");
  std::filesystem::remove(path);
  EXPECT_EQ(flags_.server.listen, "127.0.0.1:2");
  EXPECT_EQ(flags_.log_level, "warn");
  EXPECT_EQ(flags_.server.max_streams, 7);
}

TEST_F(Flags, MistakesEndWithANonZeroCode) {
  EXPECT_GT(Parse({"--max-streams", "0"}), 0);
  EXPECT_GT(Parse({"--no-such-flag"}), 0);
  EXPECT_EQ(Parse({"--help"}), 0);
}

TEST(Logging, UnknownLevelIsRefused) {
  EXPECT_FALSE(InitLogging("test", "loud").ok());
  EXPECT_TRUE(InitLogging("test", "info").ok());
}

}  // namespace
}  // namespace quire::runtime
