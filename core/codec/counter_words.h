// Random words from a counter (SplitMix64): what a seed's format constants are made of, alike on every
// machine.
#pragma once

#include <cstdint>

namespace quire {

inline constexpr uint64_t kGoldenGamma = 0x9E3779B97F4A7C15u;

constexpr uint64_t MixWord(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// at(i) = mix(mix(start) + (i + 1)·G) modulo 2⁶⁴.
class CounterWords {
 public:
  explicit constexpr CounterWords(uint64_t start) : base_(MixWord(start)) {}
  constexpr uint64_t at(uint64_t i) const { return MixWord(base_ + (i + 1) * kGoldenGamma); }

 private:
  uint64_t base_;
};

}  // namespace quire
