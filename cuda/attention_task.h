// What the attention kernels work on: plain structs that host and device share.
#pragma once

#include <cstdint>

namespace quire::cuda {

// How one layer of a page is coded and where its slices lie; pages of equal form share one. Made by
// CodedForm and RawForm (cuda/attention.h).
struct alignas(16) AttentionForm {
  enum Kind : uint8_t { kCoded = 0, kRaw = 1 };

  // kCoded: slice of the part's first head in level ℓ, from the page's address; the next head's is stride
  // further.
  // kRaw: [0] first row of K, [1] of V; stride[0] from head to head, stride[1] from token to token, of both.
  uint32_t offset[3] = {}, stride[3] = {};
  // kCoded: of a head's slice; 0: this page holds no such level. kRaw: [0] bytes of one token's K and V of
  // one head.
  uint32_t length[3] = {};
  uint8_t kind = kCoded;
  uint8_t k_kept = 0, v_kept = 0;  // bits that the page holds of each code, 2…4
  uint8_t unused = 0;
  // Centroids as signed bytes: (byte + ½) · step is the centroid. Of 4 bits by magnitude, without the sign;
  // of 3 by (last bit, sign, first bit), of 2 by (sign, bit).
  uint32_t k_table[2] = {}, v_table[2] = {};
  float k_step = 1, v_step = 1;  // k_step includes the nominal ratios of the levels
};
static_assert(sizeof(AttentionForm) == 64);

// A page as one sequence sees it.
struct alignas(16) AttentionItem {
  const uint8_t* page = nullptr;  // device memory; 16-byte aligned
  uint16_t form = 0;              // index into the launch's forms
  uint8_t begin = 0, end = 64;    // tokens that are seen, begin < end
  uint32_t unused = 0;
};
static_assert(sizeof(AttentionItem) == 16);

// A share of one (sequence, KV head), worked on by one thread block: `coded` items and then `raw` ones.
struct alignas(16) AttentionSegment {
  uint32_t first_coded = 0, coded = 0;  // items
  uint32_t first_raw = 0, raw = 0;
  uint32_t pair = 0;             // sequence · KV heads + head
  uint32_t first_slot = 0;       // of the pair's partial results; this one's is first_slot + part
  uint16_t part = 0, parts = 0;  // 0 parts: nothing to do
  uint32_t raw_share = 0;        // of the work that the raw items are, in 1/256
};
static_assert(sizeof(AttentionSegment) == 32);

}  // namespace quire::cuda
