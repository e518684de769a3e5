// The codec written down plainly, one number at a time: the oracle for the kernels' bits, and the scalar
// baseline of quire-bench. It shares codebooks and 16-bit float conversions with core/codec, nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "core/codec/head_codec.h"
#include "core/codec/tq.h"

namespace quire::reference {

// y = R·x and x = Rᵀ·y of 64 vectors, [d][64].
class Rotation {
 public:
  Rotation(uint32_t dim, uint64_t seed);
  void Apply(float* x) const;
  void ApplyTransposed(float* y) const;

 private:
  void Mix(float* x) const;
  uint32_t dim_, power_, odd_;
  std::vector<float> signs_[2], hartley_;
};

// One head as rows of a tensor to key or value and its planes; −1 or the first token that is not finite.
int EncodeKeyHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                  const HeadRows& rows, TqKey* out, const PlanePointers& planes,
                  const float* feedback = nullptr);
int EncodeValueHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                    const HeadRows& rows, TqValue* out, const PlanePointers& planes);
void DecodeHead(const Rotation* rotation, const Codebook& book, int kept, FragmentOrder order,
                const ConstPlanePointers& planes, const float* scales, const float* mean,
                uint32_t first_token, const MutableHeadRows& rows);

}  // namespace quire::reference
