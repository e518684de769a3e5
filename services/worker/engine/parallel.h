// Loops over the engine's threads (LibTorch's pool), for code that must not see Torch.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace quire::worker {

// body(i) for every i in [0, n), each once, on several threads; returns when all are done. Which thread takes
// which i is decided at run time, so bodies may be of unequal length. An exception of a body is rethrown
// here.
void ParallelFor(int64_t n, absl::FunctionRef<void(int64_t)> body);

// How many threads ParallelFor uses at most.
int Threads();

// Sets how many threads ParallelFor and Torch's operations use in this process; 0: all cores.
void SetThreads(int threads);

}  // namespace quire::worker
