#include "services/store/client/layer_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/status.h"

namespace quire::store {

absl::StatusOr<std::unique_ptr<LayerStream>> LayerStream::Open(
    v1::KvStore::Stub& stub, std::shared_ptr<grpc::ClientContext> context, const v1::GetRequest& request,
    const Part& part, std::vector<BlockIdentity> blocks, const RemoteGet::CodecOf& codec_of) {
  std::unique_ptr<Stream> stream = stub.Get(context.get(), request);
  std::unique_ptr<LayerStream> layers(
      new LayerStream(std::move(context), std::move(stream), part, std::move(blocks)));
  QUIRE_RETURN_IF_ERROR(layers->ReadMisses());
  layers->objects_.resize(layers->present_);
  for (uint32_t i = 0; i < layers->present_; ++i) QUIRE_RETURN_IF_ERROR(layers->ReadHeader(i, codec_of));
  return layers;
}

LayerStream::~LayerStream() {
  if (finished_) return;
  context_->TryCancel();
  while (stream_->Read(&response_)) {
  }
  stream_->Finish();
}

absl::Status LayerStream::Unexpected(uint32_t block, int32_t layer, uint64_t offset) const {
  const v1::BlockData& data = response_.data();
  return absl::InternalError(absl::StrCat("store sent block ", data.block(), ", layer ", data.layer(), " at ",
                                          data.offset(), " where block ", block, ", layer ", layer, " at ",
                                          offset, " comes next"));
}

absl::Status LayerStream::Advance() {
  pending_ = false;
  while (stream_->Read(&response_)) {
    if (response_.has_miss()) {
      // The store found wrong bytes behind those it has sent.
      const v1::GetMiss& miss = response_.miss();
      if (miss.block() >= present_) continue;
      return absl::DataLossError(
          absl::StrCat("block ", miss.block(), " was lost while it was sent: ", miss.message()));
    }
    if (!response_.has_data())
      return absl::InternalError("store sent something else than data after the first of them");
    if (response_.data().block() >= blocks_.size()) return Unexpected(present_, 0, 0);
    if (response_.data().block() >= present_) continue;  // after a missing block: of no use
    pending_ = true;
    return absl::OkStatus();
  }
  finished_ = true;
  absl::Status status = runtime::FromGrpc(stream_->Finish());
  return status.ok() ? absl::InternalError("store ended a Get before its time") : status;
}

absl::Status LayerStream::ReadMisses() {
  present_ = static_cast<uint32_t>(blocks_.size());
  while (stream_->Read(&response_)) {
    if (response_.has_miss()) {
      const v1::GetMiss& miss = response_.miss();
      if (miss.block() >= blocks_.size() || miss.code() == 0)
        return absl::InternalError(absl::StrCat("store reported a miss of block ", miss.block(), " of ",
                                                blocks_.size(), " with code ", miss.code()));
      if (miss.block() >= present_) continue;
      present_ = miss.block();
      miss_ = absl::Status(static_cast<absl::StatusCode>(miss.code()), miss.message());
    } else {
      pending_ = response_.has_data() && response_.data().block() < present_;
      // A block whose predecessor is missing is of no use; its bytes are passed over.
      return pending_ || present_ == 0 ? absl::OkStatus() : Advance();
    }
  }
  finished_ = true;
  QUIRE_RETURN_IF_ERROR(runtime::FromGrpc(stream_->Finish()));
  return present_ == 0 ? absl::OkStatus() : absl::InternalError("store ended a Get before its time");
}

absl::Status LayerStream::ReadHeader(uint32_t block, const RemoteGet::CodecOf& codec_of) {
  constexpr int32_t kHeaderLayer = -1;
  if (!pending_) QUIRE_RETURN_IF_ERROR(Advance());
  const v1::BlockData& data = response_.data();
  if (data.block() != block || data.layer() != kHeaderLayer || data.offset() != 0)
    return Unexpected(block, kHeaderLayer, 0);
  auto wrong = [&](const absl::Status& status) {
    return absl::DataLossError(absl::StrCat("block ", block, ": ", std::string(status.message())));
  };
  // A length is believed once the header, whose checksum holds, agrees.
  absl::StatusOr<uint32_t> header_bytes = HeaderBytes(AsBytes(data.data()));
  if (!header_bytes.ok()) return wrong(header_bytes.status());
  uint64_t total = data.object_bytes();
  std::vector<uint8_t> header;
  header.reserve(*header_bytes);
  while (header.size() < *header_bytes) {
    if (!pending_) QUIRE_RETURN_IF_ERROR(Advance());
    const v1::BlockData& more = response_.data();
    if (more.block() != block || more.layer() != kHeaderLayer || more.offset() != header.size() ||
        more.data().empty() || more.data().size() > *header_bytes - header.size())
      return Unexpected(block, kHeaderLayer, header.size());
    header.insert(header.end(), more.data().begin(), more.data().end());
    pending_ = false;
  }
  absl::StatusOr<BlockHeader> parsed = ParseHeader(header);
  if (!parsed.ok()) return wrong(parsed.status());
  if (!parsed->part.Covers(part_))
    return wrong(absl::DataLossError("what came does not cover the part asked for"));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, codec_of(parsed->part));
  absl::StatusOr<SliceMap> map =
      SliceMap::Create(codec->layout(), parsed->part, parsed->codecs, parsed->sink_tokens);
  if (!map.ok()) return wrong(map.status());
  if (absl::StatusOr<int> levels = map->LevelsOf(total); !levels.ok()) return wrong(levels.status());

