// GGUF tensors to fp32 Torch tensors, several at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/model/gguf.h"

namespace quire::worker {

// Collects what to read, then reads it all at once on all threads. Not thread-safe.
class WeightLoader {
 public:
  explicit WeightLoader(const GgufFile& file) : file_(file) {}

  // Will fill *out, fp32, with one tensor of this shape.
  void Add(const std::string& name, const std::vector<int64_t>& shape, at::Tensor* out) {
    AddRows({{name, shape[0]}}, shape, out);
  }
  // Will fill *out, fp32 [sum of rows, shape[1…]], with tensors on top of each other: one product instead of
  // several.
  struct Rows {
    std::string name;
    int64_t rows;
  };
  void AddRows(const std::vector<Rows>& parts, std::vector<int64_t> shape, at::Tensor* out);

  // INVALID_ARGUMENT naming the first tensor that is missing or has another shape; nothing is read then.
  absl::Status Read(const std::function<void(double)>& progress);

 private:
  struct Job {
    const GgufTensor* tensor;
    float* to;
  };
  const GgufFile& file_;
  absl::Status status_;
  std::vector<Job> jobs_;
};

}  // namespace quire::worker
