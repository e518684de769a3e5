// How far the blocks of one put session have come: the rules of PutSession::Write, the same for every
// implementation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

class PutProgress {
 public:
  PutProgress() = default;
  // REQUIRES: `wanted` holds indices into `blocks`.
  PutProgress(std::span<const BlockAnnounce> blocks, std::span<const uint32_t> wanted)
      : blocks_(blocks.size()) {
    for (size_t i = 0; i < blocks.size(); ++i) blocks_[i].announced = blocks[i].bytes;
    for (uint32_t i : wanted) blocks_[i].wanted = true;
  }

  // Counts `bytes` more of a block; INVALID_ARGUMENT, and nothing counted, if they may not come now.
  absl::Status Advance(uint32_t block, uint64_t offset, uint64_t bytes) {
    if (absl::Status status = CheckWanted(block); !status.ok()) return status;
    State& state = blocks_[block];
    if (offset != state.written) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", block, ": offset ", offset, " where ", state.written, " comes next"));
    }
    if (bytes > state.announced - state.written) {
      return absl::InvalidArgumentError(absl::StrCat("block ", block, ": ", state.written + bytes,
                                                     " bytes written, ", state.announced, " announced"));
    }
    state.written += bytes;
    return absl::OkStatus();
  }
  absl::Status CheckWanted(uint32_t block) const {
    if (block >= blocks_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", block, ": ", blocks_.size(), " were announced"));
    }
    if (!blocks_[block].wanted)
      return absl::InvalidArgumentError(absl::StrCat("block ", block, " is not wanted"));
    return absl::OkStatus();
  }
  // INVALID_ARGUMENT unless all announced bytes of the block were written.
  absl::Status CheckComplete(uint32_t block) const {
    if (absl::Status status = CheckWanted(block); !status.ok()) return status;
    if (complete(block)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("block ", block, ": ", blocks_[block].written, " of ",
                                                   blocks_[block].announced, " bytes were written"));
  }
  bool complete(uint32_t block) const { return blocks_[block].written == blocks_[block].announced; }
  uint64_t written(uint32_t block) const { return blocks_[block].written; }

 private:
  struct State {
    uint64_t announced = 0, written = 0;
    bool wanted = false;
  };
  std::vector<State> blocks_;
};

}  // namespace quire::store
