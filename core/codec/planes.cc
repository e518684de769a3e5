#include "core/codec/planes.h"

#include <memory>

#include "core/codec/codebook.h"
#include "core/codec/tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/codec/planes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "core/codec/simd/planes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

void Pack(FragmentOrder order, uint32_t dim, int bits, HeadWorkspace* work, uint8_t* const* planes) {
  PackHead(order, dim, bits, &work->words, &work->units, planes);
}
void Unpack(FragmentOrder order, uint32_t dim, int kept, const uint8_t* const* planes, HeadWorkspace* work) {
  UnpackHead(order, dim, kept, planes, &work->words, &work->units);
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire {

HWY_EXPORT(Pack);
HWY_EXPORT(Unpack);

HeadWorkspace& HeadWorkspace::OfThread() {
  thread_local const auto workspace = std::make_unique<HeadWorkspace>();
  return *workspace;
}

void WordsFromCodes(uint32_t dim, int bits, const uint8_t* codes, CodeWords* words) {
  for (uint32_t block = 0; block < dim / 8; ++block) {
    for (uint32_t t = 0; t < kPlaneTokens; ++t) {
      uint32_t high = 0, low = 0;
      for (uint32_t j = 0; j < 8; ++j) {
        uint32_t top = codes[(8 * block + j) * kPlaneTokens + t] << (8 - bits) & 0xFFu;
        high |= top >> 4 << 4 * j;
        low |= (top & 15) << 4 * j;
      }
      words->high[block * kPlaneTokens + t] = high;
      words->low[block * kPlaneTokens + t] = low;
    }
  }
}

void CodesFromWords(uint32_t dim, int bits, const CodeWords& words, uint8_t* codes) {
  for (uint32_t block = 0; block < dim / 8; ++block) {
    for (uint32_t t = 0; t < kPlaneTokens; ++t) {
      uint32_t high = words.high[block * kPlaneTokens + t];
      uint32_t low = bits > 4 ? words.low[block * kPlaneTokens + t] : 0;
      for (uint32_t j = 0; j < 8; ++j) {
        uint32_t top = (high >> 4 * j & 15) << 4 | (low >> 4 * j & 15);
        codes[(8 * block + j) * kPlaneTokens + t] = static_cast<uint8_t>(top >> (8 - bits));
      }
    }
  }
}

void PackPlanes(FragmentOrder order, uint32_t dim, int bits, const uint8_t* codes, uint8_t* const* planes) {
  HeadWorkspace& work = HeadWorkspace::OfThread();
  WordsFromCodes(dim, bits, codes, &work.words);
  HWY_DYNAMIC_DISPATCH(Pack)(order, dim, bits, &work, planes);
}

void UnpackPlanes(FragmentOrder order, uint32_t dim, int kept, const uint8_t* const* planes, uint8_t* codes) {
  HeadWorkspace& work = HeadWorkspace::OfThread();
  HWY_DYNAMIC_DISPATCH(Unpack)(order, dim, kept, planes, &work);
  CodesFromWords(dim, kept, work.words, codes);
}

}  // namespace quire
#endif  // HWY_ONCE
