#include "services/worker/engine/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/status_macros.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

constexpr int64_t kRotatedRows = 2048;  // of a tile: bounds the scratch to 2 × KV heads × 2048 × d floats
constexpr int64_t kSpanRows = 512;      // see the header
constexpr int64_t kQueryRows =
    32;  // query rows come in multiples of this, so that no product has a remainder of a few rows
static_assert(kSpanRows % kBlockTokens == 0);
constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();
// What a query has left behind its window gets, instead of −infinity: a tile of which it sees nothing then
// has a finite result, whose weight beside any other tile's is exactly 0.
constexpr float kOutOfWindow = -1e30f;

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

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

}  // namespace

PageAttention::PageAttention(std::shared_ptr<const BlockCodec> codec, uint32_t query_heads,
                             double score_scale)
    : codec_(std::move(codec)),
      query_heads_(query_heads),
      kv_heads_(codec_->part().heads()),
      dim_(codec_->layout().layers.front().streams.front().dim),
      score_scale_(score_scale) {
  at::Tensor columns = at::eye(dim_, at::kFloat);  // row i becomes R·e_i, R's column i
  for (int64_t i = 0; i < dim_; ++i) {
    float* row = columns.data_ptr<float>() + i * dim_;
    codec_->Rotate(static_cast<uint32_t>(dim_), row, row);
  }
  rotation_ = columns.t().contiguous();
  k_scratch_ = at::empty({0}, at::kFloat);
  v_scratch_ = at::empty({0}, at::kFloat);
}

void PageAttention::Tile::Add(uint32_t page, uint32_t count) {
  const int64_t position = int64_t{page} * kBlockTokens;
  if (spans.empty()) {
    aligned = position % kSpanRows == 0 && !sinks;
  } else if (aligned) {
    aligned = position == int64_t{spans.front().page} * kBlockTokens + rows;
  }
  spans.push_back({page, count, rows});
  rows += count;
}

std::vector<int64_t> PageAttention::Tile::Positions(int64_t padded_rows) const {
  std::vector<int64_t> positions(static_cast<size_t>(padded_rows), kNowhere);
  if (sinks) std::iota(positions.begin(), positions.begin() + kMaxSinkTokens, int64_t{0});
  for (const Span& span : spans) {
    const auto at = positions.begin() + span.row;
    std::iota(at, at + span.count, int64_t{span.page} * kBlockTokens);
  }
  positions.erase(positions.begin(), positions.begin() + skip);
  return positions;
}

// The last tile is a direct one and ends with the queries' own tokens.
std::vector<PageAttention::Tile> PageAttention::Plan(const KvSequence& kv, uint32_t layer, int64_t window) {
  std::vector<Tile> tiles;
  Tile rotated{}, direct{};
  rotated.rotated = true;
  auto flush = [&](Tile& tile) {
    tiles.push_back(tile);
    tile = Tile{};
    tile.rotated = tiles.back().rotated;
  };
  const std::span<const KvPage> pages = kv.pages();
  const int64_t first_seen = window == 0 ? 0 : int64_t{kv.length()} - window + 1;
  // One query alone needs no fixed spans.
  const int64_t direct_step = kv.reserved_end() - kv.length() == 1 ? int64_t{kBlockTokens} : kSpanRows;
  for (uint32_t p = 0; p < pages.size(); ++p) {
    const uint32_t first = p * kBlockTokens;
    const bool is_rotated =
        pages[p].raw == nullptr && pages[p].codes->header().codecs[layer].codec == CodecId::kTq;
    const int64_t step = is_rotated ? int64_t{kBlockTokens} : direct_step;
    if (first / step * step + step <= first_seen) continue;
    // Direct rows that don't make whole spans (the raw window behind rotated codes) stay together.
    const bool whole = (direct.aligned && direct.rows == kSpanRows) || direct.rows >= 2 * kSpanRows;
    if (first % kSpanRows == 0 && first <= kv.length() && whole) flush(direct);
    const KvPage& page = pages[p];
    if (page.raw != nullptr) {
      direct.Add(p, std::min(kBlockTokens, kv.reserved_end() - first));
    } else if (!is_rotated) {
      direct.Add(p, kBlockTokens);
    } else {
      if (p == 0) {
        rotated.skip = direct.rows = kMaxSinkTokens;
        direct.sinks = true;
      }
      rotated.Add(p, kBlockTokens);
      if (rotated.rows == kRotatedRows) flush(rotated);
    }
  }
  if (rotated.rows > 0) flush(rotated);
  flush(direct);
  return tiles;
}

