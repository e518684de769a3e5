// How callers lend threads to the codec: they give a function, the codec owns none.
#pragma once

#include <cstddef>

#include "absl/functional/function_ref.h"

namespace quire {

// Calls body(0) … body(n − 1), each once, in any order, on any threads, and returns when all have returned. A
// pool of a process fits behind this in a lambda. Work handed over here is one layer of one block, some 10 µs
// to 1 ms.
using ParallelFor = absl::FunctionRef<void(size_t n, absl::FunctionRef<void(size_t i)> body)>;

// No threads but the caller's: what everything does when no ParallelFor is given.
inline void OneByOne(size_t n, absl::FunctionRef<void(size_t i)> body) {
  for (size_t i = 0; i < n; ++i) body(i);
}

}  // namespace quire
