// A fuzzer's input, taken apart from its front.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/base/bytes.h"

// What must hold of every input. An abort is how a fuzzer reports a find.
#define QUIRE_FUZZ_CHECK(condition)                                                              \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "%s:%d: it does not hold that %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                              \
    }                                                                                            \
  } while (false)

namespace quire::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}
  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    Bytes one = Take(1);
    return one.empty() ? 0 : one[0];
  }
  uint16_t Short() {
    uint8_t low = Byte();
    return static_cast<uint16_t>(low | Byte() << 8);
  }
  // At most `count` bytes: fewer at the end.
  Bytes Take(size_t count) {
    Bytes taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  Bytes Rest() { return Take(rest_.size()); }

 private:
  Bytes rest_;
};

}  // namespace quire::fuzz
