// What quirectl's commands do, one function each. They print to `out` and return a status, or the exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/runtime/server.h"

namespace quire::cli {

struct Arguments {
  std::string store = "127.0.0.1:50061";
  runtime::ChannelOptions channel;
  std::string tenant;
  uint32_t timeout_seconds = 10;
  bool json = false;

  std::string layout;              // path of a layout file
  std::vector<std::string> keys;   // hex
  std::vector<std::string> files;  // objects
  std::string parent;              // get: hex key before the first of `keys`
  uint32_t index = 0;              // get: number of the first block within its sequence
  uint32_t max_bits = 0;
  std::string out_folder = ".";
  bool all = false;
  bool force = false;
};

absl::StatusOr<int> Stats(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Lookup(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Put(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Get(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Delete(const Arguments& arguments, std::ostream& out);
absl::StatusOr<int> Inspect(const Arguments& arguments, std::ostream& out);

}  // namespace quire::cli
