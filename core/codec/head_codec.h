// One head of one block, all the way: strided rows of a tensor to bit-planes and scales, and back. This is
// what blocks are coded with (core/block); the steps one by one, for tests and tools, are in rotation.h, tq.h
// and planes.h.
//
// The kernels exist once, over vectors of 4, 8 or 16 floats (portable, AVX2, AVX-512; chosen at run time),
// and give the same bits on each: indices, planes, scales, corrections and measured errors, and every decoded
// float. The rule: tokens stand across lanes, so each token's (and each channel's) sums run in the order that
// core/codec/rotation.h and tq.h state, in float, products and sums rounded one by one, never fused. bf16 and
// f16 are roundings (to nearest even) of those floats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"
#include "core/codec/codebook.h"
#include "core/codec/planes.h"
#include "core/codec/query_shape.h"
#include "core/codec/rotation.h"
#include "core/codec/tq.h"

namespace quire {

// 64 rows of a tensor: channel c of token t is element t·token_stride + c of `data`.
struct HeadRows {
  const void* data;
  DType dtype;
  ptrdiff_t token_stride;  // in elements
};
struct MutableHeadRows {
  void* data;
  DType dtype;
  ptrdiff_t token_stride;
};

using PlanePointers = std::array<uint8_t*, kMaxCodeBits - 1>;
using ConstPlanePointers = std::array<const uint8_t*, kMaxCodeBits - 1>;

// Encodes; rows of tokens before `first_token` are not read. `out` is filled but for its codes, which go to
// `planes`. Returns −1, or the first token that is not finite, as EncodeTqKey does; planes are then left as
// they were. `next`: rows of the same size that are wanted after these, fetched meanwhile. No heap allocation
// (but a thread's first call). `shape`: steers the errors of K; null: they are made as small as they go.
// REQUIRES: as EncodeTqKey; one dim.
int EncodeKeyHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                  const HeadRows& rows, TqKey* out, const PlanePointers& planes,
                  const HeadRows* next = nullptr, const QueryShape* shape = nullptr);
int EncodeValueHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                    const HeadRows& rows, TqValue* out, const PlanePointers& planes,
                    const HeadRows* next = nullptr);

// Where decoded rows go: kMemory for more than caches hold, written past them where the target can.
enum class Destination { kCaches, kMemory };

// Decodes `kept` bits to rows. scales [64]; mean [d] or null. With a rotation: x = Rᵀ(scale · centroid +
// mean); without: the argument of Rᵀ. Rows of tokens before `first_token` are left as they were. `next`: as
// above, the rows that are written next. REQUIRES: kept is one of KeptBits(b, level).
void DecodeHead(const Rotation* rotation, const Codebook& book, int kept, FragmentOrder order,
                const ConstPlanePointers& planes, const float* scales, const float* mean,
                uint32_t first_token, const MutableHeadRows& rows, const MutableHeadRows* next = nullptr,
                Destination destination = Destination::kCaches);

// The instruction set in use, for reports: "AVX3" (AVX-512), "AVX2", "EMU128" (portable).
const char* CodecTargetName();

}  // namespace quire
