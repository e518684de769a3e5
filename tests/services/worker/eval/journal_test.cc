#include "services/worker/eval/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

Digest DigestOf(uint8_t first) {
  Digest digest;
  digest.bytes[0] = first;
  return digest;
}

TextFidelity Some(double kl) {
  return {.kl = {kl, 1e-300, 0.1},
          .same_top = {true, false, true},
          .nll_difference = {-0.5, 1.0 / 3},
          .object_bytes = uint64_t{1} << 40,
          .k_error = {{2, 0.25}, {1e6, 3.5}},
          .v_error = {{1, 0}, {0, 0}}};
}

MeasurementKey Key(const std::string& codec) { return {DigestOf(1), codec, 64, 3}; }

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "journal_" + std::to_string(getpid()) + ".jsonl";
    std::remove(path_.c_str());
  }
  void TearDown() override { std::remove(path_.c_str()); }
  absl::StatusOr<Journal> Open(uint8_t model = 9) { return Journal::Open(path_, DigestOf(model)); }
  std::string Contents() const {
    std::ifstream file(path_, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void Write(const std::string& contents) { std::ofstream(path_, std::ios::binary) << contents; }
  void AddTwo() {
    auto journal = Open();
    ASSERT_TRUE(journal.ok()) << journal.status();
    ASSERT_TRUE(journal->Add(Key("tq:k4v4"), Some(0.1)).ok());
    ASSERT_TRUE(journal->Add(Key("q4_0"), Some(0.2)).ok());
  }
  std::string path_;
};

TEST_F(JournalTest, GivesBackTheVeryNumbers) {
  AddTwo();
  auto journal = Open();
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(journal->size(), 2u);
  const TextFidelity* found = journal->Find(Key("tq:k4v4"));
  ASSERT_NE(found, nullptr);
  const TextFidelity expected = Some(0.1);
  EXPECT_EQ(found->kl, expected.kl);
  EXPECT_EQ(found->same_top, expected.same_top);
  EXPECT_EQ(found->nll_difference, expected.nll_difference);
  EXPECT_EQ(found->object_bytes, expected.object_bytes);
  ASSERT_EQ(found->k_error.size(), 2u);
  EXPECT_EQ(found->k_error[1].energy, 1e6);
  EXPECT_EQ(found->k_error[1].error, 3.5);
  EXPECT_EQ(found->v_error[0].error, 0);
}

TEST_F(JournalTest, EveryPartOfTheKeyCounts) {
  AddTwo();
  auto journal = Open();
  ASSERT_TRUE(journal.ok());
  MeasurementKey key = Key("q4_0");
  EXPECT_NE(journal->Find(key), nullptr);
  EXPECT_EQ(journal->Find(Key("q8_0")), nullptr);
  key.text = DigestOf(2);
  EXPECT_EQ(journal->Find(key), nullptr);
  key = Key("q4_0");
  key.prefix = 128;
  EXPECT_EQ(journal->Find(key), nullptr);
  key = Key("q4_0");
  key.score = 4;
  EXPECT_EQ(journal->Find(key), nullptr);
}

TEST_F(JournalTest, ADamagedLastLineIsCutOff) {
  AddTwo();
  const std::string whole = Contents();
  const std::string first = whole.substr(0, whole.find('\n') + 1);
  // However far the write of the second line came.
  for (size_t length = first.size() + 1; length < whole.size(); length += 7) {
    Write(whole.substr(0, length));
    auto journal = Open();
    ASSERT_TRUE(journal.ok()) << length << ": " << journal.status();
    EXPECT_EQ(journal->size(), 1u);
    EXPECT_EQ(Contents(), first);
  }
  Write(whole.substr(0, first.size() / 2));  // even the first line of all
  auto journal = Open();
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(journal->size(), 0u);
  ASSERT_TRUE(journal->Add(Key("tq:k4v4"), Some(0.1)).ok());
  EXPECT_EQ(Contents(), first);
}

TEST_F(JournalTest, OtherDamageIsRefusedAndNothingIsLost) {
  AddTwo();
  std::string damaged = Contents();
  damaged[damaged.find("\"kl\"")] = 'x';
  Write(damaged);
  auto journal = Open();
  EXPECT_EQ(journal.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(journal.status().message()), HasSubstr(path_ + ", line 1"));
  EXPECT_EQ(Contents(), damaged);
  for (const char* foreign : {"dear diary", "dear\ndiary\n", "{}\n"}) {
    Write(foreign);
    EXPECT_EQ(Open().status().code(), absl::StatusCode::kDataLoss) << foreign;
    EXPECT_EQ(Contents(), foreign);
  }
}

TEST_F(JournalTest, AnotherModelsFileIsRefused) {
  AddTwo();
  const std::string before = Contents();
  auto journal = Open(/*model=*/8);
  EXPECT_EQ(journal.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(journal.status().message()),
              AllOf(HasSubstr(DigestOf(9).Hex()), HasSubstr(DigestOf(8).Hex())));
  EXPECT_EQ(Contents(), before);
}

TEST_F(JournalTest, OneProcessAtATime) {
  auto first = Open();
  ASSERT_TRUE(first.ok());
  auto second = Open();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another process"));
}

TEST_F(JournalTest, WorksWithoutAFile) {
  Journal journal;
  ASSERT_TRUE(journal.Add(Key("raw"), Some(1)).ok());
  EXPECT_NE(journal.Find(Key("raw")), nullptr);
  EXPECT_EQ(Journal::Open("/nonexistent/folder/x", DigestOf(1)).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace quire::worker
