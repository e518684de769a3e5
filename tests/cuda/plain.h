// The benchmark's baselines: kernels that move bytes and do nothing else, and random data made on the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "cuda/stream.h"

namespace quire::cuda {

// Reads `read` bytes and writes `write` bytes for each of `pieces` pieces, from and to consecutive memory;
// multiples of 16. `variant` 0…kPlainVariants−1 are launch shapes; take the fastest.
inline constexpr int kPlainVariants = 6;
absl::Status PlainMove(StreamRef stream, int variant, const void* from, size_t read, void* to, size_t write,
                       size_t pieces);
// `count` bf16 of N(0, 1), each row of `dim` of another length, plus a mean that differs by channel if
// `mean`.
absl::Status RandomBf16(StreamRef stream, void* to, size_t count, uint32_t dim, bool mean);

}  // namespace quire::cuda
