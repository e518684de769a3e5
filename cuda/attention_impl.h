// Inside cuda/: what a plan holds, for the launch that reads it.
#pragma once

#include "cuda/attention.h"
#include "cuda/attention_schedule.h"

namespace quire::cuda {

struct AttentionPlan::Impl {
  Limits limits;
  uint32_t blocks = 0, max_segments = 0;
  // The lists, one behind the other, on both sides; items last, so that an upload is one copy.
  size_t first_at = 0, segments_at = 0, items_at = 0;
  PinnedBuffer host;
  DeviceBuffer device;

  uint32_t sequences = 0, items = 0;
  uint64_t bytes = 0;
  std::vector<AttentionWork> work;
  std::vector<uint32_t> costs;
  AttentionSchedule schedule;

  template <typename T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(device.data() + offset);
  }
  absl::Status AddSequence(const AttentionSequence& sequence, const AttentionForms& forms, uint32_t layer,
                           uint32_t window);
};

}  // namespace quire::cuda
