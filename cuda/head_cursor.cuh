// Inside cuda/: how warpgroups share out the heads of a launch.
#pragma once

#include "cuda/sm90.cuh"
#include "cuda/tq_kernels.h"

namespace quire::cuda {

// The warp's number in its thread block, in a form that the compiler knows to be the same in all lanes.
__device__ __forceinline__ int UniformWarp() { return __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0); }

// Head `head` of task `task`; Next is as many heads further as the launch's warpgroups. What all of them share stays in constant memory.
struct HeadCursor {
  const TqLaunch& launch;
  uint32_t task, head;

  __device__ HeadCursor(const TqLaunch& of, uint32_t first) : launch(of), task(first / of.heads), head(first % of.heads) {}
  __device__ HeadCursor(const HeadCursor&) = default;
  __device__ HeadCursor& operator=(const HeadCursor& other) {
    task = other.task;
    head = other.head;
    return *this;
  }

  __device__ bool valid() const { return task < launch.count; }
  __device__ HeadCursor Next() const {
    HeadCursor next = *this;
    next.task += launch.step_tasks;
    next.head += launch.step_heads;
    if (next.head >= launch.heads) {
      next.head -= launch.heads;
      ++next.task;
    }
    return next;
  }
};

// How many heads a launch of `warpgroups` takes at once.
inline TqLaunch WithStep(TqLaunch launch, uint32_t warpgroups) {
  launch.step_tasks = warpgroups / launch.heads;
  launch.step_heads = warpgroups % launch.heads;
  return launch;
}

// A warp's copies of the tasks of its heads in shared memory, of this one and of those ahead, so that no head waits for its task. Every
// function is for the whole warp; what Fetch brings is there after the warp waited for its copies.
template <int kSlots>
struct TaskRing {
  TqTask slots[kSlots];

  __device__ const TqTask& at(int n) const { return slots[n]; }
  __device__ void Fetch(const TqLaunch& launch, const HeadCursor& cursor, int n) {
    int lane = threadIdx.x % 32;
    if (lane < static_cast<int>(sizeof(TqTask) / 16) && cursor.valid()) {
      CopyAsync16(SharedAddress(&slots[n]) + 16 * lane, reinterpret_cast<const uint8_t*>(launch.tasks + cursor.task) + 16 * lane, 16);
    }
  }
  static __device__ int Next(int n, int steps = 1) { return n + steps >= kSlots ? n + steps - kSlots : n + steps; }
};

}  // namespace quire::cuda
