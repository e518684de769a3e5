// Block layouts of ggml's quantised types. Every block starts with or ends in half-precision scales; elements
// of a row follow each other block by block. Arithmetic is float32, in the order of the formulas, so that any
// IEEE machine gives the same bits.
#include <cstring>

#include "core/base/float16.h"
#include "core/model/gguf.h"

namespace quire {
namespace {

float HalfAt(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return FromF16(bits);
}

// Q8_0: f16 d, i8 q[32]; x = d·q.
void BlockQ8_0(const uint8_t* in, float* out) {
  float d = HalfAt(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[2 + i]));
}

// Q4_0: f16 d, 16 bytes whose low nibbles are elements 0…15 and high nibbles 16…31; x = d·(q − 8).
void BlockQ4_0(const uint8_t* in, float* out) {
  float d = HalfAt(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((in[2 + i] & 15) - 8);
    out[16 + i] = d * static_cast<float>((in[2 + i] >> 4) - 8);
  }
}

// Q4_1: f16 d, f16 m, nibbles as in Q4_0; x = d·q + m.
void BlockQ4_1(const uint8_t* in, float* out) {
  float d = HalfAt(in), m = HalfAt(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(in[4 + i] & 15) + m;
    out[16 + i] = d * static_cast<float>(in[4 + i] >> 4) + m;
  }
}

// The fifth bits of Q5_0 and Q5_1: bit i of a little-endian u32 is element i's, worth 16.
struct FifthBits {
  uint32_t bits;
  explicit FifthBits(const uint8_t* p) { std::memcpy(&bits, p, sizeof(bits)); }
  int Of(int i) const { return static_cast<int>(bits >> i & 1) << 4; }
};

// Q5_0: f16 d, u32 of fifth bits, nibbles as in Q4_0; x = d·(q − 16).
void BlockQ5_0(const uint8_t* in, float* out) {
  float d = HalfAt(in);
  FifthBits fifth(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(((in[6 + i] & 15) | fifth.Of(i)) - 16);
    out[16 + i] = d * static_cast<float>(((in[6 + i] >> 4) | fifth.Of(16 + i)) - 16);
  }
}

// Q5_1: f16 d, f16 m, u32 of fifth bits, nibbles as in Q4_0; x = d·q + m.
void BlockQ5_1(const uint8_t* in, float* out) {
  float d = HalfAt(in), m = HalfAt(in + 2);
  FifthBits fifth(in + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((in[8 + i] & 15) | fifth.Of(i)) + m;
    out[16 + i] = d * static_cast<float>((in[8 + i] >> 4) | fifth.Of(16 + i)) + m;
  }
}

// The steps and bases of the eight groups of 32 in a block of Q4_K or Q5_K, which begins with f16 d, f16 dmin
// and 12 bytes of eight 6-bit (scale, min) pairs; step = d·scale, base = dmin·min. Pairs 0…3: the low 6 bits
// of bytes 0…3 (scales) and 4…7 (mins). Pairs 4…7: low and high nibbles of bytes 8…11, their upper two bits
// from the top of bytes 0…3 and 4…7.
struct GroupScales {
  float step[8], base[8];

  explicit GroupScales(const uint8_t* in) {
    float d = HalfAt(in), dmin = HalfAt(in + 2);
    const uint8_t* packed = in + 4;
    for (int group = 0; group < 8; ++group) {
      int scale, min;
      if (group < 4) {
        scale = packed[group] & 63;
        min = packed[group + 4] & 63;
      } else {
        scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
        min = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
      }
      step[group] = d * static_cast<float>(scale);
      base[group] = dmin * static_cast<float>(min);
    }
  }
};

// Q4_K: group scales, 128 bytes of nibbles; x = step·q − base. Each 32 bytes of nibbles hold two groups: low
// nibbles, then high.
void BlockQ4_K(const uint8_t* in, float* out) {
  GroupScales scales(in);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* q = in + 16 + group / 2 * 32;
    int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      out[group * 32 + i] =
          scales.step[group] * static_cast<float>((q[i] >> shift) & 15) - scales.base[group];
    }
  }
}

