// Measurements that are done, kept in memory and, if wanted, in a file of JSON lines from which a later run
// goes on.
//
// A line is one measurement and is written by one write(2) behind the last; a run that dies in it leaves a
// damaged last line, which the next run cuts off. Damage anywhere else, or a line of another model, is
// refused: the file is then not what it is taken for.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"
#include "services/worker/engine/evaluation.h"

namespace quire::worker {

struct MeasurementKey {
  Digest text;        // EvalText's
  std::string codec;  // EvalCodec's name
  uint32_t prefix = 0, score = 0;
  friend auto operator<=>(const MeasurementKey&, const MeasurementKey&) = default;
};

// Used by one thread at a time; a file is used by one process at a time (it is locked).
class Journal {
 public:
  Journal() = default;  // in memory only
  // Makes the file if there is none. FAILED_PRECONDITION if another process uses it or it holds another
  // model's measurements, DATA_LOSS naming a damaged line.
  static absl::StatusOr<Journal> Open(const std::string& path, const Digest& model);
  ~Journal();
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&& other) noexcept;

  const TextFidelity* Find(const MeasurementKey& key) const;  // null: not measured
  absl::Status Add(const MeasurementKey& key, TextFidelity fidelity);
  size_t size() const { return done_.size(); }

 private:
  absl::Status Load();

  std::string path_;
  Digest model_;
  int file_ = -1;
  std::map<MeasurementKey, TextFidelity> done_;
};

}  // namespace quire::worker
