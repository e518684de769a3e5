// Reading a model's hyper-parameters and tensors so that nothing in the file goes unnoticed; private to
// core/model.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/model/gguf.h"

namespace quire {

inline constexpr uint32_t kMaxModelSize =
    1u << 30;  // of any one dimension: keeps products of two within 64 bits

std::string ShapeText(const std::vector<uint64_t>& shape);  // "[8, 32]"
std::string FloatText(float value);                         // shortest that reads back as the same float

// Reads the metadata of an architecture ("llama.…") and remembers what was read, so that what nobody read can
// be refused.
class FieldReader {
 public:
  FieldReader(const GgufFile& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  std::string Key(std::string_view name) const { return prefix_ + std::string(name); }
  // From 1 to kMaxModelSize. `otherwise`: where the file doesn't say.
  absl::StatusOr<uint32_t> Size(std::string_view name, std::optional<uint32_t> otherwise = std::nullopt);
  absl::StatusOr<float> Positive(std::string_view name, std::optional<float> otherwise = std::nullopt);
  absl::StatusOr<std::string> Text(std::string_view name, std::string_view otherwise);
  // A feature that may be stated as long as it is off.
  void Neutral(std::string_view name, std::vector<std::string> accepted);
  // A value that says nothing about the text model.
  void Ignore(std::string_view name) { read_.insert(Key(name)); }

  absl::Status RefuseTheRest() const;

 private:
  std::string ValueText(const std::string& key) const;

  const GgufFile& file_;
  const std::string prefix_;
  std::set<std::string> read_;
  std::vector<std::pair<std::string, std::vector<std::string>>> neutral_;
};

// Checks tensors by name and shape, and that the file holds no others: a bias or a factor that is silently
// left out would make another model of it.
class TensorCheck {
 public:
  explicit TensorCheck(const GgufFile& file) : file_(file) {}

  void Want(const std::string& name, const std::vector<uint64_t>& shape);
  // The first thing that was wrong; UNIMPLEMENTED if the file holds tensors that nobody wanted.
  absl::Status Finish() const;

 private:
  const GgufFile& file_;
  absl::Status status_;
  std::set<std::string> used_;
};

}  // namespace quire
