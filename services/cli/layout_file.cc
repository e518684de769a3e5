#include "services/cli/layout_file.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/cli/files.h"

namespace quire::cli {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("layout file: ", field, " ", what));
}

// Fields absent leave the default.
absl::Status Read(const json& object, const std::string& field, std::string* out) {
  auto it = object.find(field);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_string()) return Bad(field, "is no string");
  *out = it->get<std::string>();
  return absl::OkStatus();
}
template <typename Integer>
absl::Status Read(const json& object, const std::string& field, Integer* out) {
  auto it = object.find(field);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_number_unsigned() || it->get<uint64_t>() > std::numeric_limits<Integer>::max()) {
    return Bad(field, absl::StrCat("is no number from 0 to ", std::numeric_limits<Integer>::max()));
  }
  *out = static_cast<Integer>(it->get<uint64_t>());
  return absl::OkStatus();
}

absl::StatusOr<Digest> ReadModel(const json& root) {
  std::string model, hex;
  QUIRE_RETURN_IF_ERROR(Read(root, "model", &model));
  QUIRE_RETURN_IF_ERROR(Read(root, "model_digest", &hex));
  if (model.empty() == hex.empty()) return Bad("model", "or model_digest must be there, and not both");
  if (!model.empty()) return Sha256().Update(model).Finish();
  std::optional<Digest> digest = Digest::FromHex(hex);
  if (!digest) return Bad("model_digest", "is not 64 hex digits");
  return *digest;
}

absl::StatusOr<StreamLayout> ReadStream(const json& object) {
  if (!object.is_object()) return Bad("streams", "holds something else than objects");
  StreamLayout stream;
  std::string kind = "key";
  QUIRE_RETURN_IF_ERROR(Read(object, "kind", &kind));
  QUIRE_RETURN_IF_ERROR(Read(object, "heads", &stream.heads));
  QUIRE_RETURN_IF_ERROR(Read(object, "dim", &stream.dim));
  QUIRE_RETURN_IF_ERROR(Read(object, "sliding_window", &stream.sliding_window));
  if (kind != "key" && kind != "value" && kind != "latent")
    return Bad("kind", absl::StrCat("is ", kind, ": key, value or latent"));
  stream.kind = kind == "key" ? StreamKind::kKey : kind == "value" ? StreamKind::kValue : StreamKind::kLatent;
  return stream;
}

absl::StatusOr<std::vector<LayerLayout>> ReadLayers(const json& root) {
  auto uniform = root.find("uniform"), layers = root.find("layers");
  if ((uniform == root.end()) == (layers == root.end()))
    return Bad("uniform", "or layers must be there, and not both");
  if (uniform != root.end()) {
    if (!uniform->is_object()) return Bad("uniform", "is no object");
    uint32_t count = 0, heads = 0, dim = 0;
    QUIRE_RETURN_IF_ERROR(Read(*uniform, "layers", &count));
    QUIRE_RETURN_IF_ERROR(Read(*uniform, "kv_heads", &heads));
    QUIRE_RETURN_IF_ERROR(Read(*uniform, "head_dim", &dim));
    if (count > kMaxLayers)
      return Bad("uniform.layers", absl::StrCat("is ", count, ": at most ", kMaxLayers));
    return Layout::Uniform(Digest{}, count, heads, dim).layers;
  }
  if (!layers->is_array()) return Bad("layers", "is no array");
  std::vector<LayerLayout> out;
  for (const json& layer : *layers) {
    auto streams = layer.is_object() ? layer.find("streams") : layer.end();
    if (!layer.is_object() || streams == layer.end() || !streams->is_array())
      return Bad("layers", "holds something without streams");
    LayerLayout& converted = out.emplace_back();
    for (const json& stream : *streams) {
      QUIRE_ASSIGN_OR_RETURN(StreamLayout s, ReadStream(stream));
      converted.streams.push_back(s);
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<Layout> ParseLayoutJson(const std::string& text) {
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError("layout file: not a JSON object");
  Layout layout;
  QUIRE_ASSIGN_OR_RETURN(layout.model_digest, ReadModel(root));
  std::string dtype = "bf16";
  QUIRE_RETURN_IF_ERROR(Read(root, "dtype", &dtype));
  std::optional<DType> parsed = ParseDType(dtype);
  if (!parsed) return Bad("dtype", absl::StrCat("is ", dtype, ": bf16, f16 or f32"));
  layout.dtype = *parsed;
  QUIRE_RETURN_IF_ERROR(Read(root, "rope_state", &layout.rope_state));
  QUIRE_RETURN_IF_ERROR(Read(root, "rotation_seed", &layout.rotation_seed));
  QUIRE_ASSIGN_OR_RETURN(layout.layers, ReadLayers(root));
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  return layout;
}

absl::StatusOr<Layout> ReadLayoutFile(const std::string& path) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, ReadFile(path));
  return ParseLayoutJson(std::string(AsString(bytes)));
}

}  // namespace quire::cli
