// Inside cuda/: how raw heads come into shared memory for the fast encoder.
//
// Each warp fetches just the 16 rows of a head that it works on, one head ahead, by asynchronous copies of its own: no other warp
// waits for them. With a head's rows comes the task of the head after it, so that no copy waits for an address.
#pragma once

#include <cuda_runtime.h>

#include "cuda/head_cursor.cuh"
#include "cuda/sm90.cuh"

namespace quire::cuda {

// One warp's rows of a head, and the tasks of this head and the next two.
template <int kDim>
struct WarpTile {
  static constexpr int kPitch = kDim * 2 + 16;  // the pad spreads a column over the banks

  alignas(16) uint8_t rows[16 * kPitch];
  using Tasks = TaskRing<3>;
  Tasks tasks;
};

// A warp's way through its heads. Every function is for the whole warp.
template <int kDim>
class TileReader {
 public:
  using Tile = WarpTile<kDim>;

  // Starts the copies of the first tasks.
  __device__ TileReader(const TqLaunch& launch, Tile& tile, int warp, uint32_t first)
      : launch_(launch), tile_(tile), warp_(warp), cursor_(launch, first), next_(cursor_.Next()) {
    tile_.tasks.Fetch(launch, cursor_, 0);
    tile_.tasks.Fetch(launch, next_, 1);
    CommitCopies();
  }
  // Starts the copies of the first head's rows. REQUIRES: those of the tasks have come.
  __device__ void Start() {
    __syncwarp();
    FetchRows(tile_.tasks.at(0), cursor_);
    CommitCopies();
  }

  __device__ bool valid() const { return cursor_.valid(); }
  __device__ uint32_t head() const { return cursor_.head; }
  __device__ const TqTask& task() const { return tile_.tasks.at(now_); }

  // Waits for this head's rows.
  __device__ void Await() const {
    WaitCopies();
    __syncwarp();
  }
  // A fragment of 16 × 16, of channels 16k …
  __device__ void Read(int k, uint32_t (&a)[4]) const {
    int lane = threadIdx.x % 32;
    LoadMatrices(a, SharedAddress(tile_.rows) + lane % 16 * Tile::kPitch + lane / 16 * 16 + 32 * k);
  }
  // Starts the copies of the next head. REQUIRES: all of this one is read.
  __device__ void FetchNext() {
    __syncwarp();
    int after = Tile::Tasks::Next(now_);
    FetchRows(tile_.tasks.at(after), next_);
    tile_.tasks.Fetch(launch_, next_.Next(), Tile::Tasks::Next(after));
    CommitCopies();
  }
  __device__ void Next() {
    cursor_ = next_;
    next_ = next_.Next();
    now_ = Tile::Tasks::Next(now_);
  }

 private:
  __device__ void FetchRows(const TqTask& task, const HeadCursor& cursor) const {
    if (!cursor.valid()) return;
    auto* base = static_cast<const uint8_t*>(task.tensor) + (cursor.head * task.head_stride + 16 * warp_ * task.token_stride) * 2;
    int64_t stride = task.token_stride * 2;
    int lane = threadIdx.x % 32, sinks = task.first_token - 16 * warp_;
    constexpr int kChunks = kDim / 8;  // of a row
    uint32_t to = SharedAddress(tile_.rows);
    if constexpr (32 % kChunks == 0) {  // a lane stays in its column
      constexpr int kRows = 32 / kChunks;
      int row = lane / kChunks;
      const uint8_t* from = base + row * stride + lane % kChunks * 16;
      to += row * Tile::kPitch + lane % kChunks * 16;
#pragma unroll
      for (int i = 0; i < 16; i += kRows) {
        CopyAsync16(to + i * Tile::kPitch, from, row + i < sinks ? 0 : 16);
        from += kRows * stride;
      }
    } else {
#pragma unroll
      for (int k = 0; k < kChunks / 2; ++k) {
        int i = lane + 32 * k, row = i / kChunks, column = i % kChunks;
        CopyAsync16(to + row * Tile::kPitch + column * 16, base + row * stride + column * 16, row < sinks ? 0 : 16);
      }
    }
  }

  const TqLaunch& launch_;
  Tile& tile_;
  const int warp_;
  HeadCursor cursor_, next_;
  int now_ = 0;  // the head's place among the tasks
};

}  // namespace quire::cuda
