// GGUF version 2 and 3: a model's metadata and tensors, memory-mapped. Format: the GGUF specification of the
// ggml project. A file is untrusted input: every size, offset, count and string is checked against the file
// before it is used.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/base/digest.h"

namespace quire {

enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30
};

struct GgufTensor {
  std::string name;
  GgmlType type;
  std::vector<uint64_t> shape;  // outermost dimension first (PyTorch's order: the reverse of the file's)
  Bytes data;                   // into the mapping
  uint64_t elements() const;
};

// Immutable after Open; thread-safe. Owns the mapping that tensors point into.
class GgufFile {
 public:
  using Array = std::variant<std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;
  using Value = std::variant<int64_t, uint64_t, double, bool, std::string, Array>;

  // NOT_FOUND (or another code of the file system), or INVALID_ARGUMENT naming what is wrong and the file
  // offset; UNIMPLEMENTED naming a tensor and its type if ggml knows the type and GgmlType does not. Tensors
  // do not overlap, so that all of them together are no larger than the file. The file must not shrink while
  // it is mapped.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  // The same from bytes that outlive the file object (tests, fuzzing).
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Parse(Bytes bytes);
  ~GgufFile();

  // INVALID_ARGUMENT naming the key if it is missing or has another type.
  absl::StatusOr<std::string> GetString(std::string_view key) const;
  absl::StatusOr<uint64_t> GetUint(std::string_view key) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::span<const std::string>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::span<const int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::span<const double>> GetFloats(std::string_view key) const;
  bool Has(std::string_view key) const;
  std::vector<std::string_view> Keys() const;  // of all metadata, sorted

  const GgufTensor* Find(std::string_view name) const;  // null if absent
  std::span<const GgufTensor> tensors() const { return tensors_; }
  uint64_t parameters() const;  // elements of all tensors
  // SHA-256 of the tensors' names, types, shapes and data: the model digest. Takes as long as reading the
  // file.
  Digest WeightsDigest() const;

 private:
  GgufFile() = default;
  struct Mapping;
  std::unique_ptr<Mapping> mapping_;
  absl::flat_hash_map<std::string, Value> metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
};

// Elements a block and bytes a block of a type.
struct GgmlBlock {
  uint32_t elements, bytes;
};
GgmlBlock BlockOf(GgmlType type);
std::string_view Name(GgmlType type);

// Expands a tensor's data to float32. REQUIRES: out.size() == tensor.elements().
void Dequantize(GgmlType type, Bytes data, std::span<float> out);

}  // namespace quire