// The block's mean is added to each rotated key here: one addition an element, cheaper than a product a query
// and block once a chunk has more than a few queries, and the same score.
absl::Status PageAttention::FillRotated(const BlockReader& codes, uint32_t layer, uint32_t head, float* k,
                                        float* v) const {
  const size_t d = static_cast<size_t>(dim_);
  std::vector<float> mean(d);
  QUIRE_RETURN_IF_ERROR(codes.DecodeRotated(
      layer, head, codes.levels(), {.k = {k, kBlockTokens * d}, .k_mean = mean, .v = {v, kBlockTokens * d}}));
  for (size_t t = 0; t < kBlockTokens; ++t) {
    for (size_t c = 0; c < d; ++c) k[t * d + c] += mean[c];
  }
  return absl::OkStatus();
}

absl::Status PageAttention::FillDirect(const KvSequence& kv, uint32_t layer, const Span& span, int64_t rows,
                                       float* k, float* v) const {
  const KvPage& page = kv.pages()[span.page];
  if (page.raw == nullptr) {
    const MutableLayerView out{.key = {k, DType::kF32, dim_, rows * dim_},
                               .value = {v, DType::kF32, dim_, rows * dim_}};
    return page.codes->DecodeLayer(layer, page.codes->levels(), out);
  }
  for (int64_t head = 0; head < kv_heads_; ++head) {
    kv.LoadRaw(page, layer, static_cast<uint32_t>(head), 0, span.count, k + head * rows * dim_,
               v + head * rows * dim_);
  }
  return absl::OkStatus();
}

