// Little-endian reading and writing with bounds, for every binary format of ours (and GGUF).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {

static_assert(std::endian::native == std::endian::little, "formats are little-endian and read in place");

using Bytes = std::span<const uint8_t>;
using MutableBytes = std::span<uint8_t>;

inline Bytes AsBytes(std::string_view s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }
inline std::string_view AsString(Bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// Appends to a byte vector owned by the caller.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<uint8_t>* out) : out_(out) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void Put(T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    out_->insert(out_->end(), p, p + sizeof(T));
  }
  void PutBytes(Bytes bytes) { out_->insert(out_->end(), bytes.begin(), bytes.end()); }
  void PutString(std::string_view s) {  // u32 length, then the bytes
    Put(static_cast<uint32_t>(s.size()));
    PutBytes(AsBytes(s));
  }
  void PadTo(size_t multiple) { out_->resize((out_->size() + multiple - 1) / multiple * multiple); }
  size_t size() const { return out_->size(); }

 private:
  std::vector<uint8_t>* out_;
};

// Reads from a borrowed span. The first read past the end sets an error that sticks; later reads give zeros,
// so a parser may read a run of fields and check once.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : bytes_(bytes) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T> T Get() {
    T value{};
    if (Bytes b = GetBytes(sizeof(T)); b.size() == sizeof(T)) std::memcpy(&value, b.data(), sizeof(T));
    return value;
  }
  Bytes GetBytes(size_t n) {
    if (failed_ || n > remaining()) {
      failed_ = true;
      return {};
    }
    Bytes out = bytes_.subspan(pos_, n);
    pos_ += n;
    return out;
  }
  void Skip(size_t n) { GetBytes(n); }

  size_t position() const { return pos_; }
  size_t remaining() const { return bytes_.size() - pos_; }
  bool ok() const { return !failed_; }
  absl::Status status(std::string_view what) const {
    if (!failed_) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(std::string(what), " ends early: ", bytes_.size(),
                                            " bytes, more wanted at offset ", pos_));
  }

 private:
  Bytes bytes_;
  size_t pos_ = 0;
  bool failed_ = false;
};

}  // namespace quire
