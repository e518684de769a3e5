#include "services/worker/engine/kv_sequence.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

// Whole runs of elements, with the dtype decided outside the loop so that it vectorises.
void Store(DType dtype, const float* from, size_t n, uint8_t* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, n * sizeof(float));
  } else if (dtype == DType::kBf16) {
    auto* bits = reinterpret_cast<uint16_t*>(to);
    for (size_t i = 0; i < n; ++i) bits[i] = ToBf16(from[i]);
  } else {
    for (size_t i = 0; i < n; ++i) StoreElement(dtype, to, i, from[i]);
  }
}

void Load(DType dtype, const uint8_t* from, size_t n, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, n * sizeof(float));
  } else if (dtype == DType::kBf16) {
    const auto* bits = reinterpret_cast<const uint16_t*>(from);
    for (size_t i = 0; i < n; ++i) to[i] = FromBf16(bits[i]);
  } else {
    for (size_t i = 0; i < n; ++i) to[i] = LoadElement(dtype, from, i);
  }
}

// A block that somebody stored as tq_prod is as good as none: tokens computed again are nearer to the
// model's.
absl::Status CheckAttendable(const BlockHeader& header) {
  for (size_t layer = 0; layer < header.codecs.size(); ++layer) {
    if (header.codecs[layer].codec != CodecId::kTqProd) continue;
    return absl::DataLossError(
        absl::StrCat("layer ", layer, " is coded as tq_prod, which is not for attention"));
  }
  return absl::OkStatus();
}

}  // namespace

KvSequence::KvSequence(std::shared_ptr<const BlockCodec> codec, CodecSpec spec,
                       std::shared_ptr<const QueryShapes> shapes, const Digest& root, Limits limits,
                       Mode mode)
    : codec_(std::move(codec)),
      spec_(std::move(spec)),
      shapes_(std::move(shapes)),
      root_(root),
      limits_(limits),
      mode_(mode),
      dtype_(mode == Mode::kServing ? codec_->layout().dtype : DType::kF32),
      layers_(codec_->part().layers()),
      heads_(codec_->part().heads()),
      dim_(codec_->layout().layers.front().streams.front().dim) {}

absl::Status KvSequence::CheckTokens(std::span<const uint32_t> tokens) const {
  if (tokens.size() > limits_.context - std::min(limits_.context, reserved_end())) {
    return absl::InvalidArgumentError(absl::StrCat("the context holds ", limits_.context, " tokens; ",
                                                   reserved_end(), " are there and ", tokens.size(),
                                                   " more were given"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= limits_.vocabulary) {
      return absl::InvalidArgumentError(absl::StrCat("token ", tokens[i], " at position ", reserved_end() + i,
                                                     " is not in the vocabulary of ", limits_.vocabulary));
    }
  }
  return absl::OkStatus();
}

BlockIdentity KvSequence::NextIdentity(std::span<const uint32_t> tokens) const {
  BlockIdentity identity;
  identity.parent = sealed_.empty() ? root_ : sealed_.back().identity.key;
  identity.key = BlockKey(identity.parent, tokens);
  identity.index = static_cast<uint32_t>(sealed_.size());
  return identity;
}

absl::Status KvSequence::Restore(std::span<const uint32_t> tokens,
                                 std::shared_ptr<const std::vector<uint8_t>> object) {
  if (length_ != sealed_.size() * kBlockTokens || !pending_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a block can be restored only behind whole blocks; the sequence holds ", length_, " tokens"));
  }
  if (tokens.size() != kBlockTokens || object == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("a block is ", kBlockTokens, " tokens and an object; got ",
                                                   tokens.size(), " tokens",
                                                   object == nullptr ? " and no object" : ""));
  }
  QUIRE_RETURN_IF_ERROR(CheckTokens(tokens));
  const BlockIdentity identity = NextIdentity(tokens);
  absl::StatusOr<BlockReader> reader = BlockReader::Open(codec_, identity, *object);
  absl::Status status = reader.ok() ? reader->Verify() : reader.status();
  absl::StatusOr<Sinks> sinks;
  if (status.ok() && mode_ == Mode::kServing) status = CheckAttendable(reader->header());
  if (status.ok() && identity.index == 0) {
    sinks = SinksOf(*reader);
    status = sinks.status();
  }
  if (!status.ok()) {
    return absl::DataLossError(
        absl::StrCat("block ", identity.index, " not restored: ", std::string(status.message())));
  }
  if (identity.index == 0) sinks_ = *std::move(sinks);
  KvPage page;
  page.codes = *std::move(reader);
  pages_.push_back(std::move(page));
  sealed_.push_back({identity, std::move(object)});
  length_ += kBlockTokens;
  pending_start_ = length_;
  next_drop_ = static_cast<uint32_t>(sealed_.size());
  return absl::OkStatus();
}

