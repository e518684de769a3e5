// Golden data of an independent implementation: make_dequantize_golden.py.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/gguf.h"

namespace quire {
namespace {

constexpr GgmlType kTypes[] = {GgmlType::kF32,  GgmlType::kF16,  GgmlType::kBF16, GgmlType::kQ8_0,
                               GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1,
                               GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K};

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> out(hex.size() / 2);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return out;
}

class DequantizeGolden : public testing::TestWithParam<GgmlType> {};

TEST_P(DequantizeGolden, EqualsTheOtherImplementationBitByBit) {
  std::ifstream file(QUIRE_GOLDEN_DIR "/dequantize.json");
  nlohmann::json cases = nlohmann::json::parse(file);
  size_t seen = 0;
  for (const auto& golden : cases) {
    if (golden["type"] != std::string(Name(GetParam()))) continue;
    std::vector<uint8_t> data = FromHex(golden["data"]), wanted_bytes = FromHex(golden["floats"]);
    std::vector<float> wanted(wanted_bytes.size() / 4), got(wanted.size());
    std::memcpy(wanted.data(), wanted_bytes.data(), wanted_bytes.size());
    GgmlBlock block = BlockOf(GetParam());
    ASSERT_EQ(data.size() / block.bytes * block.elements, wanted.size());
    // At an odd address: data in a file need not be aligned.
    data.insert(data.begin(), 0);
    Dequantize(GetParam(), Bytes(data).subspan(1), got);
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(wanted[i])) {
        EXPECT_TRUE(std::isnan(got[i])) << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(wanted[i]))
            << i << ": " << got[i] << " for " << wanted[i];
      }
    }
    seen += got.size();
  }
  EXPECT_GE(seen, 32u);
}

INSTANTIATE_TEST_SUITE_P(Types, DequantizeGolden, testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace quire
