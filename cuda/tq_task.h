// What the kernels work on: plain structs that host and device share.
#pragma once

#include <cstdint>

namespace quire::cuda {

inline constexpr int kTaskLevels = 4;

// One stream (K, V or a latent) of one layer of one block. Pointers are what a kernel can reach: device
// memory, or pinned host memory. Pointers into the object are those of the first head; head h's stand h ·
// slice_stride[level] bytes further. core/block/slice_map.h says where they point; a part that is not there
// is null.
//
// fp8 and tq_prod have level 0 alone (FlatSlice): scales[0] are the bf16 scales; fp8's codes begin at
// planes[0]; tq_prod has its rests at scales[1], and its planes as tq has, one behind the other. `levels` is
// 1; scalars and mean are null.
struct alignas(16) TqTask {
  void* tensor = nullptr;  // element (token t, head h, channel c) at t · token_stride + h · head_stride + c
  int64_t token_stride = 0;  // elements
  int64_t head_stride = 0;
  uint8_t* scalars = nullptr;  // 16 bytes: bf16 step of K's mean, bf16 base of V's scales
  uint8_t* mean = nullptr;     // int8 [d]; K only
  uint8_t* scales[kTaskLevels] =
      {};  // level 0: bf16 [64] of K, u8 [64] of V; above: int8 [64]; in TokenSlot order
  uint8_t* planes[kTaskLevels] = {};  // level 0: the two-bit plane; level 3: up to four one-bit planes
  uint32_t slice_stride[kTaskLevels] = {};
  uint32_t report = 0;      // of head 0
  uint8_t kind = 0;         // StreamKind
  uint8_t bits = 0;         // that the object's encoder had, 2…8; fp8: 0
  uint8_t levels = 0;       // to write or read, 1…4
  uint8_t first_token = 0;  // tokens before it are sinks
};
static_assert(sizeof(TqTask) == 128);

// Rows that stay raw, of one layer of one block: its sinks, or all tokens of a layer that is not coded. Head
// h's rows, K [tokens][dk] and then V [tokens][dv] at `stored_dtype`, stand h · head_bytes after `rows`.
struct RowsTask {
  void* key = nullptr;
  void* value = nullptr;  // null for a latent
  int64_t key_token_stride = 0, key_head_stride = 0, value_token_stride = 0,
          value_head_stride = 0;  // elements
  uint8_t* rows = nullptr;
  uint32_t key_dim = 0, value_dim = 0, heads = 0, tokens = 0, head_bytes = 0;
  uint32_t report = 0;                 // of head 0; encode only
  uint32_t layer = 0, first_head = 0;  // for messages
  uint8_t key_dtype = 0, value_dtype = 0, stored_dtype = 0;
};

// What the encoder measured of one head of one task, summed over its coded tokens, and the first token that
// it refused.
struct TqReport {
  float energy = 0;                         // Σ‖x‖² before a mean is removed
  float error[kTaskLevels] = {0, 0, 0, 0};  // Σ‖x − x̂‖² after each level
  int32_t bad_token = -1;                   // of a NaN, an infinity or a norm beyond float; −1: none
  uint32_t bad_value = 0;                   // of raw rows: whether it was V's
  int32_t exponent = 0;                     // fp8 and tq_prod: energy and errors are in units of 2^exponent
};
static_assert(sizeof(TqReport) == 32);

}  // namespace quire::cuda
