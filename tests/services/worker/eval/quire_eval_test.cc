// The binary on the model, on texts that every Debian 12 with a compiler and Python has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out;  // stdout and, after it, the end of stderr
};

Outcome RunEval(const std::string& arguments) {
  const std::string errors = testing::TempDir() + "quire_eval_" + std::to_string(getpid()) + ".err";
  const std::string command =
      std::string(std::getenv("QUIRE_BIN_DIR")) + "/quire-eval " + arguments + " 2>" + errors;
  FILE* pipe = popen(command.c_str(), "r");
  Outcome outcome;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) outcome.out.append(buffer, n);
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  std::ifstream file(errors);
  std::stringstream text;
  text << file.rdbuf();
  if (outcome.code != 0) outcome.out += text.str();
  std::remove(errors.c_str());
  return outcome;
}

std::string Model() { return std::string("--model ") + std::getenv("QUIRE_MODEL"); }

// Law, code, documentation and messages.
constexpr const char* kTexts[] = {"/usr/share/common-licenses/GPL-3", "/usr/lib/python3.11/argparse.py",
                                  "/usr/lib/python3.11/pydoc_data/topics.py",
                                  "/usr/share/perl/5.36.0/pod/perldiag.pod"};

TEST(QuireEval, DivergencesAreThoseTheCodecWasChosenFor) {
  std::string arguments = Model() + " --json --codec tq:k4v4 tq:k8v8 tq:k2v2 --text";
  for (const char* text : kTexts) arguments += std::string(" ") + text;
  const Outcome outcome = RunEval(arguments);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  std::printf("%s", outcome.out.c_str());
  std::map<std::string, nlohmann::json> by_codec;
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    by_codec[json["codec"]] = json;
  }
  ASSERT_EQ(by_codec.size(), 3u);
  auto number = [&](const char* codec, const char* key) { return by_codec[codec][key].get<double>(); };
  EXPECT_EQ(number("tq:k4v4", "scored_tokens"), 4 * 512);
  EXPECT_LE(number("tq:k4v4", "kl_mean"), 2.5e-3);
  EXPECT_GE(number("tq:k4v4", "top1"), 0.965);
  EXPECT_LE(number("tq:k8v8", "kl_mean"), 2e-5);
  EXPECT_GE(number("tq:k8v8", "top1"), 0.997);
  EXPECT_LE(number("tq:k2v2", "kl_mean"), 6e-2);
  EXPECT_GT(number("tq:k2v2", "kl_mean"), 10 * number("tq:k4v4", "kl_mean"));
}

std::vector<nlohmann::json> Lines(const std::string& out) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST(QuireEval, DroppedLevelsAreAsGoodAsFewerBits) {
  const Outcome outcome =
      RunEval(Model() + " --json --prefix 512 --score 128 --codec tq:k4v4@2 tq:k2v2 --text " + kTexts[0]);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto lines = Lines(outcome.out);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["codec"], "tq:k4v4@2");
  EXPECT_EQ(lines[0]["bits_k"], lines[1]["bits_k"]);
  EXPECT_LT(lines[0]["kl_mean"].get<double>(), 1.5 * lines[1]["kl_mean"].get<double>());
}

// Baselines beside codecs, errors of the cache, the plot, and a second run that has nothing left to compute.
TEST(QuireEval, MeasuresBaselinesPlotsAndResumes) {
  const std::string base = testing::TempDir() + "quire_eval_" + std::to_string(getpid());
  const std::string arguments = Model() + " --json --prefix 128 --score 32 --text " + kTexts[0] +
                                " --resume " + base + ".jsonl --codec ";
  const Outcome outcome = RunEval(arguments + "tq:k4v4 q4_0 turboquant:4 bf16 raw --plot " + base + ".png");
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto lines = Lines(outcome.out);
  ASSERT_EQ(lines.size(), 5u);
  const auto error = [&](size_t line, const char* key) {
    const auto layers = lines[line][key].get<std::vector<double>>();
    EXPECT_EQ(layers.size(), 30u);
    return std::accumulate(layers.begin(), layers.end(), 0.0) / 30;
  };
  EXPECT_NEAR(error(0, "k_error"), 0.0027, 0.0005);  // the mean is removed from K …
  EXPECT_NEAR(error(0, "v_error"), 0.009, 0.001);    // … but not from V
  EXPECT_NEAR(error(2, "k_error"), 0.0093, 0.0015);  // the codebook's, d = 64
  EXPECT_NEAR(error(2, "v_error"), 0.0092, 0.001);
  EXPECT_LT(error(0, "k_error"), error(1, "k_error"));
  EXPECT_DOUBLE_EQ(error(3, "k_error"), error(4, "k_error"));  // raw is bf16
  EXPECT_LT(lines[3]["kl_mean"].get<double>(), 1e-4);
  EXPECT_EQ(lines[1]["bits_k"], 4.5);
  std::ifstream plot(base + ".png", std::ios::binary);
  std::string signature(8, '\0');
  plot.read(signature.data(), 8);
  EXPECT_EQ(signature, "\x89PNG\r\n\x1a\n");
  const Outcome again = RunEval(arguments + "tq:k4v4 q4_0 turboquant:4 bf16 raw");
  EXPECT_EQ(again.out, outcome.out);
  std::remove((base + ".png").c_str());
  std::remove((base + ".jsonl").c_str());
}

TEST(QuireEval, NamesAShortTextAndItsLength) {
  const std::string path = testing::TempDir() + "short_text_" + std::to_string(getpid());
  std::ofstream(path) << "one two three";
  const Outcome outcome = RunEval(Model() + " --codec tq:k4v4 --text " + path);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr(path + ": 3 tokens, 2048 are needed (prefix 1536 + score 512)"));
  std::ofstream(path, std::ios::binary) << "caf\xE9";
  EXPECT_THAT(RunEval(Model() + " --codec tq:k4v4 --text " + path).out, HasSubstr(path));
  std::remove(path.c_str());
}

TEST(QuireEval, RefusesWhatItCanNotMeasure) {
  const std::string text = std::string(" --text ") + kTexts[0];
  EXPECT_NE(RunEval("").code, 0);
  EXPECT_NE(RunEval("--model /nonexistent --codec raw" + text).code, 0);
  Outcome outcome = RunEval(Model() + " --codec tq:k9v4" + text);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("quire-eval: "));
  EXPECT_THAT(RunEval(Model() + " --codec raw --prefix 100" + text).out, HasSubstr("multiple of 64"));
  EXPECT_THAT(RunEval(Model() + " --codec raw --prefix 8192" + text).out, HasSubstr("context of 8192"));
  EXPECT_THAT(RunEval(Model() + " --codec tq:k8v8@5" + text).out, HasSubstr("at 5 bits"));
  EXPECT_THAT(RunEval(Model() + text).out, HasSubstr("nothing to measure"));
  EXPECT_THAT(RunEval(Model() + " --policy-search 2" + text).out, HasSubstr("tq:k2v2 takes"));
  EXPECT_THAT(RunEval(Model() + " --codec raw --resume /nonexistent/x" + text).out,
              HasSubstr("/nonexistent/x"));
}

}  // namespace