uint64_t KvSequence::kv_bytes() const {
  uint64_t bytes = (sinks_.k.size() + sinks_.v.size()) * sizeof(float);
  for (const SealedBlock& block : sealed_) {
    if (block.object != nullptr) bytes += block.object->size();
  }
  for (const KvPage& page : pages_) {
    if (page.raw != nullptr) bytes += page.raw->k.size() + page.raw->v.size();
  }
  return bytes;
}

absl::Status KvSequence::Reserve(std::span<const uint32_t> tokens) {
  QUIRE_RETURN_IF_ERROR(CheckTokens(tokens));
  pending_.insert(pending_.end(), tokens.begin(), tokens.end());
  const size_t bytes = RunOffset(layers_, 0) * SizeOf(dtype_);
  while (pages_.size() * kBlockTokens < reserved_end()) {
    KvPage page;
    page.raw = std::make_unique<RawBlock>();
    page.raw->k.resize(bytes);
    page.raw->v.resize(bytes);
    pages_.push_back(std::move(page));
  }
  return absl::OkStatus();
}

void KvSequence::StoreKv(uint32_t layer, uint32_t head, uint32_t position, const float* k, const float* v) {
  RawBlock& raw = *pages_[position / kBlockTokens].raw;
  const size_t at = RunOffset(layer, head) + size_t{position % kBlockTokens} * dim_;
  Store(dtype_, k, dim_, raw.k.data() + at * SizeOf(dtype_));
  Store(dtype_, v, dim_, raw.v.data() + at * SizeOf(dtype_));
}

void KvSequence::LoadRaw(const KvPage& page, uint32_t layer, uint32_t head, uint32_t first, uint32_t count,
                         float* k, float* v) const {
  const size_t at = (RunOffset(layer, head) + size_t{first} * dim_) * SizeOf(dtype_),
               n = size_t{count} * dim_;
  Load(dtype_, page.raw->k.data() + at, n, k);
  Load(dtype_, page.raw->v.data() + at, n, v);
}

void KvSequence::LoadSinks(uint32_t layer, uint32_t head, float* k, float* v) const {
  const size_t n = size_t{kMaxSinkTokens} * dim_;
  std::copy_n(sinks_.k.data() + SinkOffset(layer, head), n, k);
  std::copy_n(sinks_.v.data() + SinkOffset(layer, head), n, v);
}

absl::Status KvSequence::Commit() {
  length_ = reserved_end();
  if (mode_ == Mode::kEvaluation) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(Seal());
  DropOldRaw();
  return absl::OkStatus();
}

absl::Status KvSequence::EncodeBlock(uint32_t index, const BlockIdentity& identity, const CodecSpec& spec,
                                     std::vector<uint8_t>* object) const {
  const RawBlock* raw = index < pages_.size() ? pages_[index].raw.get() : nullptr;
  if (raw == nullptr)
    return absl::InternalError(absl::StrCat("block ", index, " is not held raw and can't be encoded"));
  std::vector<LayerView> views(layers_);
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    const ptrdiff_t token_stride = dim_, head_stride = static_cast<ptrdiff_t>(kBlockTokens) * dim_;
    views[layer].key = {raw->k.data() + RunOffset(layer, 0) * SizeOf(dtype_), dtype_, token_stride,
                        head_stride};
    views[layer].value = {raw->v.data() + RunOffset(layer, 0) * SizeOf(dtype_), dtype_, token_stride,
                          head_stride};
  }
  return codec_->Encode(spec, identity, views, object, OneByOne, shapes_.get());
}

