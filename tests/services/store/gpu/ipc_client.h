// The client of the GPU benchmark that is a process of its own.
#pragma once

#include <string>

namespace quire::store {

inline constexpr const char* kBenchClient =
    "QUIRE_GPU_BENCH_CLIENT";  // its environment: "address blocks runs"

// Puts and gets through a buffer on the store's GPU and writes lines "name seconds" to standard output, each
// for all blocks of 8 MiB raw; then "end". The exit status.
int RunBenchClient(const std::string& task);

}  // namespace quire::store
