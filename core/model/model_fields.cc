#include "core/model/model_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"

namespace quire {

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string FloatText(float value) {
  char text[64];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

absl::StatusOr<uint32_t> FieldReader::Size(std::string_view name, std::optional<uint32_t> otherwise) {
  std::string key = Key(name);
  read_.insert(key);
  if (!file_.Has(key) && otherwise) return *otherwise;
  if (file_.GetInts(key).ok()) {
    return absl::UnimplementedError(
        absl::StrCat("'", key, "' differs from layer to layer, which is not supported"));
  }
  QUIRE_ASSIGN_OR_RETURN(uint64_t value, file_.GetUint(key));
  if (value == 0 || value > kMaxModelSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", key, "' is ", value, ", not from 1 to ", kMaxModelSize));
  }
  return static_cast<uint32_t>(value);
}

absl::StatusOr<float> FieldReader::Positive(std::string_view name, std::optional<float> otherwise) {
  std::string key = Key(name);
  read_.insert(key);
  if (!file_.Has(key) && otherwise) return *otherwise;
  QUIRE_ASSIGN_OR_RETURN(double value, file_.GetFloat(key));
  auto narrow = static_cast<float>(value);
  if (!std::isfinite(narrow) || narrow <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' is ", value, ", not a positive number"));
  }
  return narrow;
}

absl::StatusOr<std::string> FieldReader::Text(std::string_view name, std::string_view otherwise) {
  std::string key = Key(name);
  read_.insert(key);
  if (!file_.Has(key)) return std::string(otherwise);
  return file_.GetString(key);
}

void FieldReader::Neutral(std::string_view name, std::vector<std::string> accepted) {
  neutral_.push_back({Key(name), std::move(accepted)});
}

absl::Status FieldReader::RefuseTheRest() const {
  std::set<std::string> known = read_;
  for (const auto& [key, accepted] : neutral_) {
    known.insert(key);
    if (!file_.Has(key)) continue;
    std::string text = ValueText(key);
    if (std::find(accepted.begin(), accepted.end(), text) == accepted.end()) {
      return absl::UnimplementedError(
          absl::StrCat("model feature '", key, "' = ", text, " is not supported"));
    }
  }
  for (std::string_view view : file_.Keys()) {
    std::string key(view);
    if (absl::StartsWith(key, prefix_) && !known.contains(key)) {
      return absl::UnimplementedError(absl::StrCat("model feature '", key, "' is not supported"));
    }
  }
  return absl::OkStatus();
}

std::string FieldReader::ValueText(const std::string& key) const {
  if (auto s = file_.GetString(key); s.ok()) return *s;
  if (auto u = file_.GetUint(key); u.ok()) return absl::StrCat(*u);
  if (auto f = file_.GetFloat(key); f.ok()) return FloatText(static_cast<float>(*f));
  if (auto b = file_.GetBool(key); b.ok()) return *b ? "true" : "false";
  return "(an array)";
}

void TensorCheck::Want(const std::string& name, const std::vector<uint64_t>& shape) {
  if (!status_.ok()) return;
  const GgufTensor* tensor = file_.Find(name);
  if (tensor == nullptr) {
    status_ = absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is missing"));
  } else if (tensor->shape != shape) {
    status_ = absl::InvalidArgumentError(absl::StrCat(
        "tensor '", name, "' has shape ", ShapeText(tensor->shape), ", wanted ", ShapeText(shape)));
  } else {
    used_.insert(name);
  }
}

absl::Status TensorCheck::Finish() const {
  QUIRE_RETURN_IF_ERROR(status_);
  for (const GgufTensor& tensor : file_.tensors()) {
    if (!used_.contains(tensor.name)) {
      return absl::UnimplementedError(
          absl::StrCat("tensor '", tensor.name, "' belongs to a model feature that is not supported"));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
