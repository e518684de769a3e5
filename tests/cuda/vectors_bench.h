// The codec on vectors from a file, so that another implementation can be timed and scored on the same ones.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/stream.h"

namespace quire::cuda {

// The file: bf16, little-endian, [block][K, V][64 tokens][8 heads][dim]. Prints rates against a device copy,
// and the relative errors of K and of V.
void BenchVectors(const Stream& stream, int repeats, const std::string& file, uint32_t dim,
                  const std::string& spec);

}  // namespace quire::cuda
