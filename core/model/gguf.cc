#include "core/model/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/gguf_parser.h"

namespace quire {

struct GgufFile::Mapping {
  void* address = MAP_FAILED;
  size_t size = 0;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (address != MAP_FAILED) munmap(address, size);
  }
  Bytes bytes() const { return {static_cast<const uint8_t*>(address), size}; }

  absl::Status Map(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open model ", path));
    absl::Status status = MapOpen(fd, path);
    close(fd);  // the mapping stays
    return status;
  }

 private:
  absl::Status MapOpen(int fd, const std::string& path) {
    struct stat info;
    if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read model ", path));
    if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a file"));
    if (info.st_size == 0) return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
    size = static_cast<size_t>(info.st_size);
    address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map model ", path));
    return absl::OkStatus();
  }
};

GgufFile::~GgufFile() = default;

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Parse(Bytes bytes) {
  QUIRE_ASSIGN_OR_RETURN(GgufContents contents, ParseGguf(bytes));
  std::shared_ptr<GgufFile> file(new GgufFile());
  file->metadata_ = std::move(contents.metadata);
  file->tensors_ = std::move(contents.tensors);
  file->by_name_ = std::move(contents.by_name);
  return file;
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  auto mapping = std::make_unique<Mapping>();
  QUIRE_RETURN_IF_ERROR(mapping->Map(path));
  auto file = Parse(mapping->bytes());
  if (!file.ok())
    return absl::Status(file.status().code(), absl::StrCat(path, ": ", std::string(file.status().message())));
  // The file was just made here and is not shared yet.
  const_cast<GgufFile&>(**file).mapping_ = std::move(mapping);
  return file;
}

namespace {

std::string_view KindName(const GgufFile::Value& value) {
  if (const auto* array = std::get_if<GgufFile::Array>(&value)) {
    static constexpr std::string_view kArrays[] = {"an array of integers", "an array of floats",
                                                   "an array of strings"};
    return kArrays[array->index()];
  }
  static constexpr std::string_view kScalars[] = {"a signed integer", "an unsigned integer", "a float",
                                                  "a bool", "a string"};
  return kScalars[value.index()];
}

using Metadata = absl::flat_hash_map<std::string, GgufFile::Value>;

absl::StatusOr<const GgufFile::Value*> Get(const Metadata& metadata, std::string_view key) {
  auto it = metadata.find(std::string(key));
  if (it == metadata.end())
    return absl::InvalidArgumentError(absl::StrCat("GGUF: metadata key '", std::string(key), "' is missing"));
  return &it->second;
}

absl::Status WrongKind(std::string_view key, const GgufFile::Value& value, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF: metadata key '", std::string(key), "' is ",
                                                 std::string(KindName(value)), ", wanted ",
                                                 std::string(wanted)));
}

template <typename T>
absl::StatusOr<T> GetScalar(const Metadata& metadata, std::string_view key, std::string_view wanted) {
  QUIRE_ASSIGN_OR_RETURN(const GgufFile::Value* value, Get(metadata, key));
  if (const T* typed = std::get_if<T>(value)) return *typed;
  return WrongKind(key, *value, wanted);
}

template <typename T>
absl::StatusOr<std::span<const T>> GetArray(const Metadata& metadata, std::string_view key,
                                            std::string_view wanted) {
  QUIRE_ASSIGN_OR_RETURN(const GgufFile::Value* value, Get(metadata, key));
  if (const auto* array = std::get_if<GgufFile::Array>(value)) {
    if (const auto* typed = std::get_if<std::vector<T>>(array)) return std::span<const T>(*typed);
  }
  return WrongKind(key, *value, wanted);
}

}  // namespace

absl::StatusOr<std::string> GgufFile::GetString(std::string_view key) const {
  return GetScalar<std::string>(metadata_, key, "a string");
}

absl::StatusOr<uint64_t> GgufFile::GetUint(std::string_view key) const {
  QUIRE_ASSIGN_OR_RETURN(const Value* value, Get(metadata_, key));
  if (const auto* u = std::get_if<uint64_t>(value)) return *u;
  if (const auto* i = std::get_if<int64_t>(value)) {
    if (*i >= 0) return static_cast<uint64_t>(*i);
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF: metadata key '", std::string(key), "' is ", *i, ", wanted 0 or more"));
  }
  return WrongKind(key, *value, "an unsigned integer");
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  return GetScalar<double>(metadata_, key, "a float");
}
absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  return GetScalar<bool>(metadata_, key, "a bool");
}

absl::StatusOr<std::span<const std::string>> GgufFile::GetStrings(std::string_view key) const {
  return GetArray<std::string>(metadata_, key, "an array of strings");
}
absl::StatusOr<std::span<const int64_t>> GgufFile::GetInts(std::string_view key) const {
  return GetArray<int64_t>(metadata_, key, "an array of integers");
}
absl::StatusOr<std::span<const double>> GgufFile::GetFloats(std::string_view key) const {
  return GetArray<double>(metadata_, key, "an array of floats");
}

bool GgufFile::Has(std::string_view key) const { return metadata_.contains(std::string(key)); }

std::vector<std::string_view> GgufFile::Keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(metadata_.size());
  for (const auto& [key, value] : metadata_) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  return keys;
}

const GgufTensor* GgufFile::Find(std::string_view name) const {
  auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

uint64_t GgufTensor::elements() const {
  uint64_t n = 1;
  for (uint64_t d : shape) n *= d;
  return n;
}

uint64_t GgufFile::parameters() const {
  uint64_t n = 0;
  for (const GgufTensor& tensor : tensors_) n += tensor.elements();
  return n;
}

Digest GgufFile::WeightsDigest() const {
  // By name, so that two files that hold the same tensors in another order are the same model.
  std::vector<const GgufTensor*> order;
  order.reserve(tensors_.size());
  for (const GgufTensor& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->name < b->name; });
  Sha256 sha;
  sha.Update("quire.weights.v1");
  for (const GgufTensor* tensor : order) {
    std::vector<uint8_t> head;
    ByteWriter writer(&head);
    writer.PutString(tensor->name);
    writer.Put(static_cast<uint32_t>(tensor->type));
    writer.Put(static_cast<uint32_t>(tensor->shape.size()));
    for (uint64_t d : tensor->shape) writer.Put(d);
    writer.Put(static_cast<uint64_t>(tensor->data.size()));
    sha.Update(head).Update(tensor->data);
  }
  return sha.Finish();
}

}  // namespace quire
