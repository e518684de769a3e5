#include "core/codec/spec.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire {
namespace {

constexpr uint32_t kMaxNamedLayer = 1023;  // layouts have at most 1024 layers
constexpr int kMinBits = 2, kMaxBits = 8, kMaxEffort = 3;

// A cursor over the text; every complaint names the byte offset it stands at.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  bool AtEnd() const { return pos_ == text_.size(); }
  size_t position() const { return pos_; }
  bool Take(std::string_view word) {
    if (text_.substr(pos_, word.size()) != word) return false;
    pos_ += word.size();
    return true;
  }
  absl::Status Expect(std::string_view word) {
    if (Take(word)) return absl::OkStatus();
    return Mistake(absl::StrCat("expected '", std::string(word), "'"));
  }
  absl::Status Mistake(const std::string& what) const { return MistakeAt(pos_, what); }
  absl::Status MistakeAt(size_t position, const std::string& what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("codec spec '", std::string(text_), "' at ", position, ": ", what));
  }
  // A name: letters, digits and underscores.
  std::string_view Name() {
    size_t begin = pos_;
    while (!AtEnd() && (std::isalnum(static_cast<unsigned char>(text_[pos_])) || text_[pos_] == '_')) ++pos_;
    return text_.substr(begin, pos_ - begin);
  }
  absl::StatusOr<uint32_t> Number(std::string_view what, uint32_t low, uint32_t high) {
    size_t begin = pos_;
    uint64_t value = 0;
    while (!AtEnd() && text_[pos_] >= '0' && text_[pos_] <= '9' && pos_ - begin < 9) {
      value = value * 10 + static_cast<uint64_t>(text_[pos_++] - '0');
    }
    if (pos_ == begin) return Mistake(absl::StrCat("expected ", std::string(what), ", a number"));
    if (value < low || value > high) {
      return MistakeAt(begin, absl::StrCat(std::string(what), " is ", low, " to ", high, ", not ", value));
    }
    return static_cast<uint32_t>(value);
  }

 private:
  std::string_view text_;
  size_t pos_ = 0;
};

// k4v4
absl::Status ParseBits(Cursor& in, uint8_t* k_bits, uint8_t* v_bits) {
  QUIRE_RETURN_IF_ERROR(in.Expect("k"));
  QUIRE_ASSIGN_OR_RETURN(uint32_t k, in.Number("bits of K", kMinBits, kMaxBits));
  QUIRE_RETURN_IF_ERROR(in.Expect("v"));
  QUIRE_ASSIGN_OR_RETURN(uint32_t v, in.Number("bits of V", kMinBits, kMaxBits));
  *k_bits = static_cast<uint8_t>(k);
  *v_bits = static_cast<uint8_t>(v);
  return absl::OkStatus();
}

absl::StatusOr<CodecId> ParseName(Cursor& in) {
  std::string_view name = in.Name();
  if (name == "raw") return CodecId::kRaw;
  if (name == "fp8") return CodecId::kFp8;
  if (name == "tq") return CodecId::kTq;
  if (name == "tq_prod") return CodecId::kTqProd;
  if (name == "qpc") {
    return absl::UnimplementedError(
        absl::StrCat("codec ", std::string(name), " does not code KV blocks in this version"));
  }
  return in.MistakeAt(0, "expected a codec: raw, fp8, tq or tq_prod");
}

// Whether bits of K and V are chosen: raw and fp8 have one form each.
bool HasBits(CodecId id) { return id == CodecId::kTq || id == CodecId::kTqProd; }

}  // namespace

std::string_view Name(CodecId id) {
  switch (id) {
    case CodecId::kRaw:
      return "raw";
    case CodecId::kFp8:
      return "fp8";
    case CodecId::kTq:
      return "tq";
    case CodecId::kTqProd:
      return "tq_prod";
    case CodecId::kQpc:
      return "qpc";
  }
  return "unknown";
}

CodecSpec::CodecSpec() : base_{CodecId::kTq, 4, 4} {}

