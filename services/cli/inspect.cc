#include "services/cli/inspect.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace quire::cli {
namespace {

using nlohmann::ordered_json;

std::string CodecText(const LayerCodec& codec) {
  std::string text(Name(codec.codec));
  if (codec.k_bits > 0) absl::StrAppend(&text, ":k", int{codec.k_bits});
  if (codec.v_bits > 0) absl::StrAppend(&text, "v", int{codec.v_bits});
  return text;
}

// Layers that follow each other with the same codec, together: "0-29 tq:k4v4".
ordered_json CodecRanges(const BlockHeader& header) {
  ordered_json ranges = ordered_json::array();
  for (size_t begin = 0, end; begin < header.codecs.size(); begin = end) {
    for (end = begin + 1; end < header.codecs.size() && header.codecs[end] == header.codecs[begin];) ++end;
    ranges.push_back({{"first_layer", header.part.layer_begin + begin},
                      {"last_layer", header.part.layer_begin + end - 1},
                      {"codec", CodecText(header.codecs[begin])}});
  }
  return ranges;
}

}  // namespace

absl::StatusOr<int> LevelsPresent(const BlockHeader& header, uint64_t bytes) {
  for (size_t level = 0; level < header.levels.size(); ++level) {
    if (header.levels[level].end() == bytes) return static_cast<int>(level) + 1;
  }
  return absl::DataLossError(
      absl::StrCat("an object of ", bytes, " bytes does not end on one of its levels"));
}

absl::StatusOr<ordered_json> InspectObject(Bytes object) {
  QUIRE_ASSIGN_OR_RETURN(BlockHeader header, ParseHeader(object));
  QUIRE_ASSIGN_OR_RETURN(int present, LevelsPresent(header, object.size()));
  ordered_json out = {
      {"bytes", object.size()},
      {"key", header.identity.key.Hex()},
      {"parent", header.identity.parent.Hex()},
      {"index", header.identity.index},
      {"fingerprint", header.fingerprint.Hex()},
      {"part",
       {{"layers", {header.part.layer_begin, header.part.layer_end}},
        {"heads", {header.part.head_begin, header.part.head_end}}}},
      {"sink_tokens", header.sink_tokens},
      {"rotation_seed", header.rotation_seed},
      {"header_bytes", header.header_bytes},
      {"levels_present", present},
      {"codecs", CodecRanges(header)},
  };
  ordered_json levels = ordered_json::array();
  for (size_t level = 0; level < header.levels.size(); ++level) {
    ordered_json k = ordered_json::array(), v = ordered_json::array();
    double k_sum = 0, v_sum = 0;
    for (const auto& error : header.relative_error[level]) {
      k.push_back(error[0]), v.push_back(error[1]);
      k_sum += error[0], v_sum += error[1];
    }
    double layers = static_cast<double>(std::max<size_t>(1, header.relative_error[level].size()));
    levels.push_back({{"level", level},
                      {"present", static_cast<int>(level) < present},
                      {"offset", header.levels[level].offset},
                      {"bytes", header.levels[level].length},
                      {"k_error", k_sum / layers},
                      {"v_error", v_sum / layers},
                      {"k_error_by_layer", std::move(k)},
                      {"v_error_by_layer", std::move(v)}});
  }
  out["levels"] = std::move(levels);
  return out;
}

void PrintInspection(const ordered_json& i, std::ostream& out) {
  const ordered_json &layers = i["part"]["layers"], &heads = i["part"]["heads"];
  out << "key          " << i["key"].get<std::string>() << "\nparent       " << i["parent"].get<std::string>()
      << "\nindex        " << i["index"] << "\nfingerprint  " << i["fingerprint"].get<std::string>()
      << "\npart         layers [" << layers[0] << ", " << layers[1] << "), heads [" << heads[0] << ", "
      << heads[1] << ")\nsinks        " << i["sink_tokens"] << " tokens\nbytes        " << i["bytes"] << ", "
      << i["header_bytes"] << " of them header\n";
  for (const ordered_json& range : i["codecs"]) {
    out << "codec        layers " << range["first_layer"] << "-" << range["last_layer"] << ": "
        << range["codec"].get<std::string>() << "\n";
  }
  for (const ordered_json& level : i["levels"]) {
    out << absl::StrFormat("level %d      %s, %d bytes at %d, relative error K %.5f V %.5f\n",
                           level["level"].get<int>(), level["present"].get<bool>() ? "present" : "dropped",
                           level["bytes"].get<uint64_t>(), level["offset"].get<uint64_t>(),
                           level["k_error"].get<double>(), level["v_error"].get<double>());
  }
}

}  // namespace quire::cli