// Q5_K: group scales, 32 bytes whose bit g is the fifth bit of element i of group g, nibbles as in Q4_K; x =
// step·q − base.
void BlockQ5_K(const uint8_t* in, float* out) {
  GroupScales scales(in);
  const uint8_t* fifth = in + 16;
  for (int group = 0; group < 8; ++group) {
    const uint8_t* nibbles = in + 48 + group / 2 * 32;
    int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      int q = ((nibbles[i] >> shift) & 15) | (fifth[i] >> group & 1) << 4;
      out[group * 32 + i] = scales.step[group] * static_cast<float>(q) - scales.base[group];
    }
  }
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 i8 scales (one for 16 elements), f16 d; x =
// (d·scale)·(q − 32). Each half of 128 elements: element 32g + i has its nibble in byte 32·(g % 2) + i (low
// for g < 2, else high) and its upper bits in byte i, at bit 2g.
void BlockQ6_K(const uint8_t* in, float* out) {
  float d = HalfAt(in + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = in + half * 64;
    const uint8_t* high = in + 128 + half * 32;
    const uint8_t* scales = in + 192 + half * 8;
    for (int group = 0; group < 4; ++group) {
      for (int i = 0; i < 32; ++i) {
        int nibble = (low[group % 2 * 32 + i] >> (group / 2 * 4)) & 15;
        int q = (nibble | ((high[i] >> (2 * group)) & 3) << 4) - 32;
        float step = d * static_cast<float>(static_cast<int8_t>(scales[group * 2 + i / 16]));
        out[half * 128 + group * 32 + i] = step * static_cast<float>(q);
      }
    }
  }
}

template <void (*Expand)(const uint8_t*, float*)>
void EachBlock(GgmlType type, Bytes data, std::span<float> out) {
  GgmlBlock block = BlockOf(type);
  for (size_t i = 0; i < out.size() / block.elements; ++i)
    Expand(data.data() + i * block.bytes, out.data() + i * block.elements);
}

template <float (*Expand)(uint16_t)>
void EachHalf(Bytes data, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, data.data() + 2 * i, sizeof(bits));
    out[i] = Expand(bits);
  }
}

}  // namespace

GgmlBlock BlockOf(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return {1, 4};
    case GgmlType::kF16:
    case GgmlType::kBF16:
      return {1, 2};
    case GgmlType::kQ8_0:
      return {32, 34};
    case GgmlType::kQ4_0:
      return {32, 18};
    case GgmlType::kQ4_1:
      return {32, 20};
    case GgmlType::kQ5_0:
      return {32, 22};
    case GgmlType::kQ5_1:
      return {32, 24};
    case GgmlType::kQ4_K:
      return {256, 144};
    case GgmlType::kQ5_K:
      return {256, 176};
    case GgmlType::kQ6_K:
      return {256, 210};
  }
  return {1, 1};  // unreachable: a tensor has one of the types above
}

std::string_view Name(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return "F32";
    case GgmlType::kF16:
      return "F16";
    case GgmlType::kBF16:
      return "BF16";
    case GgmlType::kQ8_0:
      return "Q8_0";
    case GgmlType::kQ4_0:
      return "Q4_0";
    case GgmlType::kQ4_1:
      return "Q4_1";
    case GgmlType::kQ5_0:
      return "Q5_0";
    case GgmlType::kQ5_1:
      return "Q5_1";
    case GgmlType::kQ4_K:
      return "Q4_K";
    case GgmlType::kQ5_K:
      return "Q5_K";
    case GgmlType::kQ6_K:
      return "Q6_K";
  }
  return "unknown";
}

void Dequantize(GgmlType type, Bytes data, std::span<float> out) {
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out.data(), data.data(), out.size_bytes());
      return;
    case GgmlType::kF16:
      return EachHalf<FromF16>(data, out);
    case GgmlType::kBF16:
      return EachHalf<FromBf16>(data, out);
    case GgmlType::kQ8_0:
      return EachBlock<BlockQ8_0>(type, data, out);
    case GgmlType::kQ4_0:
      return EachBlock<BlockQ4_0>(type, data, out);
    case GgmlType::kQ4_1:
      return EachBlock<BlockQ4_1>(type, data, out);
    case GgmlType::kQ5_0:
      return EachBlock<BlockQ5_0>(type, data, out);
    case GgmlType::kQ5_1:
      return EachBlock<BlockQ5_1>(type, data, out);
    case GgmlType::kQ4_K:
      return EachBlock<BlockQ4_K>(type, data, out);
    case GgmlType::kQ5_K:
      return EachBlock<BlockQ5_K>(type, data, out);
    case GgmlType::kQ6_K:
      return EachBlock<BlockQ6_K>(type, data, out);
  }
}

}  // namespace quire
