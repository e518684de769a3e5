#include "services/store/server/get_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/levels.h"
#include "services/store/engine/raw_form.h"
#include "services/store/wire/convert.h"

namespace quire::store {

absl::Status GetStream::Check() {
  QUIRE_ASSIGN_OR_RETURN(blocks_, AnnouncesFromProto(request_.blocks()));
  if (!v1::GetRequest::Order_IsValid(request_.order())) {
    return absl::InvalidArgumentError(
        absl::StrCat("order ", static_cast<int>(request_.order()), " is not known"));
  }
  if (!(request_.max_relative_error() >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_relative_error ", request_.max_relative_error(), " is no error"));
  }
  if (request_.has_decode()) {
    if (request_.order() == v1::GetRequest::BY_LEVEL) {
      return absl::InvalidArgumentError("order BY_LEVEL gives codes only: decoded tensors have no levels");
    }
    QUIRE_ASSIGN_OR_RETURN(decode_, FromProto(request_.decode().dtype()));
  }
  QUIRE_ASSIGN_OR_RETURN(view_, store_.Resolve(ns_, FromProto(request_.part())));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<GetStream::Source>> GetStream::Open(uint32_t block) {
  absl::StatusOr<OpenedBlock> opened = store_.Open(view_, blocks_[block].identity);
  stream_.Progress();
  if (opened.ok()) {
    int present = opened->reader.levels();
    const BlockHeader& header = opened->reader.header();
    int levels = std::min(LevelsForBits(header, present, request_.max_bits()),
                          LevelsForError(header, present, request_.max_relative_error()));
    return Source{block, levels, *std::move(opened)};
  }
  if (!absl::IsNotFound(opened.status()) && !absl::IsDataLoss(opened.status())) return opened.status();
  v1::GetMiss* miss = response_.mutable_miss();
  miss->set_block(block);
  miss->set_code(static_cast<int32_t>(opened.status().code()));
  miss->set_message(std::string(opened.status().message()));
  if (!writer_.Write(response_)) return stream_.Broken();
  return std::nullopt;
}

absl::StatusOr<std::vector<GetStream::Source>> GetStream::OpenAll() {
  std::vector<Source> sources;
  for (uint32_t i = 0; i < blocks_.size(); ++i) {
    QUIRE_ASSIGN_OR_RETURN(std::optional<Source> source, Open(i));
    if (source) sources.push_back(*std::move(source));
  }
  return sources;
}

absl::Status GetStream::Send(const Source& source, uint64_t offset, Bytes bytes, int32_t layer,
                             uint64_t total) {
  while (!bytes.empty()) {
    v1::BlockData* data = response_.mutable_data();
    const bool placed = placer_.Place(bytes, data->mutable_arena_range());
    Bytes chunk = placed ? bytes : bytes.first(std::min(bytes.size(), kChunkBytes));
    data->set_block(source.block);
    data->set_offset(offset);
    if (placed) {
      data->clear_data();
    } else {
      data->clear_arena_range();
      data->mutable_data()->assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
    }
    data->set_layer(layer);
    data->set_levels(static_cast<uint32_t>(source.levels));
    data->set_object_bytes(total);
    if (!writer_.Write(response_)) return stream_.Broken();
    stream_.Progress();
    offset += chunk.size();
    bytes = bytes.subspan(chunk.size());
  }
  return absl::OkStatus();
}

absl::Status GetStream::SendExtent(const Source& source, const Extent& extent, int32_t layer) {
  return Send(source, extent.offset, source.opened.pinned.bytes.subspan(extent.offset, extent.length), layer,
              source.opened.reader.slices().ObjectBytes(source.levels));
}

absl::Status GetStream::SendObject(const Source& source) {
  return SendExtent(source, {0, source.opened.reader.slices().ObjectBytes(source.levels)}, 0);
}

absl::Status GetStream::SendHeader(const Source& source) {
  return SendExtent(source, {0, source.opened.reader.slices().level(0).offset}, -1);
}

absl::Status GetStream::SendLevelOfLayer(const Source& source, int level, uint32_t layer) {
  const Part& stored = source.opened.reader.header().part;
  const SliceMap& slices = source.opened.reader.slices();
  uint32_t stored_layer = view_.part.layer_begin + layer - stored.layer_begin;
  if (stored.head_begin == view_.part.head_begin && stored.head_end == view_.part.head_end) {
    return SendExtent(source, slices.layer(level, stored_layer), static_cast<int32_t>(layer));
  }
  if (level == 0)
    QUIRE_RETURN_IF_ERROR(SendExtent(source, slices.sinks(stored_layer), static_cast<int32_t>(layer)));
  // Heads of a layer lie side by side. Where the layer has fewer than the part names, the last slices are
  // empty.
  Extent first = slices.slice(level, stored_layer, view_.part.head_begin - stored.head_begin);
  Extent last = slices.slice(level, stored_layer, view_.part.head_end - 1 - stored.head_begin);
  return SendExtent(source, {first.offset, last.end() - first.offset}, static_cast<int32_t>(layer));
}

absl::Status GetStream::SendLayer(const Source& source, uint32_t layer) {
  if (decode_) return SendDecodedLayer(source, layer);
  for (int level = 0; level < source.levels; ++level) {
    QUIRE_RETURN_IF_ERROR(SendLevelOfLayer(source, level, layer));
  }
  return absl::OkStatus();
}

absl::Status GetStream::SendDecodedLayer(const Source& source, uint32_t layer) {
  uint64_t offset = 0;
  for (uint32_t l = 0; l < layer; ++l) offset += RawLayerBytes(layout(), view_.part, l, *decode_);
  decoded_.resize(RawLayerBytes(layout(), view_.part, layer, *decode_));
  QUIRE_RETURN_IF_ERROR(
      DecodeRawLayer(layout(), source.opened.reader, source.levels, view_.part, layer, *decode_, decoded_));
  return Send(source, offset, decoded_, static_cast<int32_t>(layer),
              RawFormBytes(layout(), view_.part, *decode_));
}

absl::Status GetStream::Run() {
  QUIRE_RETURN_IF_ERROR(Check());
  uint32_t layers = view_.part.layers();
  if (request_.order() == v1::GetRequest::BY_BLOCK) {
    for (uint32_t i = 0; i < blocks_.size(); ++i) {
      QUIRE_ASSIGN_OR_RETURN(std::optional<Source> source, Open(i));
      if (!source) continue;
      if (!decode_) QUIRE_RETURN_IF_ERROR(SendObject(*source));
      for (uint32_t layer = 0; decode_ && layer < layers; ++layer)
        QUIRE_RETURN_IF_ERROR(SendLayer(*source, layer));
    }
    return absl::OkStatus();
  }
  QUIRE_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenAll());
  if (!decode_) {
    for (const Source& source : sources) QUIRE_RETURN_IF_ERROR(SendHeader(source));
  }
  if (request_.order() == v1::GetRequest::BY_LAYER) {
    for (uint32_t layer = 0; layer < layers; ++layer) {
      for (const Source& source : sources) QUIRE_RETURN_IF_ERROR(SendLayer(source, layer));
    }
    return absl::OkStatus();
  }
  for (int level = 0; level < kMaxLevels; ++level) {
    for (const Source& source : sources) {
      for (uint32_t layer = 0; level < source.levels && layer < layers; ++layer) {
        QUIRE_RETURN_IF_ERROR(SendLevelOfLayer(source, level, layer));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace quire::store
