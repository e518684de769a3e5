#include "services/worker/engine/query_moments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {

QueryMoments::QueryMoments(uint32_t layers, uint32_t kv_heads, uint32_t dim, uint32_t positions)
    : kv_heads_(kv_heads), dim_(dim), positions_(std::clamp<uint32_t>(positions, 1, 8192)), sums_(layers) {
  for (at::Tensor& sum : sums_) sum = at::zeros({kv_heads, dim, dim}, at::kDouble);
}

void QueryMoments::Add(uint32_t layer, const at::Tensor& q, const Turns::Options& turns) {
  const int64_t n = q.size(0), heads = q.size(1), d = dim_;
  for (uint32_t k = 0; k < kPositions; ++k) {
    // The first stays where it is, the others stand as evenly as multiples of the golden ratio.
    const double share = k * 0.6180339887498949;
    const auto offset = static_cast<uint32_t>((share - static_cast<uint32_t>(share)) * positions_);
    const Turns further(offset, 1, turns);
    const at::Tensor turned = q.clone(at::MemoryFormat::Contiguous);
    float* rows = turned.data_ptr<float>();
    ParallelFor(n * heads, [&](int64_t i) { further.Apply(0, rows + i * d); });
    // [n, KV heads, group, d] → [KV heads, n · group, d]
    const at::Tensor by_head =
        turned.view({n, kv_heads_, heads / kv_heads_, d}).transpose(0, 1).reshape({kv_heads_, -1, d});
    sums_[layer].add_(at::bmm(by_head.transpose(1, 2), by_head).to(at::kDouble));
  }
}

absl::StatusOr<QueryShapes> QueryMoments::Shapes(const BlockCodec& codec) const {
  QueryShapes shapes(sums_.size());
  std::vector<absl::StatusOr<QueryShape>> made(sums_.size() * kv_heads_, absl::UnknownError(""));
  const size_t elements = size_t{dim_} * dim_;
  ParallelFor(static_cast<int64_t>(made.size()), [&](int64_t i) {
    const auto layer = static_cast<uint32_t>(i / kv_heads_);
    const double* sum = sums_[layer].data_ptr<double>() + (i % kv_heads_) * static_cast<int64_t>(elements);
    std::vector<double> moments(sum, sum + elements);
    // Heads whose queries are zero have no direction to spare.
    if (std::all_of(moments.begin(), moments.end(), [](double m) { return m == 0; })) {
      for (size_t c = 0; c < dim_; ++c) moments[c * dim_ + c] = 1;
    }
    made[static_cast<size_t>(i)] = codec.ShapeOf(layer, moments);
  });
  for (size_t i = 0; i < made.size(); ++i) {
    QUIRE_ASSIGN_OR_RETURN(QueryShape shape, std::move(made[i]));
    shapes[i / kv_heads_].push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace quire::worker
