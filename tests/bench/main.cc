// quire-bench: figures with their baselines, measured in the same run.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "tests/bench/arena_bench.h"
#include "tests/bench/codec_bench.h"
#include "tests/bench/disk_bench.h"
#include "tests/bench/grpc_bench.h"
#include "tests/bench/redis_bench.h"
#include "tests/bench/report.h"
#include "tests/bench/soak.h"
#include "tests/bench/store_bench.h"
#include "tests/bench/trace_bench.h"
#include "tests/bench/vectors_bench.h"

int main(int argc, char** argv) {
  CLI::App app("Measures parts of Quire, each beside a baseline from the same run");
  bool json = false;
  auto* codec =
      app.add_subcommand("codec", "Encode and decode of blocks against memcpy, on one core and on all");
  auto* store = app.add_subcommand(
      "store", "Put, Get and Lookup, in process and over gRPC, against memcpy; the disk tier");
  auto* redis = app.add_subcommand(
      "redis",
      "Raw blocks through redis-server against codes through the store over gRPC and through the Redis tier");
  auto* arena = app.add_subcommand("arena", "Of store, Put and Get through shared memory alone");
  auto* grpc = app.add_subcommand("grpc", "Of store, Put, Get and Lookup over gRPC alone");
  auto* vectors = app.add_subcommand("vectors", "Speed and error of codecs on vectors from a file");
  quire::bench::VectorsBench vectors_bench;
  vectors->add_option("--file", vectors_bench.file, "bf16 values [block][K, V][64 tokens][8 heads][dim]")
      ->required();
  vectors->add_option("--dim", vectors_bench.dim, "Channels of a vector")->capture_default_str();
  vectors->add_option("--codec", vectors_bench.specs, "Codec specs, such as tq:k4v4")->required();
  vectors->add_option("--threads", vectors_bench.threads, "Threads")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  auto* trace =
      app.add_subcommand("trace", "Hit rates of a trace of conversations, against a clairvoyant policy");
  quire::bench::TraceBench trace_bench;
  trace->add_option("--trace", trace_bench.file, "Requests as JSON lines: timestamp, hash_ids")
      ->envname("QUIRE_TRACE")
      ->capture_default_str();
  trace
      ->add_option("--percent", trace_bench.percents,
                   "Capacities, in percent of the trace's distinct raw bytes")
      ->check(CLI::Range(0.01, 100.0));
  trace->add_option("--only", trace_bench.only, "Only replays whose name has this in it");
  trace->add_option("--chart", trace_bench.chart, "PNG of hit rates over capacity; empty: none")
      ->capture_default_str();
  trace->add_option("--threads", trace_bench.threads, "Replays at a time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  auto* soak = app.add_subcommand(
      "soak", "An hour's mixed load with faults, as fast as it goes, on a store of its own");
  quire::bench::Soak soak_options;
  soak->add_option("--calls", soak_options.calls,
                   "Calls in all; the default is an hour of 8 prompts a second")
      ->capture_default_str();
  soak->add_option("--seconds", soak_options.seconds, "It ends then at the latest")->capture_default_str();
  soak->add_option("--clients", soak_options.clients, "Clients, half of them through shared memory")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  soak->add_option("--fault-every", soak_options.fault_every, "Calls between two faults")
      ->capture_default_str();
  soak->add_option("--store-binary", soak_options.store_binary,
                   "quire-store; default: the one beside this binary");
  for (CLI::App* command : {codec, store, redis, arena, grpc, soak, trace, vectors})
    command->add_flag("--json", json, "Print lines of JSON");
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);

  quire::bench::Report report(json);
  absl::Status status = *codec   ? quire::bench::RunCodecBench(report)
                        : *store ? quire::bench::RunStoreBench(report)
                        : *redis ? quire::bench::RunRedisBench(report)
                        : *arena ? quire::bench::RunArenaBench(report)
                        : *soak  ? quire::bench::RunSoak(soak_options, report)
                        : *trace ? quire::bench::RunTraceBench(trace_bench, report)
                        : *grpc  ? quire::bench::RunGrpcBench(report)
                                 : quire::bench::RunVectorsBench(vectors_bench, report);
  if (*store && status.ok()) status = quire::bench::RunGrpcBench(report);
  if (*store && status.ok()) status = quire::bench::RunArenaBench(report);
  if (*store && status.ok()) status = quire::bench::RunDiskBench(report);
  if (!status.ok()) {
    std::fprintf(stderr, "quire-bench: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
