#include "core/model/gguf_parser.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/utf8.h"

namespace quire {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32, kMinAlignment = 8, kMaxAlignment = 1 << 20;
// The least bytes that one of these takes in a file: what bounds a count by the bytes that are left.
constexpr uint64_t kMinStringBytes = 8;
constexpr uint64_t kMinKeyValueBytes = kMinStringBytes + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = kMinStringBytes + 1 + 4 + 8 + 4 + 8;

enum class ValueType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

// Bytes of a fixed-size value, 0 for strings, arrays and unknown types.
uint64_t FixedSize(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    default:
      return 0;
  }
}

// Names of the tensor types that ggml has and Quire does not read.
std::string_view UnsupportedTypeName(uint32_t type) {
  static constexpr struct {
    uint32_t type;
    std::string_view name;
  } kNames[] = {{9, "Q8_1"},    {10, "Q2_K"},    {11, "Q3_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
                {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
                {22, "IQ2_S"},  {23, "IQ4_XS"},  {24, "I8"},    {25, "I16"},    {26, "I32"},
                {27, "I64"},    {28, "F64"},     {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},
                {39, "MXFP4"}};
  for (const auto& entry : kNames) {
    if (entry.type == type) return entry.name;
  }
  return "";
}

bool IsSupported(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
    case GgmlType::kQ4_0:
    case GgmlType::kQ4_1:
    case GgmlType::kQ5_0:
    case GgmlType::kQ5_1:
    case GgmlType::kQ8_0:
    case GgmlType::kQ4_K:
    case GgmlType::kQ5_K:
    case GgmlType::kQ6_K:
      return true;
  }
  return false;
}

class Parser {
 public:
  explicit Parser(Bytes bytes) : bytes_(bytes), reader_(bytes) {}

  absl::StatusOr<GgufContents> Run() {
    QUIRE_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < pairs_; ++i) QUIRE_RETURN_IF_ERROR(ReadKeyValue());
    QUIRE_RETURN_IF_ERROR(ReadAlignment());
    // Key-value pairs may have eaten the bytes that the tensor count was first checked against.
    QUIRE_RETURN_IF_ERROR(CheckCount("tensor", tensors_, kMinTensorBytes));
    out_.tensors.reserve(tensors_);
    offsets_.reserve(tensors_);
    for (uint64_t i = 0; i < tensors_; ++i) QUIRE_RETURN_IF_ERROR(ReadTensorInfo());
    QUIRE_RETURN_IF_ERROR(PlaceTensors());
    return std::move(out_);
  }

 private:
  absl::Status Error(const std::string& what, uint64_t offset) const {
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF: ", what, " (at offset ", offset, " of ", bytes_.size(), ")"));
  }
  absl::Status Error(const std::string& what) const { return Error(what, reader_.position()); }
  absl::Status EndsEarly(const std::string& what) const {
    return Error(absl::StrCat("the file ends inside ", what));
  }

  absl::Status CheckCount(std::string_view what, uint64_t count, uint64_t least_bytes) const {
    if (count <= reader_.remaining() / least_bytes) return absl::OkStatus();
    return Error(absl::StrCat(std::string(what), " count ", count, " needs at least ", least_bytes,
                              " bytes each, ", reader_.remaining(), " are left"));
  }

  absl::Status ReadHeader() {
    if (reader_.Get<uint32_t>() != kMagic || !reader_.ok())
      return Error("not a GGUF file: no magic \"GGUF\"", 0);
    uint32_t version = reader_.Get<uint32_t>();
    tensors_ = reader_.Get<uint64_t>();
    pairs_ = reader_.Get<uint64_t>();
    if (!reader_.ok()) return EndsEarly("the header");
    if (version == 0x02000000 || version == 0x03000000) return Error("big-endian files are not supported", 4);
    if (version != 2 && version != 3)
      return Error(absl::StrCat("version ", version, " is not supported, only 2 and 3"), 4);
    QUIRE_RETURN_IF_ERROR(CheckCount("tensor", tensors_, kMinTensorBytes));
    return CheckCount("metadata", pairs_, kMinKeyValueBytes);
  }

  absl::StatusOr<std::string> ReadString(const std::string& what) {
    uint64_t at = reader_.position();
    uint64_t size = reader_.Get<uint64_t>();
    if (!reader_.ok()) return EndsEarly(what);
    if (size > reader_.remaining()) {
      return Error(absl::StrCat(what, " claims ", size, " bytes, ", reader_.remaining(), " are left"), at);
    }
    std::string_view text = AsString(reader_.GetBytes(size));
    if (auto bad = FindInvalidUtf8(text))
      return Error(absl::StrCat(what, " is not UTF-8 from byte ", *bad), at);
    return std::string(text);
  }

  absl::Status ReadKeyValue() {
    uint64_t at = reader_.position();
    QUIRE_ASSIGN_OR_RETURN(std::string key, ReadString("a metadata key"));
    if (key.empty()) return Error("a metadata key is empty", at);
    auto type = static_cast<ValueType>(reader_.Get<uint32_t>());
    if (!reader_.ok()) return EndsEarly(absl::StrCat("the type of '", key, "'"));
    QUIRE_ASSIGN_OR_RETURN(GgufFile::Value value, ReadValue(key, type));
    if (key == "general.alignment" && type != ValueType::kU32)
      return Error("general.alignment is not a 32-bit unsigned integer", at);
    if (!out_.metadata.try_emplace(key, std::move(value)).second) {
      return Error(absl::StrCat("metadata key '", key, "' appears twice"), at);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<GgufFile::Value> ReadValue(const std::string& key, ValueType type) {
    if (type == ValueType::kString) {
      QUIRE_ASSIGN_OR_RETURN(std::string text, ReadString(absl::StrCat("'", key, "'")));
      return text;
    }
    if (type == ValueType::kArray) {
      QUIRE_ASSIGN_OR_RETURN(GgufFile::Array array, ReadArray(key));
      return array;
    }
    if (FixedSize(type) == 0) {
      return Error(absl::StrCat("'", key, "' has unknown value type ", static_cast<uint32_t>(type)));
    }
    GgufFile::Value value = ReadScalar(type);
    if (!reader_.ok()) return EndsEarly(absl::StrCat("'", key, "'"));
    return value;
  }

  GgufFile::Value ReadScalar(ValueType type) {
    switch (type) {
      case ValueType::kU8:
        return uint64_t{reader_.Get<uint8_t>()};
      case ValueType::kU16:
        return uint64_t{reader_.Get<uint16_t>()};
      case ValueType::kU32:
        return uint64_t{reader_.Get<uint32_t>()};
      case ValueType::kU64:
        return reader_.Get<uint64_t>();
      case ValueType::kI8:
        return int64_t{reader_.Get<int8_t>()};
      case ValueType::kI16:
        return int64_t{reader_.Get<int16_t>()};
      case ValueType::kI32:
        return int64_t{reader_.Get<int32_t>()};
      case ValueType::kI64:
        return reader_.Get<int64_t>();
      case ValueType::kF32:
        return double{reader_.Get<float>()};
      case ValueType::kF64:
        return reader_.Get<double>();
      default:
        return reader_.Get<uint8_t>() != 0;  // kBool
    }
  }

  absl::StatusOr<GgufFile::Array> ReadArray(const std::string& key) {
    uint64_t at = reader_.position();
    auto type = static_cast<ValueType>(reader_.Get<uint32_t>());
    uint64_t count = reader_.Get<uint64_t>();
    if (!reader_.ok()) return EndsEarly(absl::StrCat("the array '", key, "'"));
    if (type == ValueType::kArray)
      return Error(absl::StrCat("'", key, "' is an array of arrays, which is not supported"), at);
    uint64_t least = type == ValueType::kString ? kMinStringBytes : FixedSize(type);
    if (least == 0)
      return Error(absl::StrCat("array '", key, "' has unknown element type ", static_cast<uint32_t>(type)),
                   at);
    QUIRE_RETURN_IF_ERROR(CheckCount(absl::StrCat("element of '", key, "'"), count, least));
    if (type == ValueType::kString) return ReadStrings(key, count);
    if (type == ValueType::kF32 || type == ValueType::kF64) {
      std::vector<double> values(count);
      for (double& v : values) v = std::get<double>(ReadScalar(type));
      return values;
    }
    return ReadInts(key, type, count);
  }

  absl::StatusOr<GgufFile::Array> ReadStrings(const std::string& key, uint64_t count) {
    std::vector<std::string> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      QUIRE_ASSIGN_OR_RETURN(std::string text, ReadString(absl::StrCat("element ", i, " of '", key, "'")));
      values.push_back(std::move(text));
    }
    return values;
  }

  absl::StatusOr<GgufFile::Array> ReadInts(const std::string& key, ValueType type, uint64_t count) {
    std::vector<int64_t> values(count);
    for (int64_t& out : values) {
      GgufFile::Value value = ReadScalar(type);
      if (const auto* u = std::get_if<uint64_t>(&value)) {
        if (*u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
          return Error(
              absl::StrCat("array '", key, "' holds ", *u, ", more than a signed 64-bit integer can"));
        }
        out = static_cast<int64_t>(*u);
      } else if (const auto* b = std::get_if<bool>(&value)) {
        out = *b;
      } else {
        out = std::get<int64_t>(value);
      }
    }
    return values;
  }

  absl::Status ReadAlignment() {
    auto it = out_.metadata.find("general.alignment");
    if (it == out_.metadata.end()) return absl::OkStatus();
    alignment_ = std::get<uint64_t>(it->second);
    if (alignment_ < kMinAlignment || alignment_ > kMaxAlignment || (alignment_ & (alignment_ - 1)) != 0) {
      return Error(absl::StrCat("general.alignment is ", alignment_, ", not a power of two from ",
                                kMinAlignment, " to ", kMaxAlignment));
    }
    return absl::OkStatus();
  }

  absl::Status ReadTensorInfo() {
    uint64_t at = reader_.position();
    QUIRE_ASSIGN_OR_RETURN(std::string name, ReadString("a tensor name"));
    if (name.empty()) return Error("a tensor name is empty", at);
    std::string quoted = absl::StrCat("tensor '", name, "'");
    uint32_t dimensions = reader_.Get<uint32_t>();
    if (!reader_.ok()) return EndsEarly(quoted);
    if (dimensions == 0 || dimensions > kMaxDimensions) {
      return Error(absl::StrCat(quoted, " has ", dimensions, " dimensions, not 1 to ", kMaxDimensions), at);
    }
    GgufTensor tensor{
        .name = name, .type = GgmlType::kF32, .shape = std::vector<uint64_t>(dimensions), .data = {}};
    for (uint32_t i = 0; i < dimensions; ++i) tensor.shape[dimensions - 1 - i] = reader_.Get<uint64_t>();
    uint32_t type = reader_.Get<uint32_t>();
    offsets_.push_back(reader_.Get<uint64_t>());
    if (!reader_.ok()) return EndsEarly(quoted);
    if (!IsSupported(type)) {
      if (std::string_view known = UnsupportedTypeName(type); !known.empty()) {
        return absl::UnimplementedError(absl::StrCat(
            "GGUF: ", quoted, " has type ", std::string(known),
            ", which is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K are)"));
      }
      return Error(absl::StrCat(quoted, " has unknown type ", type), at);
    }
    tensor.type = static_cast<GgmlType>(type);
    if (!out_.by_name.try_emplace(name, out_.tensors.size()).second)
      return Error(absl::StrCat(quoted, " appears twice"), at);
    out_.tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // Bytes of a tensor's data, 0 if the shape is impossible: an empty or overflowing dimension, or rows of no
  // whole blocks.
  static uint64_t DataBytes(const GgufTensor& tensor) {
    GgmlBlock block = BlockOf(tensor.type);
    uint64_t elements = 1;
    for (uint64_t d : tensor.shape) {
      if (d == 0 || elements > std::numeric_limits<int64_t>::max() / block.bytes / d) return 0;
      elements *= d;
    }
    return tensor.shape.back() % block.elements != 0 ? 0 : elements / block.elements * block.bytes;
  }

  // Points each tensor at its bytes. Overlapping tensors are refused too, so that all tensors together are no
  // larger than the file.
  absl::Status PlaceTensors() {
    if (out_.tensors.empty()) return absl::OkStatus();
    uint64_t start = (reader_.position() + alignment_ - 1) / alignment_ * alignment_;
    uint64_t room = start > bytes_.size() ? 0 : bytes_.size() - start;
    for (size_t i = 0; i < out_.tensors.size(); ++i) {
      GgufTensor& tensor = out_.tensors[i];
      uint64_t size = DataBytes(tensor), offset = offsets_[i];
      std::string quoted = absl::StrCat("tensor '", tensor.name, "'");
      if (size == 0) {
        std::string shape;
        for (uint64_t d : tensor.shape) absl::StrAppend(&shape, shape.empty() ? "" : ", ", d);
        return Error(absl::StrCat(quoted, " has shape [", shape, "], impossible for type ",
                                  std::string(Name(tensor.type))));
      }
      if (offset % alignment_ != 0)
        return Error(absl::StrCat(quoted, " has offset ", offset, ", no multiple of ", alignment_));
      if (offset > room || size > room - offset) {
        return Error(absl::StrCat(quoted, " claims ", size, " bytes at data offset ", offset,
                                  ", the file has ", room, " bytes of data"));
      }
      tensor.data = bytes_.subspan(start + offset, size);
    }
    std::vector<size_t> order(out_.tensors.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offsets_[a] < offsets_[b]; });
    for (size_t i = 1; i < order.size(); ++i) {
      const GgufTensor &a = out_.tensors[order[i - 1]], &b = out_.tensors[order[i]];
      if (a.data.data() + a.data.size() > b.data.data()) {
        return Error(absl::StrCat("tensors '", a.name, "' and '", b.name, "' overlap"),
                     start + offsets_[order[i]]);
      }
    }
    return absl::OkStatus();
  }

  Bytes bytes_;
  ByteReader reader_;
  uint64_t tensors_ = 0, pairs_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<uint64_t> offsets_;  // of each tensor's data, from the start of the data section
  GgufContents out_;
};

}  // namespace

absl::StatusOr<GgufContents> ParseGguf(Bytes bytes) { return Parser(bytes).Run(); }

}  // namespace quire
