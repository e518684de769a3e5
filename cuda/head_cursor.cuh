// Inside cuda/: how warpgroups share out the heads of a launch.
#pragma once

#include "cuda/sm90.cuh"
#include "cuda/tq_kernels.h"

namespace quire::cuda {

// The warp's number in its thread block, in a form that the compiler knows to be the same in all lanes.
__device__ __forceinline__ int UniformWarp() { return __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0); }

// Head `head` of task `task`; Next is `step` heads further. No division after the first.
struct HeadCursor {
  uint32_t task, head, count, heads, step_tasks, step_heads;

  __device__ HeadCursor(const TqLaunch& launch, uint32_t first, uint32_t step)
      : task(first / launch.heads), head(first % launch.heads), count(launch.count), heads(launch.heads), step_tasks(step / launch.heads),
        step_heads(step % launch.heads) {}

  __device__ bool valid() const { return task < count; }
  __device__ HeadCursor Next() const {
    HeadCursor next = *this;
    next.task += step_tasks;
    next.head += step_heads;
    if (next.head >= heads) {
      next.head -= heads;
      ++next.task;
    }
    return next;
  }
};

// A warp's copies of the tasks of its last, this and its next heads in shared memory, so that no head waits for its task. Every
// function is for the whole warp; what Fetch brings is there after the warp waited for its copies.
struct TaskRing {
  static constexpr int kSlots = 3;
  TqTask slots[kSlots];

  __device__ const TqTask& at(int n) const { return slots[n]; }
  __device__ void Fetch(const TqLaunch& launch, const HeadCursor& cursor, int n) {
    int lane = threadIdx.x % 32;
    if (lane < static_cast<int>(sizeof(TqTask) / 16) && cursor.valid()) {
      CopyAsync16(SharedAddress(&slots[n]) + 16 * lane, reinterpret_cast<const uint8_t*>(launch.tasks + cursor.task) + 16 * lane, 16);
    }
  }
  static __device__ int Next(int n) { return n + 1 == kSlots ? 0 : n + 1; }
};

}  // namespace quire::cuda
