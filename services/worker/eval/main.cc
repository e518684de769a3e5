// quire-eval: how far KV codes move a model's output distribution.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/evaluation.h"
#include "services/worker/eval/fidelity_run.h"
#include "services/worker/eval/plot.h"
#include "services/worker/eval/policy_run.h"

namespace quire::worker {
namespace {

struct Options {
  std::string model, plot, resume, budget;
  std::vector<std::string> texts, codecs;
  uint32_t prefix = 1536, score = 512, price_texts = 1;
  int threads = 0;
  uint32_t query_tokens = kQueryTokens;
  bool json = false;
};

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

absl::Status Print(const Options& options, const PolicySearch& search,
                   const std::vector<FidelityReport>& reports) {
  if (options.json) {
    for (const FidelityReport& report : reports) std::printf("%s\n", report.Json().c_str());
  } else {
    std::fputs(Table(reports).c_str(), stdout);
    if (search.budget > 0) {
      std::printf("\nThe spec found for %.2f bits an element (prices from %u text%s):\n%s\n", search.budget,
                  options.price_texts, options.price_texts == 1 ? "" : "s", reports.back().codec.c_str());
    }
  }
  if (options.plot.empty()) return absl::OkStatus();
  std::vector<PlotPoint> points;
  for (const FidelityReport& r : reports) points.push_back({r.Label(), r.object_bits, r.kl_mean});
  const FidelityReport& any = reports.front();
  return WritePlot(
      options.plot,
      absl::StrCat("KV codecs on ", options.model.substr(options.model.rfind('/') + 1), ", ", any.texts,
                   any.texts == 1 ? " text, " : " texts, ", any.scored, " scored tokens"),
      points);
}

// What a journal's measurements are of.
Digest Measured(const ModelInfo& model, uint32_t query_tokens) {
  if (query_tokens == 0) return model.model_digest;
  return Sha256().Update(model.model_digest.Hex()).UpdateU32(query_tokens).Finish();
}

absl::Status Evaluate(Options& options, Progress& progress) {
  auto show = [&](const std::string& step, double fraction) { progress.ShowLoad(step, fraction); };
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Evaluator> evaluator,
                         Evaluator::Load(options.model, options.threads, options.query_tokens, show));
  QUIRE_RETURN_IF_ERROR(CheckContext(options, evaluator->info()));
  QUIRE_ASSIGN_OR_RETURN(std::vector<EvalCodec> codecs, ParseCodecs(options.codecs, evaluator->layout()));
  PolicySearch search;
  if (!options.budget.empty()) {
    QUIRE_ASSIGN_OR_RETURN(search, PlanPolicySearch(options.budget, evaluator->layout()));
  }
  std::vector<EvalText> texts;
  for (const std::string& path : options.texts) {
    QUIRE_ASSIGN_OR_RETURN(EvalText text,
                           ReadEvalText(path, *evaluator->tokenizer(), options.prefix, options.score));
    texts.push_back(std::move(text));
  }
  options.price_texts = std::min<uint32_t>(options.price_texts, static_cast<uint32_t>(texts.size()));
  Journal journal;
  if (!options.resume.empty()) {
    QUIRE_ASSIGN_OR_RETURN(journal,
                           Journal::Open(options.resume, Measured(evaluator->info(), options.query_tokens)));
  }
  FidelityRun run(*evaluator, journal, progress, std::move(texts), options.prefix, options.score);
  codecs.insert(codecs.end(), search.uniform.begin(), search.uniform.end());
  run.Expect(codecs, run.texts());
  if (search.budget > 0) {
    run.Expect(search.probes, options.price_texts);
    run.ExpectUnknown(1);
    QUIRE_ASSIGN_OR_RETURN(EvalCodec policy, FindPolicy(search, options.price_texts, run));
    codecs.push_back(std::move(policy));
  }
  QUIRE_ASSIGN_OR_RETURN(std::vector<FidelityReport> reports, run.Measure(codecs, run.texts()));
  if (search.budget > 0) reports.back().label = absl::StrFormat("policy (%.2f bits)", search.budget);
  progress.Clear();
  return Print(options, search, reports);
}

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("--model", options.model, "Model file (.gguf)")->required()->check(CLI::ExistingFile);
  app.add_option("--text", options.texts, "UTF-8 text files of at least prefix + score tokens")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option(
      "--codec", options.codecs,
      "Codec specs, such as raw, tq:k4v4 or tq:k4v3,effort=2; with @2, @3 or @4 behind it read at so "
      "many bits, dropping the levels above; or baselines that nothing stores: q4_0 and q8_0 "
      "(llama.cpp's), turboquant:1 to turboquant:8 (textbook), bf16");
  app.add_option("--prefix", options.prefix, "Tokens that are coded, a multiple of 64")
      ->capture_default_str();
  app.add_option("--score", options.score, "Tokens scored after the prefix")->capture_default_str();
  app.add_option(
      "--policy-search", options.budget,
      "Find the bits of each layer's K and V of least divergence within a budget of whole objects: "
      "bits an element (3.5), a share of the uncoded cache (25%) or bytes a token (4500B). Measured "
      "beside the specs of equal bits just below and above the budget");
  app.add_option("--price-texts", options.price_texts,
                 "How many of the texts, from the first, the search's prices are measured on")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--plot", options.plot, "Write a PNG of mean divergence over bits an element here");
  app.add_option("--resume", options.resume,
                 "Keep every measurement in this file of JSON lines, and take from it what it has");
  app.add_option("--query-tokens", options.query_tokens,
                 "Tokens of a sample text run first to learn where queries lie; tq's encoder then keeps its "
                 "keys' errors out of their way; 0: not")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", options.json, "One JSON object a codec instead of a table");
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Measures how far KV codes move a model's next-token distributions: the prefix's KV is computed "
      "uncoded, then coded (its first 4 tokens stay raw); the tokens after it are scored teacher-forced with "
      "their own KV raw. KL(uncoded || coded), in nats; K and V error are squared, relative to the energy.",
      "quire-eval");
  AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  if (options.codecs.empty() && options.budget.empty()) {
    std::fprintf(stderr, "quire-eval: nothing to measure; name a --codec or a budget for --policy-search\n");
    return 1;
  }
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
