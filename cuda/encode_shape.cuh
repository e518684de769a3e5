// Inside cuda/: how the fast encoder's thread blocks are made up.
#pragma once

#include "cuda/encode_planes.cuh"
#include "cuda/encode_tiles.cuh"

namespace quire::cuda {

template <int kDim>
struct EncodeShape {
  static constexpr int kWarpgroups = kDim == 64 ? 7 : kDim <= 128 ? 4 : 2;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kPasses = EncodePasses(kDim);
  static constexpr int kImageBytes = kPasses * kDim * kDim * 2;
  static constexpr int kColumns = (kDim / 4 + 7) / 8 * 8;  // a lane's, padded so that three halvings come out even
  static constexpr int kSumPitch = 4 * kColumns;
  struct Side {                   // of one warpgroup
    float sums[2][4][kSumPitch];  // [turn][warp][t][column]
    float means[4][kDim];         // each warp its own copy
    float4 report[2][64];         // [turn][token, in some order]: energy, error after levels 0…2
    int bad[4][4];                // [head mod 4][warp], since V's is known before the barrier: 64 where none is
    float largest[2][4];
    uint8_t* places[4][8];  // [warp]: of this head's scalars, mean, scales and planes
    TqReport* report_at[2];
    int bits[2];
    float taken[2];  // by K's mean, from the sum of the energies
  };
  struct Shared {
    WarpTile<kDim> tiles[kWarpgroups][4];
    Side sides[kWarpgroups];
  };
  static constexpr int kSharedBytes = kImageBytes + static_cast<int>(sizeof(Shared));
};

}  // namespace quire::cuda
