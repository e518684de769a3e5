// What the model families compute alike: products, rotary turns, storing keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "services/worker/engine/kv_sequence.h"

namespace quire::worker {

// x [n, in] · weight [out, in]ᵀ. A single row is read by all threads: the matrix library multiplies it on
// one, though what it waits for is memory.
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight);

// x += y · weightᵀ
void AddProduct(at::Tensor& x, const at::Tensor& y, const at::Tensor& weight);

// Pads x [n, …] with zero rows where n is from 2 to 7. Below 8 rows the matrix library goes other ways and
// rounds otherwise. A few tokens at once are the end of a prompt whose beginning was restored; padded they
// give the very bits that they would have given among the rest. One token alone is a decode step, and is one
// in both cases.
at::Tensor PadRows(const at::Tensor& x);

// Which channels of a head turn together: GGUF stores llama's query and key rows so that 2i and 2i + 1 do,
// and other families' as they were trained, i and i + dims/2.
enum class RopePairs { kAdjacent, kHalves };

// Rotary turns by position · base^(−2i/dims) / factor, for the positions of a chunk.
class Turns {
 public:
  struct Options {
    RopePairs pairs;
    uint32_t dims;  // of a head, from the first on; the rest stays as it is
    double base, factor;
  };
  Turns(uint32_t start, size_t positions, const Options& options);
  // Turns one head [d] of the chunk's p-th position.
  void Apply(size_t p, float* x) const;

 private:
  const RopePairs kind_;
  const uint32_t pairs_;
  std::vector<float> cos_, sin_;  // [position][pair]
};

// qkv [n or more, (query heads + 2 · KV heads) · d], n being what kv has reserved: turns queries and keys, in
// place, puts K and V into kv, and returns the queries [n, query heads, d].
at::Tensor TurnAndStore(const at::Tensor& qkv, const Turns& turns, uint32_t query_heads, uint32_t layer,
                        KvSequence& kv);

}  // namespace quire::worker
