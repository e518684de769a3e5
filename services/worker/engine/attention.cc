#include "services/worker/engine/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/float16.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

constexpr size_t kTilePages = 32;  // bounds the scratch: 2 × KV heads × 2048 × d floats

// Σ over tiles of exp(lse_t − lse)·out_t, with the tiles of rotated values kept apart until the end.
class Accumulator {
 public:
  // out [heads, rows, d], lse [heads, rows].
  void Add(bool rotated, const at::Tensor& out, const at::Tensor& lse) {
    at::Tensor& mine = rotated ? rotated_ : plain_;
    at::Tensor& other = rotated ? plain_ : rotated_;
    if (!lse_.defined()) {
      lse_ = lse;
      mine = out;
      return;
    }
    const at::Tensor sum = at::logaddexp(lse_, lse);
    const at::Tensor keep = at::exp(lse_ - sum).unsqueeze(-1), add = at::exp(lse - sum).unsqueeze(-1);
    mine = mine.defined() ? (mine * keep).add_(out * add) : out * add;
    if (other.defined()) other = other * keep;
    lse_ = sum;
  }
  at::Tensor Finish(const at::Tensor& rotation) const {
    if (!rotated_.defined()) return plain_;
    const at::Tensor back = at::matmul(rotated_, rotation);
    return plain_.defined() ? back + plain_ : back;
  }

 private:
  at::Tensor plain_, rotated_, lse_;
};

void Widen(const uint16_t* from, size_t n, float* to) {
  for (size_t i = 0; i < n; ++i) to[i] = FromBf16(from[i]);
}

}  // namespace

PageAttention::PageAttention(std::shared_ptr<const BlockCodec> codec, uint32_t query_heads)
    : codec_(std::move(codec)),
      query_heads_(query_heads),
      kv_heads_(codec_->part().heads()),
      dim_(codec_->layout().layers.front().streams.front().dim) {
  at::Tensor columns = at::eye(dim_, at::kFloat);  // row i becomes R·e_i, R's column i
  for (int64_t i = 0; i < dim_; ++i) {
    float* row = columns.data_ptr<float>() + i * dim_;
    codec_->Rotate(static_cast<uint32_t>(dim_), row, row);
  }
  rotation_ = columns.t().contiguous();
  k_scratch_ = at::empty({0}, at::kFloat);
  v_scratch_ = at::empty({0}, at::kFloat);
}

std::vector<PageAttention::Tile> PageAttention::Plan(const KvSequence& kv, uint32_t layer) {
  const uint32_t start = kv.length(), end = kv.reserved_end();
  std::vector<Tile> tiles;
  Tile raw(Kind::kRaw), own(Kind::kOwn), rotated(Kind::kRotated), plain(Kind::kPlain);
  auto flush = [&](Tile& tile) {
    if (tile.rows > 0) tiles.push_back(tile);
    tile = Tile(tile.kind);
  };
  auto add = [&](Tile& tile, Span run) {
    tile.runs.push_back(run);
    tile.rows += run.count;
    if (tile.runs.size() == kTilePages && tile.kind != Kind::kOwn) flush(tile);
  };
  std::span<const KvPage> pages = kv.pages();
  for (uint32_t p = 0; p < pages.size(); ++p) {
    const uint32_t first = p * kBlockTokens, last = std::min(first + kBlockTokens, end);
    if (pages[p].raw != nullptr) {
      const uint32_t split = std::clamp(start, first, last);  // before it history, from it on the queries' own tokens
      if (split > first) add(raw, {p, 0, split - first});
      if (last > split) add(end - start == 1 ? raw : own, {p, split - first, last - split});  // one token needs no causal mask
      continue;
    }
    Tile& tile = pages[p].codes->header().codecs[layer].codec == CodecId::kTq ? rotated : plain;
    if (p == 0) {
      tile.skip = kMaxSinkTokens;
      raw.sinks = true;
      raw.rows = kMaxSinkTokens;
    }
    add(tile, {p, 0, kBlockTokens});
  }
  for (Tile* tile : {&rotated, &plain, &raw, &own}) flush(*tile);
  return tiles;
}

void PageAttention::FillRaw(const KvSequence& kv, uint32_t layer, const Tile& tile, uint32_t head, float* k, float* v) const {
  const size_t d = static_cast<size_t>(dim_);
  if (tile.sinks) {
    const size_t n = kMaxSinkTokens * d;
    Widen(kv.SinkK(layer).data() + head * n, n, k);
    Widen(kv.SinkV(layer).data() + head * n, n, v);
    k += n;
    v += n;
  }
  for (const Span& run : tile.runs) {
    const RawBlock& raw = *kv.pages()[run.page].raw;
    const size_t from = kv.RunOffset(layer, head) + run.first * d, n = run.count * d;
    Widen(raw.k.data() + from, n, k);
    Widen(raw.v.data() + from, n, v);
    k += n;
    v += n;
  }
}

