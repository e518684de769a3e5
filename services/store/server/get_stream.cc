#include "services/store/server/get_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/raw_form.h"
#include "services/store/server/checked_get.h"
#include "services/store/wire/convert.h"

namespace quire::store {

absl::Status GetStream::Check() {
  QUIRE_ASSIGN_OR_RETURN(CheckedGet get, CheckedGet::Of(store_, ns_, request_));
  view_ = std::move(get.view);
  identities_ = std::move(get.identities);
  decode_ = get.decode;
  return absl::OkStatus();
}

absl::Status GetStream::Miss(uint32_t block, const absl::Status& why) {
  v1::GetResponse response;
  v1::GetMiss* miss = response.mutable_miss();
  miss->set_block(block);
  miss->set_code(static_cast<int32_t>(why.code()));
  miss->set_message(std::string(why.message()));
  return writer_.Write(response) ? absl::OkStatus() : stream_.Broken();
}

absl::StatusOr<std::optional<GetStream::Source>> GetStream::Open(uint32_t block) {
  store_.ReadAhead(view_, identities_, block);
  absl::StatusOr<OpenedBlock> opened = store_.Open(view_, identities_[block]);
  stream_.Progress();
  if (opened.ok()) {
    int levels = LevelsAskedFor(request_, opened->reader.header(), opened->reader.levels());
    return Source{block, levels, *std::move(opened)};
  }
  if (!absl::IsNotFound(opened.status()) && !absl::IsDataLoss(opened.status())) return opened.status();
  QUIRE_RETURN_IF_ERROR(Miss(block, opened.status()));
  return std::nullopt;
}

absl::StatusOr<std::vector<GetStream::Source>> GetStream::OpenAll() {
  std::vector<Source> sources;
  for (uint32_t i = 0; i < identities_.size(); ++i) {
    QUIRE_ASSIGN_OR_RETURN(std::optional<Source> source, Open(i));
    if (source) sources.push_back(*std::move(source));
  }
  return sources;
}

absl::Status GetStream::SendObject(const Source& source) {
  const SliceMap& slices = source.opened.reader.slices();
  const Bytes bytes = source.opened.pinned.bytes;
  const uint64_t total = slices.ObjectBytes(source.levels);
  std::chrono::duration<double, std::micro> reading{0};  // without the client's share
  chunks_.Begin({source.block, 0, static_cast<uint32_t>(source.levels), total, 0, total});
  QUIRE_RETURN_IF_ERROR(chunks_.Append(bytes.first(slices.level(0).offset)));
  for (int level = 0; level < source.levels; ++level) {
    for (uint32_t layer = 0; layer < slices.layers(); ++layer) {
      Extent extent = slices.layer(level, layer);
      auto start = std::chrono::steady_clock::now();
      QUIRE_RETURN_IF_ERROR(store_.Verify(source.opened, level, layer));
      reading += std::chrono::steady_clock::now() - start;
      QUIRE_RETURN_IF_ERROR(chunks_.Append(bytes.subspan(extent.offset, extent.length)));
    }
  }
  QUIRE_RETURN_IF_ERROR(chunks_.End());
  store_.ObserveRead(total, reading.count());
  return absl::OkStatus();
}

absl::Status GetStream::SendExtent(const Source& source, const Extent& extent, int32_t layer) {
  chunks_.Begin({source.block, layer, static_cast<uint32_t>(source.levels),
                 source.opened.reader.slices().ObjectBytes(source.levels), extent.offset, extent.length});
  QUIRE_RETURN_IF_ERROR(chunks_.Append(source.opened.pinned.bytes.subspan(extent.offset, extent.length)));
  return chunks_.End();
}

absl::Status GetStream::SendHeader(const Source& source) {
  return SendExtent(source, {0, source.opened.reader.slices().level(0).offset}, -1);
}

absl::Status GetStream::SendLevelOfLayer(const Source& source, int level, uint32_t layer) {
  const Part& stored = source.opened.reader.header().part;
  const SliceMap& slices = source.opened.reader.slices();
  uint32_t stored_layer = view_.part.layer_begin + layer - stored.layer_begin;
  QUIRE_RETURN_IF_ERROR(store_.Verify(source.opened, level, stored_layer));
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
  uint32_t stored_layer = view_.part.layer_begin + layer - source.opened.reader.header().part.layer_begin;
  for (int level = 0; level < source.levels; ++level)
    QUIRE_RETURN_IF_ERROR(store_.Verify(source.opened, level, stored_layer));
  uint64_t offset = 0;
  for (uint32_t l = 0; l < layer; ++l) offset += RawLayerBytes(layout(), view_.part, l, *decode_);
  decoded_.resize(RawLayerBytes(layout(), view_.part, layer, *decode_));
  QUIRE_RETURN_IF_ERROR(
      DecodeRawLayer(layout(), source.opened.reader, source.levels, view_.part, layer, *decode_, decoded_));
  chunks_.Begin({source.block, static_cast<int32_t>(layer), static_cast<uint32_t>(source.levels),
                 RawFormBytes(layout(), view_.part, *decode_), offset, decoded_.size()});
  QUIRE_RETURN_IF_ERROR(chunks_.Append(decoded_));
  return chunks_.End();
}

template <typename Each>
absl::Status GetStream::SendOfEach(std::vector<Source>& sources, Each each) {
  for (auto source = sources.begin(); source != sources.end();) {
    absl::Status sent = each(*source);
    if (sent.ok()) {
      ++source;
      continue;
    }
    if (!absl::IsDataLoss(sent)) return sent;
    QUIRE_RETURN_IF_ERROR(Miss(source->block, sent));
    source = sources.erase(source);
  }
  return absl::OkStatus();
}

absl::Status GetStream::SendByBlock() {
  for (uint32_t i = 0; i < identities_.size(); ++i) {
    QUIRE_ASSIGN_OR_RETURN(std::optional<Source> source, Open(i));
    if (!source) continue;
    absl::Status sent;
    if (!decode_) sent = SendObject(*source);
    for (uint32_t layer = 0; decode_ && sent.ok() && layer < view_.part.layers(); ++layer)
      sent = SendLayer(*source, layer);
    if (absl::IsDataLoss(sent)) sent = Miss(i, sent);
    QUIRE_RETURN_IF_ERROR(sent);
  }
  return absl::OkStatus();
}

absl::Status GetStream::SendByLayer(std::vector<Source> sources) {
  for (uint32_t layer = 0; layer < view_.part.layers(); ++layer) {
    QUIRE_RETURN_IF_ERROR(
        SendOfEach(sources, [&](const Source& source) { return SendLayer(source, layer); }));
  }
  return absl::OkStatus();
}

absl::Status GetStream::SendByLevel(std::vector<Source> sources) {
  for (int level = 0; level < kMaxLevels; ++level) {
    QUIRE_RETURN_IF_ERROR(SendOfEach(sources, [&](const Source& source) {
      for (uint32_t layer = 0; level < source.levels && layer < view_.part.layers(); ++layer)
        QUIRE_RETURN_IF_ERROR(SendLevelOfLayer(source, level, layer));
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

absl::Status GetStream::Run() {
  QUIRE_RETURN_IF_ERROR(Check());
  if (request_.order() == v1::GetRequest::BY_BLOCK) return SendByBlock();
  QUIRE_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenAll());
  if (!decode_) {
    for (const Source& source : sources) QUIRE_RETURN_IF_ERROR(SendHeader(source));
  }
  return request_.order() == v1::GetRequest::BY_LAYER ? SendByLayer(std::move(sources))
                                                      : SendByLevel(std::move(sources));
}

}  // namespace quire::store
