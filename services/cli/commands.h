// What quirectl's commands do, one function each. They print to `out` and return a status, or the exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/runtime/server.h"

namespace quire::cli {

struct BenchArguments {
  uint32_t clients = 4;
  uint32_t blocks = 16;     // of a prompt
  uint32_t prompts = 16;    // that are read
  double zipf = 0.9;        // how unevenly
  double read_share = 0.9;  // the rest stores new prompts
  std::string codec = "tq:k4v4";
  bool raw = false;          // put raw KV, which the store encodes
  bool lookup_only = false;  // reads do not fetch
  uint32_t max_bits = 0;
  uint32_t arena_mib = 0;  // 0: bytes go through gRPC
  double seconds = 10;
  uint64_t calls = 0;                                  // instead of seconds
  uint32_t layers = 32, kv_heads = 8, head_dim = 128;  // without a layout file: an 8B model's
  uint64_t seed = 1;
};

struct Arguments {
  std::string store = "127.0.0.1:50061";
  runtime::ChannelOptions channel;
  std::string tenant;
  uint32_t timeout_seconds = 10;
  bool json = false;
  bool terminal = false;  // `out` is one: live views redraw

  std::string layout;              // path of a layout file
  std::vector<std::string> keys;   // hex
  std::vector<std::string> files;  // objects
  std::string parent;              // get: hex key before the first of `keys`
  uint32_t index = 0;              // get: number of the first block within its sequence
  uint32_t max_bits = 0;
  std::string out_folder = ".";
  bool all = false;
  bool force = false;
  std::string tier = "none";            // prefetch, verify
  double watch_seconds = 0;             // stats: between two looks; 0: one look
  uint64_t count = 0;                   // stats --watch, watch: looks or events; 0: no end
  uint64_t from_sequence = 0;           // watch
  std::optional<uint64_t> quota_bytes;  // quota: to set
  uint32_t drain_seconds = 30;
  uint64_t bytes_per_second = 0;  // verify
  BenchArguments bench;
};

absl::StatusOr<int> Stats(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Lookup(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Put(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Get(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Delete(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Inspect(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Pin(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Unpin(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Touch(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Prefetch(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Quota(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> DeleteTenant(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Drain(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Verify(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Watch(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Bench(const Arguments& arguments, std::ostream& out);

}  // namespace quire::cli
