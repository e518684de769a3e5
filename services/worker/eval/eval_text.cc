#include "services/worker/eval/eval_text.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace quire::worker {
namespace {

constexpr size_t kBytesAToken = 64;  // far above any tokenizer's mean: bounds what is read of a huge file

absl::StatusOr<std::string> ReadHead(const std::string& path, size_t most) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(most, '\0');
  if (file) file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.is_open() || file.bad()) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (!file.eof()) {  // cut somewhere: drop the last character, which may be half
    while (!bytes.empty() && (bytes.back() & 0xC0) == 0x80) bytes.pop_back();
    if (!bytes.empty()) bytes.pop_back();
  }
  return bytes;
}

Digest DigestOf(const std::vector<uint32_t>& tokens) {
  Sha256 sha;
  for (uint32_t token : tokens) sha.UpdateU32(token);
  return sha.Finish();
}

}  // namespace

absl::StatusOr<EvalText> ReadEvalText(const std::string& path, const Tokenizer& tokenizer, uint32_t prefix,
                                      uint32_t score) {
  const size_t wanted = size_t{prefix} + score + 1;
  absl::StatusOr<std::string> bytes = ReadHead(path, wanted * kBytesAToken);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<std::vector<uint32_t>> tokens =
      tokenizer.Encode(*bytes, /*parse_special=*/false, /*add_special=*/true);
  if (!tokens.ok()) {
    return absl::Status(tokens.status().code(),
                        absl::StrCat(path, ": ", std::string(tokens.status().message())));
  }
  if (tokens->size() + 1 < wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", tokens->size(), " tokens, ", wanted - 1,
                                                   " are needed (prefix ", prefix, " + score ", score, ")"));
  }
  tokens->resize(std::min(tokens->size(), wanted));
  EvalText text{path, *std::move(tokens), {}};
  text.digest = DigestOf(text.tokens);
  return text;
}

}  // namespace quire::worker
