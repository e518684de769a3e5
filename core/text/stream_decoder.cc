#include "core/base/utf8.h"
#include "core/text/tokenizer.h"

namespace quire {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::Push(uint32_t token) {
  if (token >= tokenizer_->vocabulary() || (skip_special_ && tokenizer_->IsSpecial(token))) return "";
  pending_ += tokenizer_->TokenBytes(token);
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    Utf8Step step = NextUtf8(std::string_view(pending_).substr(at));
    if (step.kind == Utf8Kind::kPartial) break;
    if (step.kind == Utf8Kind::kWhole) {
      out.append(pending_, at, step.bytes);
    } else {
      out += kReplacement;
    }
    at += step.bytes;
  }
  pending_.erase(0, at);
  return out;
}

std::string StreamDecoder::Flush() {
  // Push leaves at most the beginning of one character behind.
  bool cut = !pending_.empty();
  pending_.clear();
  return cut ? std::string(kReplacement) : "";
}

}  // namespace quire
