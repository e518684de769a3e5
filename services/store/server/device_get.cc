#include "services/store/server/device_get.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {

absl::StatusOr<std::optional<DeviceGet::Source>> DeviceGet::Open(uint32_t block) {
  const BlockIdentity& identity = get_.identities[block];
  Source source{block, 0, {}, {}};
  absl::Status status;
  absl::StatusOr<DeviceBlock> there = store_.OpenOnDevice(get_.view, identity);
  // Another rank's part is taken apart on the host.
  if (there.ok() && (there->object->part == get_.view.part || !get_.decode)) {
    source.levels =
        LevelsAskedFor(request_, *there->object->header, static_cast<int>(there->object->record.levels));
    source.there = *std::move(there);
  } else if (absl::IsNotFound(there.status()) || absl::IsDataLoss(there.status())) {
    status = there.status();
  } else {
    absl::StatusOr<OpenedBlock> here = store_.Open(get_.view, identity);
    status = here.status();
    if (here.ok()) {
      source.levels = LevelsAskedFor(request_, here->reader.header(), here->reader.levels());
      status = store_.VerifyLevels(*here, source.levels);
      source.here = *std::move(here);
    }
  }
  stream_.Progress();
  if (status.ok()) return source;
  if (!absl::IsNotFound(status) && !absl::IsDataLoss(status)) return status;
  v1::GetMiss* miss = response_.mutable_miss();
  miss->set_block(block);
  miss->set_code(static_cast<int32_t>(status.code()));
  miss->set_message(std::string(status.message()));
  if (!writer_.Write(response_)) return stream_.Broken();
  return std::nullopt;
}

absl::StatusOr<std::vector<DeviceGet::Source>> DeviceGet::OpenFrom(uint32_t first, uint32_t count) {
  std::vector<Source> sources;
  for (uint32_t i = first; i < first + count; ++i) {
    QUIRE_ASSIGN_OR_RETURN(std::optional<Source> source, Open(i));
    if (source) sources.push_back(*std::move(source));
  }
  return sources;
}

absl::Status DeviceGet::Tell(const Source& source, uint64_t offset, const v1::ArenaRange* range, Bytes bytes,
                             uint32_t layer, uint64_t total) {
  do {
    v1::BlockData* data = response_.mutable_data();
    Bytes chunk = range != nullptr ? bytes : bytes.first(std::min(bytes.size(), kChunkBytes));
    data->set_block(source.block);
    data->set_offset(offset);
    data->set_layer(static_cast<int32_t>(layer));
    data->set_levels(static_cast<uint32_t>(source.levels));
    data->set_object_bytes(total);
    if (range != nullptr) {
      data->clear_data();
      *data->mutable_arena_range() = *range;
    } else {
      data->clear_arena_range();
      data->mutable_data()->assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
    }
    if (!writer_.Write(response_)) return stream_.Broken();
    stream_.Progress();
    offset += chunk.size();
    bytes = bytes.subspan(chunk.size());
  } while (!bytes.empty());
  return absl::OkStatus();
}

absl::Status DeviceGet::SendObjects(std::span<const Source> sources) {
  std::vector<Piece> pieces(sources.size());
  std::vector<Device::Copy> copies;
  for (size_t i = 0; i < sources.size(); ++i) {
    const Source& source = sources[i];
    Piece& piece = pieces[i];
    piece.source = &source;
    piece.to = placer_.Take(source.bytes(), &piece.range);
    piece.in_arena = !piece.to.empty();
    if (!piece.in_arena) {
      piece.host.resize(source.bytes());
      piece.to = piece.host;
    }
    const uint8_t* from = source.there ? source.there->data.get() : source.here->pinned.bytes.data();
    copies.push_back({from, piece.to.data(), source.bytes()});
  }
  QUIRE_RETURN_IF_ERROR(store_.device()->CopyAll(copies));
  for (const Piece& piece : pieces) {
    QUIRE_RETURN_IF_ERROR(
        Tell(*piece.source, 0, piece.in_arena ? &piece.range : nullptr, piece.to, 0, piece.to.size()));
  }
  return absl::OkStatus();
}

absl::Status DeviceGet::DecodeHere(Piece& piece, uint32_t begin, uint32_t end) {
  std::vector<uint8_t> decoded(piece.to.size());
  MutableBytes out(decoded);
  // The device's copy may be what could not be decoded there.
  std::optional<OpenedBlock> opened;
  const OpenedBlock* block = piece.source->here ? &*piece.source->here : nullptr;
  if (block == nullptr) {
    QUIRE_ASSIGN_OR_RETURN(opened, store_.Open(get_.view, get_.identities[piece.source->block]));
    QUIRE_RETURN_IF_ERROR(
        store_.VerifyLevels(*opened, std::min(piece.source->levels, opened->reader.levels())));
    block = &*opened;
  }
  const int levels = std::min(piece.source->levels, block->reader.levels());
  for (uint32_t layer = begin; layer < end; ++layer) {
    const uint64_t bytes = RawLayerBytes(layout(), get_.view.part, layer, *get_.decode);
    QUIRE_RETURN_IF_ERROR(DecodeRawLayer(layout(), block->reader, levels, get_.view.part, layer, *get_.decode,
                                         out.first(bytes)));
    out = out.subspan(bytes);
  }
  if (!placer_.on_device() || !piece.in_arena) {
    std::copy(decoded.begin(), decoded.end(), piece.to.begin());
    return absl::OkStatus();
  }
  Device::Copy up{decoded.data(), piece.to.data(), decoded.size()};
  return store_.device()->CopyAll({&up, 1});
}