  Object& object = objects_[block];
  object = {std::make_unique_for_overwrite<uint8_t[]>(total), total};
  std::memcpy(object.bytes.get(), header.data(), header.size());
  absl::StatusOr<BlockReader> reader = BlockReader::Open(std::move(codec), blocks_[block], object.view());
  if (!reader.ok()) return wrong(reader.status());
  readers_.push_back(*std::move(reader));
  return absl::OkStatus();
}

absl::Status LayerStream::ReadExtent(uint32_t block, int32_t layer, const Extent& extent) {
  uint64_t at = extent.offset;
  while (at < extent.end()) {
    if (!pending_) QUIRE_RETURN_IF_ERROR(Advance());
    const v1::BlockData& data = response_.data();
    if (data.block() != block || data.layer() != layer || data.offset() != at || data.data().empty() ||
        data.data().size() > extent.end() - at)
      return Unexpected(block, layer, at);
    std::memcpy(objects_[block].bytes.get() + at, data.data().data(), data.data().size());
    at += data.data().size();
    pending_ = false;
  }
  return absl::OkStatus();
}

uint32_t LayerStream::reader_layer(uint32_t block) const {
  return part_.layer_begin + next_layer_ - 1 - readers_[block].header().part.layer_begin;
}

absl::Status LayerStream::ReadLayer(uint32_t block, uint32_t layer) {
  const BlockReader& reader = readers_[block];
  const Part& stored = reader.header().part;
  const SliceMap& slices = reader.slices();
  uint32_t stored_layer = part_.layer_begin + layer - stored.layer_begin;
  int32_t name = static_cast<int32_t>(layer);
  bool all_heads = stored.head_begin == part_.head_begin && stored.head_end == part_.head_end;
  uint32_t head_begin = part_.head_begin - stored.head_begin, head_end = part_.head_end - stored.head_begin;
  for (int level = 0; level < reader.levels(); ++level) {
    if (all_heads) {
      QUIRE_RETURN_IF_ERROR(ReadExtent(block, name, slices.layer(level, stored_layer)));
    } else {
      if (level == 0) QUIRE_RETURN_IF_ERROR(ReadExtent(block, name, slices.sinks(stored_layer)));
      Extent first = slices.slice(level, stored_layer, head_begin);
      Extent last = slices.slice(level, stored_layer, head_end - 1);
      QUIRE_RETURN_IF_ERROR(ReadExtent(block, name, {first.offset, last.end() - first.offset}));
    }
    QUIRE_RETURN_IF_ERROR(reader.VerifySlices(level, stored_layer, head_begin, head_end));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const BlockReader>> LayerStream::Next() {
  if (next_layer_ >= part_.layers()) return absl::OutOfRangeError("there is no further layer");
  for (uint32_t block = 0; block < present_; ++block) {
    absl::Status status = ReadLayer(block, next_layer_);
    if (absl::IsDataLoss(status)) {
      return absl::DataLossError(
          absl::StrCat("block ", block, " did not arrive as it was stored: ", std::string(status.message())));
    }
    QUIRE_RETURN_IF_ERROR(status);
  }
  ++next_layer_;
  return readers_;
}

}  // namespace quire::store
