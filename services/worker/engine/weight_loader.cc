#include "services/worker/engine/weight_loader.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

absl::Status CheckShape(const GgufTensor& tensor, const std::vector<int64_t>& want) {
  const bool same = std::equal(tensor.shape.begin(), tensor.shape.end(), want.begin(), want.end(),
                               [](uint64_t a, int64_t b) { return a == static_cast<uint64_t>(b); });
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", tensor.name, " has shape [", absl::StrJoin(tensor.shape, ", "),
                   "], the model's parameters want [", absl::StrJoin(want, ", "), "]"));
}

}  // namespace

void WeightLoader::AddRows(const std::vector<Rows>& parts, std::vector<int64_t> shape, at::Tensor* out) {
  shape[0] = 0;
  for (const Rows& part : parts) shape[0] += part.rows;
  *out = at::empty(shape, at::kFloat);
  float* to = out->data_ptr<float>();
  for (const Rows& part : parts) {
    shape[0] = part.rows;
    const GgufTensor* tensor = file_.Find(part.name);
    status_.Update(tensor == nullptr
                       ? absl::InvalidArgumentError(absl::StrCat("the model file has no tensor ", part.name))
                       : CheckShape(*tensor, shape));
    if (!status_.ok()) return;
    jobs_.push_back({tensor, to});
    to += tensor->elements();
  }
}

absl::Status WeightLoader::Read(const std::function<void(double)>& progress) {
  QUIRE_RETURN_IF_ERROR(status_);
  // Longest first, so that no thread ends up alone with the embedding.
  std::sort(jobs_.begin(), jobs_.end(),
            [](const Job& a, const Job& b) { return a.tensor->elements() > b.tensor->elements(); });
  uint64_t total = 0, done = 0;
  for (const Job& job : jobs_) total += job.tensor->elements();
  absl::Mutex mutex;
  ParallelFor(static_cast<int64_t>(jobs_.size()), [&](int64_t i) {
    const Job& job = jobs_[static_cast<size_t>(i)];
    Dequantize(job.tensor->type, job.tensor->data, {job.to, job.tensor->elements()});
    absl::MutexLock lock(&mutex);
    done += job.tensor->elements();
    if (progress) progress(static_cast<double>(done) / static_cast<double>(total));
  });
  return absl::OkStatus();
}

}  // namespace quire::worker