absl::Status DeviceGet::Decode(std::span<Piece> pieces, uint32_t begin, uint32_t end) {
  const CodedForm form{&layout(), get_.view.layout->fingerprint, get_.view.part};
  std::vector<Device::DecodeJob> jobs;
  std::vector<Piece*> of_job;
  for (Piece& piece : pieces) {
    if (!piece.source->there) continue;
    jobs.push_back({&piece.source->header(),
                    piece.source->levels,
                    piece.source->there->data.get(),
                    piece.to.data(),
                    piece.in_arena && placer_.on_device(),
                    {}});
    of_job.push_back(&piece);
  }
  store_.device()->Decode(form, begin, end, *get_.decode, jobs);
  size_t job = 0;
  for (Piece& piece : pieces) {
    if (piece.source->there) {
      const absl::Status& status = jobs[job++].status;
      if (status.ok()) continue;
      if (!absl::IsUnimplemented(status)) return status;
    }
    QUIRE_RETURN_IF_ERROR(DecodeHere(piece, begin, end));
  }
  return absl::OkStatus();
}

absl::Status DeviceGet::SendPiece(const Piece& piece, uint32_t begin, uint32_t end) {
  const uint64_t total = RawFormBytes(layout(), get_.view.part, *get_.decode);
  if (piece.in_arena) return Tell(*piece.source, piece.offset, &piece.range, piece.to, begin, total);
  Bytes bytes = piece.to;
  uint64_t offset = piece.offset;
  for (uint32_t layer = begin; layer < end; ++layer) {
    Bytes part = bytes.first(RawLayerBytes(layout(), get_.view.part, layer, *get_.decode));
    QUIRE_RETURN_IF_ERROR(Tell(*piece.source, offset, nullptr, part, layer, total));
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
  return absl::OkStatus();
}

absl::Status DeviceGet::SendLayers(std::span<const Source> sources, uint32_t begin, uint32_t end) {
  uint64_t offset = 0, bytes = 0;
  for (uint32_t layer = 0; layer < end; ++layer)
    (layer < begin ? offset : bytes) += RawLayerBytes(layout(), get_.view.part, layer, *get_.decode);
  if (bytes == 0) return absl::OkStatus();
  std::vector<Piece> pieces;
  for (size_t i = 0; i < sources.size();) {
    pieces.clear();
    uint64_t on_host = 0;
    for (; i < sources.size() && pieces.size() < kBatch && (pieces.empty() || on_host < kHostBytes); ++i) {
      Piece& piece = pieces.emplace_back();
      piece.source = &sources[i];
      piece.offset = offset;
      piece.to = placer_.Take(bytes, &piece.range);
      piece.in_arena = !piece.to.empty();
      if (piece.in_arena) continue;
      piece.host.resize(bytes);
      piece.to = piece.host;
      on_host += bytes;
    }
    QUIRE_RETURN_IF_ERROR(Decode(pieces, begin, end));
    for (const Piece& piece : pieces) QUIRE_RETURN_IF_ERROR(SendPiece(piece, begin, end));
  }
  return absl::OkStatus();
}

absl::Status DeviceGet::Run() {
  QUIRE_ASSIGN_OR_RETURN(get_, CheckedGet::Of(store_, ns_, request_));
  const auto count = static_cast<uint32_t>(get_.identities.size());
  const uint32_t layers = get_.view.part.layers();
  if (!get_.decode && request_.order() != v1::GetRequest::BY_BLOCK)
    return absl::InvalidArgumentError("codes come to a device buffer in order BY_BLOCK only");
  if (request_.order() == v1::GetRequest::BY_LAYER) {
    QUIRE_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenFrom(0, count));
    for (uint32_t layer = 0; layer < layers; ++layer)
      QUIRE_RETURN_IF_ERROR(SendLayers(sources, layer, layer + 1));
    return absl::OkStatus();
  }
  for (uint32_t first = 0; first < count; first += kBatch) {
    QUIRE_ASSIGN_OR_RETURN(std::vector<Source> sources,
                           OpenFrom(first, std::min<uint32_t>(kBatch, count - first)));
    QUIRE_RETURN_IF_ERROR(get_.decode ? SendLayers(sources, 0, layers) : SendObjects(sources));
  }
  return absl::OkStatus();
}

}  // namespace quire::store
