// Inside cuda/: what one launch of decode attention gets, and its launchers, one instantiation a head size,
// each its own translation unit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/attention_task.h"

namespace quire::cuda {

inline constexpr uint32_t kMaxAttentionGroup = 8, kMaxAttentionDim = 256;

struct AttentionLaunch {
  const AttentionForm* forms;  // [form_count]
  const AttentionItem* items;
  const AttentionSegment* segments;  // as AttentionSchedule has them
  const uint32_t* block_first;
  const void* q;  // bf16 [sequences][kv_heads · group][d]
  void* out;
  int64_t q_stride, out_stride;  // elements
  float* partials;               // [slot][group][PartialFloats(d)]
  uint32_t* arrived;             // [pair]; 0 between launches
  uint32_t form_count, kv_heads, group, blocks;
  float score_scale;
  bool pages_settled;
  uint32_t signs[2][kMaxAttentionDim / 32];  // the rotation's, bit c % 32 of word c / 32
  float
      hartley[3];  // of d = 3 · 2^n: the 3 × 3 matrix is circulant but for order: [j][k] is hartley[j k % 3]
};

// One query head's share: largest score (in powers of two), sum of weights, 2 floats of padding, the sum of
// weighted rotated values, and that of raw values.
constexpr uint32_t PartialFloats(uint32_t dim) { return 4 + 2 * dim; }

template <int kDim>
cudaError_t LaunchAttentionOf(const AttentionLaunch& launch, cudaStream_t stream);
// Thread block's warps, that share the pages of a segment.
constexpr uint32_t AttentionWarps(uint32_t dim) {
  return dim <= 64 ? 16 : dim <= 128 ? 12 : dim <= 192 ? 8 : 6;
}

}  // namespace quire::cuda
