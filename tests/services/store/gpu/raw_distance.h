// How far raw KV is from what it should be.
#pragma once

#include "core/base/bytes.h"
#include "core/base/dtype.h"

namespace quire::store {

// ‖a − b‖² / ‖b‖² of two raw forms.
inline double RawDistance(DType dtype, Bytes a, Bytes b) {
  double miss = 0, square = 0;
  for (size_t e = 0; e < a.size() / SizeOf(dtype); ++e) {
    double x = LoadElement(dtype, a.data(), e), y = LoadElement(dtype, b.data(), e);
    miss += (x - y) * (x - y);
    square += y * y;
  }
  return miss / square;
}

}  // namespace quire::store