absl::Status PageAttention::Fill(const KvSequence& kv, uint32_t layer, const Tile& tile, int64_t rows,
                                 float* k, float* v) const {
  const int64_t head_stride = rows * dim_, spans = static_cast<int64_t>(tile.spans.size());
  for (int64_t head = 0; head < kv_heads_; ++head) {
    if (tile.sinks)
      kv.LoadSinks(layer, static_cast<uint32_t>(head), k + head * head_stride, v + head * head_stride);
    std::fill(k + head * head_stride + tile.rows * dim_, k + (head + 1) * head_stride, 0.0f);
    std::fill(v + head * head_stride + tile.rows * dim_, v + (head + 1) * head_stride, 0.0f);
  }
  std::vector<absl::Status> statuses(static_cast<size_t>(tile.rotated ? spans * kv_heads_ : spans));
  auto fill = [&](int64_t i) {
    const Span& span = tile.spans[static_cast<size_t>(i % spans)];
    const int64_t head = i / spans, at = head * head_stride + span.row * dim_;
    statuses[static_cast<size_t>(i)] = tile.rotated ? FillRotated(*kv.pages()[span.page].codes, layer,
                                                                  static_cast<uint32_t>(head), k + at, v + at)
                                                    : FillDirect(kv, layer, span, rows, k + at, v + at);
  };
  const bool copies_only = std::all_of(tile.spans.begin(), tile.spans.end(), [&](const Span& span) {
    return kv.pages()[span.page].raw != nullptr;
  });
  if (copies_only) {  // done before another thread would have woken up
    for (size_t i = 0; i < statuses.size(); ++i) fill(static_cast<int64_t>(i));
  } else {
    ParallelFor(static_cast<int64_t>(statuses.size()), fill);
  }
  for (const absl::Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

const at::Tensor& PageAttention::MaskOf(int64_t start, int64_t n, int64_t window, int64_t query_rows,
                                        std::vector<int64_t> positions) {
  if (!masks_.empty() && (masks_[0].start != start || masks_[0].n != n)) masks_.clear();
  for (const Mask& mask : masks_) {
    if (mask.window == window && mask.positions == positions) return mask.values;
  }
  const int64_t rows = static_cast<int64_t>(positions.size());
  at::Tensor values = at::zeros({1, 1, query_rows, rows}, at::kFloat);
  float* row = values.data_ptr<float>();
  for (int64_t r = 0; r < query_rows; ++r, row += rows) {
    const int64_t position = start + r % n;
    if (window > 0) {
      const auto seen = std::upper_bound(positions.begin(), positions.end(), position - window);
      std::fill(row, row + (seen - positions.begin()), kOutOfWindow);
    }
    const auto later = std::upper_bound(positions.begin(), positions.end(), position);
    std::fill(row + (later - positions.begin()), row + rows, -std::numeric_limits<float>::infinity());
  }
  masks_.push_back({start, n, window, std::move(positions), std::move(values)});
  return masks_.back().values;
}

absl::StatusOr<at::Tensor> PageAttention::Run(const KvSequence& kv, uint32_t layer, const at::Tensor& q) {
  const int64_t n = q.size(0), group_rows = query_heads_ / kv_heads_ * n;
  const int64_t query_rows = n == 1 ? group_rows : RoundUp(group_rows, kQueryRows);
  const int64_t start = kv.length(), window = codec_->layout().layers[layer].streams.front().sliding_window;
  // [1, KV heads, group · n and padding, d]: the queries of a group stand below each other and share one pass
  // over their KV head.
  at::Tensor plain =
      q.view({n, query_heads_, dim_}).transpose(0, 1).reshape({1, kv_heads_, group_rows, dim_});
  if (query_rows > group_rows) plain = at::constant_pad_nd(plain, {0, 0, 0, query_rows - group_rows});
  at::Tensor rotated;
  Accumulator sum;
  const std::vector<Tile> tiles = Plan(kv, layer, window);
  for (const Tile& tile : tiles) {
    const bool own = n > 1 && &tile == &tiles.back();
    const int64_t rows = own && tile.aligned ? RoundUp(tile.rows, kSpanRows) : tile.rows;
    const int64_t elements = kv_heads_ * rows * dim_;
    if (k_scratch_.numel() < elements) {
      k_scratch_ = at::empty({elements}, at::kFloat);
      v_scratch_ = at::empty({elements}, at::kFloat);
    }
    QUIRE_RETURN_IF_ERROR(
        Fill(kv, layer, tile, rows, k_scratch_.data_ptr<float>(), v_scratch_.data_ptr<float>()));
    auto seen = [&](const at::Tensor& scratch) {
      return scratch.narrow(0, 0, elements)
          .view({1, kv_heads_, rows, dim_})
          .narrow(2, tile.skip, rows - tile.skip);
    };
    if (tile.rotated && !rotated.defined()) rotated = at::matmul(plain, rotation_.t());
    std::optional<at::Tensor> mask;
    std::vector<int64_t> positions = tile.Positions(rows);
    const bool behind = window > 0 && positions.front() <= start + n - 1 - window;
    if (own || behind) mask = MaskOf(start, n, window, query_rows, std::move(positions));
    auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        tile.rotated ? rotated : plain, seen(k_scratch_), seen(v_scratch_), 0.0,
        /*is_causal=*/false, mask, score_scale_);
    sum.Add(tile.rotated, out.reshape({kv_heads_, query_rows, dim_}), lse.reshape({kv_heads_, query_rows}));
  }
  // [KV heads, group · n, d] → [n, query heads · d]
  const at::Tensor out = sum.Finish(rotation_).narrow(1, 0, group_rows).reshape({query_heads_, n, dim_});
  return out.transpose(0, 1).reshape({n, query_heads_ * dim_});
}

}  // namespace quire::worker