absl::StatusOr<CodecSpec> CodecSpec::Parse(std::string_view text) {
  Cursor in(text);
  CodecSpec spec;
  QUIRE_ASSIGN_OR_RETURN(spec.base_.codec, ParseName(in));
  std::string name(Name(spec.codec()));
  if (!HasBits(spec.codec())) {
    spec.base_.k_bits = spec.base_.v_bits = 0;
    if (!in.AtEnd()) return in.Mistake(absl::StrCat("codec ", name, " takes no bits and no options"));
    return spec;
  }
  if (in.AtEnd()) return spec;
  QUIRE_RETURN_IF_ERROR(in.Expect(":"));
  QUIRE_RETURN_IF_ERROR(ParseBits(in, &spec.base_.k_bits, &spec.base_.v_bits));
  bool effort_given = false;
  while (!in.AtEnd()) {
    QUIRE_RETURN_IF_ERROR(in.Expect(","));
    size_t option = in.position();
    if (in.Take("effort=")) {
      if (spec.codec() == CodecId::kTqProd) {
        return in.MistakeAt(option, "codec tq_prod has no effort: its scale is the exact norm");
      }
      if (effort_given) return in.MistakeAt(option, "effort is given twice");
      effort_given = true;
      QUIRE_ASSIGN_OR_RETURN(uint32_t effort, in.Number("effort", 0, kMaxEffort));
      spec.effort_ = static_cast<int>(effort);
    } else if (in.Take("layers=")) {
      Override o{};
      QUIRE_ASSIGN_OR_RETURN(o.first, in.Number("a layer", 0, kMaxNamedLayer));
      o.last = o.first;
      if (in.Take("-")) {
        QUIRE_ASSIGN_OR_RETURN(o.last, in.Number("the last layer", o.first, kMaxNamedLayer));
      }
      QUIRE_RETURN_IF_ERROR(in.Expect(":"));
      QUIRE_RETURN_IF_ERROR(ParseBits(in, &o.k_bits, &o.v_bits));
      for (const Override& other : spec.overrides_) {
        if (o.first <= other.last && other.first <= o.last) {
          return in.MistakeAt(option,
                              absl::StrCat("layer ", std::max(o.first, other.first), " is named twice"));
        }
      }
      spec.overrides_.push_back(o);
    } else {
      return in.Mistake("expected effort= or layers=");
    }
  }
  spec.Canonicalise();
  return spec;
}

// Overrides in order of layers, neighbours with equal bits joined. One that repeats the bits in front stays:
// it names a layer, and a layout without that layer must refuse it.
void CodecSpec::Canonicalise() {
  std::sort(overrides_.begin(), overrides_.end(),
            [](const Override& a, const Override& b) { return a.first < b.first; });
  std::vector<Override> joined;
  for (const Override& o : overrides_) {
    bool extends = !joined.empty() && joined.back().last + 1 == o.first && joined.back().k_bits == o.k_bits &&
                   joined.back().v_bits == o.v_bits;
    if (extends) {
      joined.back().last = o.last;
    } else {
      joined.push_back(o);
    }
  }
  overrides_ = std::move(joined);
}

std::string CodecSpec::ToString() const {
  std::string text(Name(base_.codec));
  if (!HasBits(base_.codec)) return text;
  absl::StrAppend(&text, ":k", base_.k_bits, "v", base_.v_bits);
  if (effort_) absl::StrAppend(&text, ",effort=", *effort_);
  for (const Override& o : overrides_) {
    absl::StrAppend(&text, ",layers=", o.first);
    if (o.last > o.first) absl::StrAppend(&text, "-", o.last);
    absl::StrAppend(&text, ":k", o.k_bits, "v", o.v_bits);
  }
  return text;
}

LayerCodec CodecSpec::ForLayer(uint32_t layer) const {
  for (const Override& o : overrides_) {
    if (o.first <= layer && layer <= o.last) return {base_.codec, o.k_bits, o.v_bits};
  }
  return base_;
}

int64_t CodecSpec::last_named_layer() const {
  return overrides_.empty() ? -1 : int64_t{overrides_.back().last};
}

}  // namespace quire
