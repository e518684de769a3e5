// quire-bench: figures with their baselines, measured in the same run.
#include <CLI/CLI.hpp>

#include <cstdio>

#include "tests/bench/codec_bench.h"
#include "tests/bench/report.h"
#include "tests/bench/store_bench.h"

int main(int argc, char** argv) {
  CLI::App app("Measures parts of Quire, each beside a baseline from the same run");
  bool json = false;
  auto* codec = app.add_subcommand("codec", "Encode and decode of blocks against memcpy, one thread");
  auto* store = app.add_subcommand("store", "Put, Get and Lookup, in process and over gRPC, against memcpy");
  for (CLI::App* command : {codec, store}) command->add_flag("--json", json, "Print lines of JSON");
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);

  quire::bench::Report report(json);
  absl::Status status = *codec ? quire::bench::RunCodecBench(report) : quire::bench::RunStoreBench(report);
  if (!status.ok()) {
    std::fprintf(stderr, "quire-bench: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
