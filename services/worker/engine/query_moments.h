// What a model's queries look like: E[qqᵀ] of each layer and KV head, which keys' rounding errors are steered
// by (core/codec/query_shape.h). Queries lie in much the same few directions whatever the text, so a page of
// sample text, run once when the model is loaded, is enough; and since it is always the same page, a prompt's
// blocks are the same bytes in every process that serves the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "services/worker/engine/decoder_ops.h"

namespace quire::worker {

// Prose, technical text and code, some 700 tokens.
extern const std::string_view kSampleText;

// Not thread-safe. Torch's exceptions pass through.
class QueryMoments {
 public:
  // Of a layout with equal layers. `positions`: the longest context that keys will be used in.
  QueryMoments(uint32_t layers, uint32_t kv_heads, uint32_t dim, uint32_t positions);

  // q: fp32 [n, query heads, d], turned as `turns` says. A query counts at several positions up to the
  // longest: attention meets slow channels at any angle, though the sample stands at the beginning.
  void Add(uint32_t layer, const at::Tensor& q, const Turns::Options& turns);

  // INVALID_ARGUMENT where a model's queries are not finite.
  absl::StatusOr<QueryShapes> Shapes(const BlockCodec& codec) const;

 private:
  static constexpr uint32_t kPositions = 8;

  const uint32_t kv_heads_, dim_, positions_;
  std::vector<at::Tensor> sums_;  // by layer: double [KV heads, d, d]
};

}  // namespace quire::worker