// Encodes every block that has become whole. Blocks don't depend on each other once their keys are known, so
// they go side by side.
absl::Status KvSequence::Seal() {
  const size_t first = sealed_.size(), end = length_ / kBlockTokens;
  if (first == end) return absl::OkStatus();
  for (size_t index = first; index < end; ++index) {
    std::span<const uint32_t> tokens =
        std::span(pending_).subspan((index - first) * kBlockTokens, kBlockTokens);
    sealed_.push_back({NextIdentity(tokens), nullptr});
  }
  std::vector<absl::Status> statuses(end - first);
  ParallelFor(static_cast<int64_t>(end - first), [&](int64_t i) {
    const size_t index = first + static_cast<size_t>(i);
    SealedBlock& block = sealed_[index];
    auto object = std::make_shared<std::vector<uint8_t>>();
    absl::Status status = EncodeBlock(static_cast<uint32_t>(index), block.identity, spec_, object.get());
    if (status.code() == absl::StatusCode::kInvalidArgument)
      return;  // a NaN or an infinity: stays raw, is never offloaded
    if (status.ok()) {
      object->shrink_to_fit();
      absl::StatusOr<BlockReader> reader = BlockReader::Open(codec_, block.identity, *object);
      status = reader.status();
      if (reader.ok()) {
        pages_[index].codes = *std::move(reader);
        block.object = std::move(object);
      }
    }
    statuses[static_cast<size_t>(i)] = std::move(status);
  });
  for (const absl::Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>((end - first) * kBlockTokens));
  pending_start_ = static_cast<uint32_t>(end * kBlockTokens);
  return absl::OkStatus();
}

void KvSequence::DropOldRaw() {
  for (; (next_drop_ + 1) * kBlockTokens + kRawWindow <= length_; ++next_drop_) {
    KvPage& page = pages_[next_drop_];
    if (page.raw == nullptr || !page.codes.has_value()) continue;
    if (next_drop_ == 0) sinks_ = SinksOf(page);
    page.raw.reset();
  }
}

KvSequence::Sinks KvSequence::SinksOf(const KvPage& page) const {
  Sinks sinks;
  sinks.k.resize(SinkOffset(layers_, 0));
  sinks.v.resize(SinkOffset(layers_, 0));
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    for (uint32_t head = 0; head < heads_; ++head) {
      const size_t at = SinkOffset(layer, head);
      LoadRaw(page, layer, head, 0, kMaxSinkTokens, sinks.k.data() + at, sinks.v.data() + at);
    }
  }
  return sinks;
}

absl::StatusOr<KvSequence::Sinks> KvSequence::SinksOf(const BlockReader& reader) const {
  if (reader.header().sink_tokens != kMaxSinkTokens) {
    return absl::DataLossError(absl::StrCat("block 0 must hold ", kMaxSinkTokens, " raw sink tokens, has ",
                                            reader.header().sink_tokens));
  }
  Sinks sinks;
  sinks.k.resize(SinkOffset(layers_, 0));
  sinks.v.resize(SinkOffset(layers_, 0));
  const size_t n = size_t{kMaxSinkTokens} * dim_;
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    for (uint32_t head = 0; head < heads_; ++head) {
      const size_t at = SinkOffset(layer, head);
      QUIRE_RETURN_IF_ERROR(reader.DecodeSinks(layer, head, std::span(sinks.k).subspan(at, n),
                                               std::span(sinks.v).subspan(at, n)));
    }
  }
  return sinks;
}

}  // namespace quire::worker
