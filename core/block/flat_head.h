// Inside core/block: one stream of one head coded with level 0 alone (fp8, tq_prod): its bytes to the codec
// and back.
#pragma once

#include <cstdint>

#include "core/block/slice_map.h"
#include "core/codec/head_codec.h"
#include "core/codec/tq_prod.h"

namespace quire {

struct FlatStream {
  const Rotation& rotation;      // of the stream's d; fp8 takes no more than d from it
  const Projection* projection;  // null: fp8; else tq_prod with `bits` bits
  int bits;
  FragmentOrder order;
};

// Writes the parts of a slice that begins at `slice`, and adds to *error, alike at every level. Returns −1,
// or the token that the codec refuses.
int EncodeFlatStream(const FlatStream& stream, const FlatSlice::Stream& part, uint32_t sink_tokens,
                     const HeadRows& rows, uint8_t* slice, CodingError* error);
// All rows but the sinks'.
void DecodeFlatStream(const FlatStream& stream, const FlatSlice::Stream& part, uint32_t sink_tokens,
                      const uint8_t* slice, const MutableHeadRows& rows);

}  // namespace quire
