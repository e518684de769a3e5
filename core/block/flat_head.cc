#include "core/block/flat_head.h"

#include "core/block/head_bytes.h"
#include "core/codec/fp8.h"

namespace quire {
namespace {

template <typename Byte>
std::array<Byte*, kMaxCodeBits - 1> PlanesAt(Byte* first, uint32_t dim, int bits) {
  std::array<Byte*, kMaxCodeBits - 1> planes{};
  for (int p = 0; p < bits - 1; ++p) {
    planes[static_cast<size_t>(p)] = first;
    first += PlaneBytes(dim, p == 0 ? 2 : 1);
  }
  return planes;
}

void Add(double energy, double error, CodingError* sum) {
  sum->energy += energy;
  for (double& e : sum->error) e += error;
}

}  // namespace

int EncodeFlatStream(const FlatStream& stream, const FlatSlice::Stream& part, uint32_t sink_tokens,
                     const HeadRows& rows, uint8_t* slice, CodingError* error) {
  const uint32_t dim = stream.rotation.dim();
  if (stream.projection == nullptr) {
    uint16_t scales[kBlockTokens];
    Fp8Error measured;
    int bad = EncodeFp8Head(dim, sink_tokens, rows, scales, slice + part.codes.offset, &measured);
    if (bad >= 0) return bad;
    std::memcpy(slice + part.scales.offset, scales, sizeof(scales));
    Add(measured.energy, measured.error, error);
    return -1;
  }
  TqProdHead head;
  int bad = EncodeTqProdHead(stream.rotation, *stream.projection, stream.bits, stream.order, sink_tokens,
                             rows, &head, PlanesAt(slice + part.codes.offset, dim, stream.bits));
  if (bad >= 0) return bad;
  ScalesToSlots(head.scales.data(), slice + part.scales.offset);
  ScalesToSlots(head.rests.data(), slice + part.rests.offset);
  Add(head.energy, head.error, error);
  return -1;
}

void DecodeFlatStream(const FlatStream& stream, const FlatSlice::Stream& part, uint32_t sink_tokens,
                      const uint8_t* slice, const MutableHeadRows& rows) {
  const uint32_t dim = stream.rotation.dim();
  if (stream.projection == nullptr) {
    uint16_t scales[kBlockTokens];
    std::memcpy(scales, slice + part.scales.offset, sizeof(scales));
    return DecodeFp8Head(dim, sink_tokens, scales, slice + part.codes.offset, rows);
  }
  TqProdHead head;
  ScalesFromSlots(slice + part.scales.offset, head.scales.data());
  ScalesFromSlots(slice + part.rests.offset, head.rests.data());
  DecodeTqProdHead(stream.rotation, *stream.projection, stream.bits, stream.order, sink_tokens, head,
                   PlanesAt(slice + part.codes.offset, dim, stream.bits), rows);
}

}  // namespace quire