// The block's mean is added to each rotated key here: one addition an element, cheaper than a product a query and block once a chunk
// has more than a few queries, and the same score.
absl::Status PageAttention::FillRotated(const BlockReader& codes, uint32_t layer, uint32_t head, float* k, float* v) const {
  const size_t d = static_cast<size_t>(dim_);
  std::vector<float> mean(d);
  QUIRE_RETURN_IF_ERROR(
      codes.DecodeRotated(layer, head, codes.levels(), {.k = {k, kBlockTokens * d}, .k_mean = mean, .v = {v, kBlockTokens * d}}));
  for (size_t t = 0; t < kBlockTokens; ++t) {
    for (size_t c = 0; c < d; ++c) k[t * d + c] += mean[c];
  }
  return absl::OkStatus();
}

absl::Status PageAttention::Fill(const KvSequence& kv, uint32_t layer, const Tile& tile, float* k, float* v) const {
  const int64_t head_stride = tile.rows * dim_, runs = static_cast<int64_t>(tile.runs.size());
  if (tile.kind == Kind::kRaw || tile.kind == Kind::kOwn) {
    ParallelFor(kv_heads_, [&](int64_t head) {
      FillRaw(kv, layer, tile, static_cast<uint32_t>(head), k + head * head_stride, v + head * head_stride);
    });
    return absl::OkStatus();
  }
  const bool rotated = tile.kind == Kind::kRotated;
  std::vector<absl::Status> statuses(static_cast<size_t>(rotated ? runs * kv_heads_ : runs));
  ParallelFor(static_cast<int64_t>(statuses.size()), [&](int64_t i) {
    const int64_t run = i % runs, head = i / runs;
    const BlockReader& codes = *kv.pages()[tile.runs[static_cast<size_t>(run)].page].codes;
    const int64_t at = head * head_stride + run * kBlockTokens * dim_;
    if (rotated) {
      statuses[static_cast<size_t>(i)] = FillRotated(codes, layer, static_cast<uint32_t>(head), k + at, v + at);
    } else {
      const MutableLayerView out{.key = {k + at, DType::kF32, dim_, head_stride}, .value = {v + at, DType::kF32, dim_, head_stride}};
      statuses[static_cast<size_t>(i)] = codes.DecodeLayer(layer, codes.levels(), out);
    }
  });
  for (const absl::Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> PageAttention::Run(const KvSequence& kv, uint32_t layer, const at::Tensor& q) {
  const int64_t n = q.size(0), group = query_heads_ / kv_heads_;
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim_));
  // [1, KV heads, group · n, d]: the queries of a group stand below each other and share one pass over their KV head.
  const at::Tensor plain = q.view({n, query_heads_, dim_}).transpose(0, 1).contiguous().view({1, kv_heads_, group * n, dim_});
  at::Tensor rotated;
  Accumulator sum;
  for (const Tile& tile : Plan(kv, layer)) {
    const int64_t elements = kv_heads_ * tile.rows * dim_;
    if (k_scratch_.numel() < elements) {
      k_scratch_ = at::empty({elements}, at::kFloat);
      v_scratch_ = at::empty({elements}, at::kFloat);
    }
    QUIRE_RETURN_IF_ERROR(Fill(kv, layer, tile, k_scratch_.data_ptr<float>(), v_scratch_.data_ptr<float>()));
    const int64_t seen = tile.rows - tile.skip;
    const std::vector<int64_t> shape{1, kv_heads_, tile.rows, dim_};
    at::Tensor k = k_scratch_.narrow(0, 0, elements).view(shape).narrow(2, tile.skip, seen);
    at::Tensor v = v_scratch_.narrow(0, 0, elements).view(shape).narrow(2, tile.skip, seen);
    const bool is_rotated = tile.kind == Kind::kRotated, causal = tile.kind == Kind::kOwn;
    if (is_rotated && !rotated.defined()) rotated = at::matmul(plain, rotation_.t());
    at::Tensor queries = is_rotated ? rotated : plain;
    if (causal) {  // the kernel's causal mask wants each query head by itself
      queries = queries.view({1, query_heads_, n, dim_});
      k = k.repeat_interleave(group, 1);
      v = v.repeat_interleave(group, 1);
    }
    auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(queries, k, v, 0.0, causal, {}, scale);
    sum.Add(is_rotated, out.reshape({kv_heads_, group * n, dim_}), lse.reshape({kv_heads_, group * n}));
  }
  // [KV heads, group, n, d] → [n, query heads · d]
  return sum.Finish(rotation_).view({query_heads_, n, dim_}).transpose(0, 1).reshape({n, query_heads_ * dim_});
}

}  // namespace quire::worker
