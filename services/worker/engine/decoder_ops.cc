#include "services/worker/engine/decoder_ops.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

constexpr int64_t kLeastRows = 8;

}  // namespace

at::Tensor Product(const at::Tensor& x, const at::Tensor& weight) {
  if (x.size(0) > 1) return at::linear(x, weight);
  const int64_t rows = weight.size(0), parts = std::min<int64_t>(rows, 2 * Threads());
  const at::Tensor row = x.view({-1});
  at::Tensor out = at::empty({1, rows}, at::kFloat);
  ParallelFor(parts, [&](int64_t i) {
    c10::InferenceMode inference;  // of this thread
    const int64_t first = rows * i / parts, n = rows * (i + 1) / parts - first;
    at::Tensor mine = out.view({-1}).narrow(0, first, n);
    at::mv_out(mine, weight.narrow(0, first, n), row);
  });
  return out;
}

void AddProduct(at::Tensor& x, const at::Tensor& y, const at::Tensor& weight) {
  if (x.size(0) > 1) {
    x.addmm_(y, weight.t());
  } else {
    x.add_(Product(y, weight));
  }
}

at::Tensor PadRows(const at::Tensor& x) {
  const int64_t n = x.size(0);
  return n == 1 || n >= kLeastRows ? x : at::constant_pad_nd(x, {0, 0, 0, kLeastRows - n});
}

Turns::Turns(uint32_t start, size_t positions, const Options& options)
    : kind_(options.pairs), pairs_(options.dims / 2) {
  std::vector<double> speeds(pairs_);
  for (uint32_t i = 0; i < pairs_; ++i)
    speeds[i] = std::pow(options.base, -2.0 * i / options.dims) / options.factor;
  cos_.reserve(positions * pairs_);
  sin_.reserve(positions * pairs_);
  for (size_t p = 0; p < positions; ++p) {
    for (const double speed : speeds) {
      const double angle = static_cast<double>(start + p) * speed;
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void Turns::Apply(size_t p, float* x) const {
  const float* c = cos_.data() + p * pairs_;
  const float* s = sin_.data() + p * pairs_;
  const uint32_t step = kind_ == RopePairs::kAdjacent ? 2 : 1,
                 apart = kind_ == RopePairs::kAdjacent ? 1 : pairs_;
  for (uint32_t i = 0; i < pairs_; ++i) {
    float& first = x[step * i];
    float& second = x[step * i + apart];
    const float a = first, b = second;
    first = a * c[i] - b * s[i];
    second = a * s[i] + b * c[i];
  }
}

at::Tensor TurnAndStore(const at::Tensor& qkv, const Turns& turns, uint32_t query_heads, uint32_t layer,
                        KvSequence& kv) {
  const uint32_t d = kv.dim(), kv_heads = kv.heads(), start = kv.length();
  const int64_t n = kv.reserved_end() - start, width = qkv.size(1);
  at::Tensor q = at::empty({n, query_heads, d}, at::kFloat);
  float* const from = qkv.data_ptr<float>();
  float* const q_to = q.data_ptr<float>();
  ParallelFor(n, [&](int64_t i) {
    const uint32_t position = start + static_cast<uint32_t>(i);
    float* row = from + i * width;
    for (uint32_t h = 0; h < query_heads + kv_heads; ++h) turns.Apply(static_cast<size_t>(i), row + h * d);
    std::copy_n(row, query_heads * d, q_to + i * query_heads * d);
    const float* k = row + query_heads * d;
    const float* v = k + kv_heads * d;
    for (uint32_t h = 0; h < kv_heads; ++h) kv.StoreKv(layer, h, position, k + h * d, v + h * d);
  });
  return q;
}

}  // namespace quire::worker
