// Element types that KV tensors come in and go out as.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/float16.h"

namespace quire {

enum class DType : uint8_t { kBf16 = 0, kF16 = 1, kF32 = 2 };  // values are part of layout fingerprints

constexpr size_t SizeOf(DType t) { return t == DType::kF32 ? 4 : 2; }

constexpr std::string_view Name(DType t) {
  return t == DType::kBf16 ? "bf16" : t == DType::kF16 ? "f16" : "f32";
}

inline std::optional<DType> ParseDType(std::string_view name) {
  for (DType t : {DType::kBf16, DType::kF16, DType::kF32}) {
    if (Name(t) == name) return t;
  }
  return std::nullopt;
}

// Element i of an array of type t.
inline float LoadElement(DType t, const void* data, size_t i) {
  if (t == DType::kF32) return static_cast<const float*>(data)[i];
  uint16_t bits = static_cast<const uint16_t*>(data)[i];
  return t == DType::kBf16 ? FromBf16(bits) : FromF16(bits);
}

inline void StoreElement(DType t, void* data, size_t i, float value) {
  if (t == DType::kF32) {
    static_cast<float*>(data)[i] = value;
  } else {
    static_cast<uint16_t*>(data)[i] = t == DType::kBf16 ? ToBf16(value) : ToF16(value);
  }
}

}  // namespace quire
