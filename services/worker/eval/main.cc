// quire-eval: how far KV codes move a model's output distribution.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/evaluation.h"
#include "services/worker/eval/fidelity.h"

namespace quire::worker {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> texts, codecs;
  uint32_t prefix = 1536, score = 512;
  int keep_bits = 0, threads = 0;
  bool json = false;
};

// One line on stderr: rewritten in place on a terminal, else a line whenever the step's name changes.
class Progress {
 public:
  void Show(const std::string& step, double fraction) {
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%3.0f %%  %s", 100 * fraction, step.c_str());
    } else if (step != last_) {
      std::fprintf(stderr, "%3.0f %%  %s\n", 100 * fraction, step.c_str());
    }
    last_ = step;
    std::fflush(stderr);
  }
  void Clear() {
    if (terminal_) std::fputs("\r\033[K", stderr);
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  std::string last_;
};

struct Text {
  std::string path;
  std::vector<uint32_t> tokens;  // prefix, scored, and one more if there is one
};

absl::StatusOr<Text> ReadText(const std::string& path, const Tokenizer& tokenizer, const Options& options) {
  constexpr size_t kBytesAToken = 64;  // far above any tokenizer's mean: bounds what is read of a huge file
  const size_t wanted = size_t{options.prefix} + options.score + 1;
  std::ifstream file(path, std::ios::binary);
  std::string bytes(wanted * kBytesAToken, '\0');
  if (file) file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.is_open() || file.bad()) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (!file.eof()) {  // cut somewhere: drop the last character, which may be half
    while (!bytes.empty() && (bytes.back() & 0xC0) == 0x80) bytes.pop_back();
    bytes.pop_back();
  }
  absl::StatusOr<std::vector<uint32_t>> tokens =
      tokenizer.Encode(bytes, /*parse_special=*/false, /*add_special=*/true);
  if (!tokens.ok())
    return absl::Status(tokens.status().code(),
                        absl::StrCat(path, ": ", std::string(tokens.status().message())));
  if (tokens->size() + 1 < wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", tokens->size(), " tokens, ", wanted - 1,
                                                   " are needed (prefix ", options.prefix, " + score ",
                                                   options.score, ")"));
  }
  tokens->resize(std::min(tokens->size(), wanted));
  return Text{path, *std::move(tokens)};
}

struct Candidate {
  CodecSpec spec;
  int levels = 0;
  FidelityReport report;
  std::vector<TextFidelity> results;
};

absl::StatusOr<Candidate> MakeCandidate(const std::string& text, const Layout& layout, int keep_bits) {
  Candidate candidate;
  QUIRE_ASSIGN_OR_RETURN(candidate.spec, CodecSpec::Parse(text));
  if (candidate.spec.last_named_layer() >= static_cast<int64_t>(layout.layers.size())) {
    return absl::InvalidArgumentError(absl::StrCat("codec ", text, " names layer ",
                                                   candidate.spec.last_named_layer(),
                                                   ", the model has layers 0 to ", layout.layers.size() - 1));
  }
  if (keep_bits > 0) {
    QUIRE_ASSIGN_OR_RETURN(candidate.levels, LevelsFor(layout, candidate.spec, keep_bits));
  }
  QUIRE_ASSIGN_OR_RETURN(candidate.report.bits, BitsOf(layout, candidate.spec, candidate.levels));
  return candidate;
}

absl::Status CheckContext(const Options& options, const ModelInfo& info) {
  if (options.prefix % kBlockTokens != 0 || options.prefix == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prefix must be a multiple of ", kBlockTokens, ", not ", options.prefix));
  }
  if (options.score == 0 || uint64_t{options.prefix} + options.score > info.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("--score ", options.score, " after --prefix ", options.prefix,
                     " must be 1 or more and end within the model's context of ", info.context));
  }
  return absl::OkStatus();
}

uint64_t PrefixElements(const Layout& layout, uint32_t prefix) {
  return layout.RawBlockBytes() / SizeOf(layout.dtype) * (prefix / kBlockTokens);
}

absl::Status Evaluate(const Options& options, Progress& progress) {
  auto show = [&](const std::string& step, double fraction) { progress.Show(step, fraction); };
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Evaluator> evaluator,
                         Evaluator::Load(options.model, options.threads, show));
  QUIRE_RETURN_IF_ERROR(CheckContext(options, evaluator->info()));
  std::vector<Candidate> candidates;
  for (const std::string& codec : options.codecs) {
    QUIRE_ASSIGN_OR_RETURN(Candidate candidate, MakeCandidate(codec, evaluator->layout(), options.keep_bits));
    candidates.push_back(std::move(candidate));
  }
  std::vector<Text> texts;
  for (const std::string& path : options.texts) {
    QUIRE_ASSIGN_OR_RETURN(Text text, ReadText(path, *evaluator->tokenizer(), options));
    texts.push_back(std::move(text));
  }
  // The reference run of a text costs about as much as two to four codecs on it.
  const double steps = static_cast<double>(texts.size() * (candidates.size() + 3));
  double done = 0;
  for (const Text& text : texts) {
    progress.Show(absl::StrCat(text.path, ": uncoded run"), done / steps);
    QUIRE_RETURN_IF_ERROR(evaluator->SetText(text.tokens, options.prefix, options.score));
    done += 3;
    for (Candidate& candidate : candidates) {
      progress.Show(absl::StrCat(text.path, ": ", candidate.spec.ToString()), done / steps);
      QUIRE_ASSIGN_OR_RETURN(TextFidelity fidelity, evaluator->Measure(candidate.spec, candidate.levels));
      candidate.results.push_back(std::move(fidelity));
      done += 1;
    }
  }
  progress.Clear();
  std::vector<FidelityReport> reports;
  for (const Candidate& candidate : candidates) {
    FidelityReport report = Summarize(candidate.results, PrefixElements(evaluator->layout(), options.prefix));
    report.codec = candidate.spec.ToString();
    report.keep_bits = options.keep_bits;
    report.bits = candidate.report.bits;
    if (options.json) std::printf("%s\n", report.Json().c_str());
    reports.push_back(std::move(report));
  }
  if (!options.json) std::fputs(Table(reports).c_str(), stdout);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Measures how far KV codes move a model's next-token distributions: the prefix's KV is computed "
      "uncoded, then coded (its first 4 "
      "tokens stay raw); the tokens after it are scored teacher-forced with their own KV raw. KL(uncoded || "
      "coded), in nats.",
      "quire-eval");
  app.add_option("--model", options.model, "Model file (.gguf)")->required()->check(CLI::ExistingFile);
  app.add_option("--text", options.texts, "UTF-8 text files of at least prefix + score tokens")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--codec", options.codecs, "Codec specs, such as raw, tq:k4v4 or tq:k4v3,effort=2")
      ->required();
  app.add_option("--prefix", options.prefix, "Tokens that are coded, a multiple of 64")
      ->capture_default_str();
  app.add_option("--score", options.score, "Tokens scored after the prefix")->capture_default_str();
  app.add_option("--keep-bits", options.keep_bits,
                 "Read the codes at this many bits (2, 3, 4), dropping the levels above");
  app.add_option("--threads", options.threads, "Threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", options.json, "One JSON object a codec instead of a table");
  CLI11_PARSE(app, argc, argv);
  Progress progress;
  const absl::Status status = Evaluate(options, progress);
  if (status.ok()) return 0;
  progress.Clear();
  std::fprintf(stderr, "quire-eval: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace quire::worker

int main(int argc, char** argv) { return quire::worker::Main(argc, argv); }
