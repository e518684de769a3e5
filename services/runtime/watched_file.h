// A small file that may be replaced while the process runs.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace quire::runtime {

// Not thread-safe.
class WatchedFile {
 public:
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  // Whether the file may have other contents than at the last Read. True before the first, and where the file
  // has gone since.
  bool Changed() const;
  // All of it. NOT_FOUND, or RESOURCE_EXHAUSTED over `limit` bytes, naming the path.
  absl::StatusOr<std::string> Read(size_t limit);

 private:
  // What tells one state of the file from another.
  struct State {
    bool there = false;
    uint64_t device = 0, inode = 0;
    int64_t size = 0, modified_ns = 0, changed_ns = 0;
    friend bool operator==(const State&, const State&) = default;
  };
  State Look() const;

  std::string path_;
  State read_;
  // A change within the file system's clock step of the last Read would leave the same times behind: until
  // that has passed, the file is read again whether it looks changed or not.
  bool settled_ = false;
};

}  // namespace quire::runtime
