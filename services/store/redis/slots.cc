#include "services/store/redis/slots.h"

#include <array>
#include <charconv>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

constexpr std::array<uint16_t, 256> MakeCrcTable() {
  std::array<uint16_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc << 1) ^ ((crc & 0x8000) != 0 ? 0x1021 : 0);
    table[byte] = static_cast<uint16_t>(crc);
  }
  return table;
}

uint16_t Crc16(std::string_view text) {
  static constexpr std::array<uint16_t, 256> kTable = MakeCrcTable();
  uint32_t crc = 0;
  for (char c : text) crc = (crc << 8) ^ kTable[((crc >> 8) ^ static_cast<uint8_t>(c)) & 0xff];
  return static_cast<uint16_t>(crc);
}

template <typename T>
bool ParseNumber(std::string_view text, T* out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

bool InRange(const Reply& reply, int64_t low, int64_t high) {
  return reply.is(Reply::Type::kInteger) && reply.integer >= low && reply.integer <= high;
}

}  // namespace

uint16_t KeySlot(std::string_view key) {
  if (size_t open = key.find('{'); open != key.npos) {
    size_t close = key.find('}', open + 1);
    if (close != key.npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  return Crc16(key) % kSlots;
}

absl::StatusOr<std::vector<SlotRange>> ParseSlots(const Reply& reply) {
  using Type = Reply::Type;
  if (!reply.is(Type::kArray)) return Unexpected("its slots", reply);
  std::vector<SlotRange> ranges;
  for (const Reply& entry : reply.elements) {
    bool valid = entry.is(Type::kArray) && entry.elements.size() >= 3 &&
                 InRange(entry.elements[0], 0, kSlots - 1) &&
                 InRange(entry.elements[1], entry.elements[0].integer, kSlots - 1) &&
                 entry.elements[2].is(Type::kArray) && entry.elements[2].elements.size() >= 2 &&
                 InRange(entry.elements[2].elements[1], 1, UINT16_MAX);
    if (!valid) return absl::DataLossError("redis describes its slots in a form that is not known");
    const Reply& host = entry.elements[2].elements[0];
    if (!host.is(Type::kString) && !host.is(Type::kNil))
      return absl::DataLossError("redis names a cluster node in a form that is not known");
    SlotRange range;
    range.first = static_cast<uint32_t>(entry.elements[0].integer);
    range.last = static_cast<uint32_t>(entry.elements[1].integer);
    range.host = host.text == "?" ? "" : host.text;  // "?": a node that does not know its name yet
    range.port = static_cast<uint16_t>(entry.elements[2].elements[1].integer);
    ranges.push_back(std::move(range));
  }
  return ranges;
}

absl::StatusOr<Redirect> ParseRedirect(std::string_view error) {
  Redirect redirect;
  redirect.ask = error.starts_with("ASK ");
  if (!redirect.ask && !error.starts_with("MOVED ")) return absl::NotFoundError("no redirect");
  std::string_view rest = error.substr(error.find(' ') + 1);
  size_t space = rest.find(' ');
  size_t colon = rest.rfind(':');
  bool valid = space != rest.npos && colon != rest.npos && colon > space &&
               ParseNumber(rest.substr(0, space), &redirect.slot) && redirect.slot < kSlots &&
               ParseNumber(rest.substr(colon + 1), &redirect.port) && redirect.port != 0;
  if (!valid) {
    return absl::DataLossError(
        absl::StrCat("redis redirects in a form that is not known: ", std::string(error.substr(0, 100))));
  }
  redirect.host = rest.substr(space + 1, colon - space - 1);
  if (redirect.host == "?") redirect.host.clear();
  return redirect;
}

}  // namespace quire::store::redis
