// Format v1 for ever: encoding the stated input gives exactly the golden objects, and decoding them exactly
// the golden values (tests/data/format_v1; decode_object.py checks the same files from core/block/README.md
// alone).
//
// QUIRE_WRITE_GOLDEN=DIR writes the files instead. That is right only while a case is being added: the bytes
// of an existing case never change.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/block/keys.h"
#include "core/block/object.h"
#include "core/codec/codebook.h"
#include "core/codec/rotation.h"
#include "core/codec/tq_prod.h"
#include "tests/core/block/sample_block.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

struct Case {
  const char* name;
  uint32_t dim;
  DType dtype;
  const char* spec;
  uint32_t index;
  bool latent = false;
};

constexpr Case kCases[] = {
    {"d16_raw", 16, DType::kF16, "raw", 1},
    {"d64_k4v4", 64, DType::kBf16, "tq:k4v4", 0},
    {"d80_k3v2", 80, DType::kF16, "tq:k3v2,effort=1", 1},
    {"d112_k6v5", 112, DType::kF32, "tq:k6v5,effort=3", 1},
    {"d128_k8v8", 128, DType::kBf16, "tq:k8v8", 0},
    {"d256_k2v4", 256, DType::kBf16, "tq:k2v4", 1},
    {"d576_latent_k4", 576, DType::kBf16, "tq:k4v4", 0, true},
    {"d64_fp8", 64, DType::kF16, "fp8", 1},
    {"d96_fp8", 96, DType::kBf16, "fp8", 0},
    {"d48_prod_k3v8", 48, DType::kF32, "tq_prod:k3v8", 1},
    {"d80_prod_k2v5", 80, DType::kF16, "tq_prod:k2v5", 1},
    {"d128_prod_k4v4", 128, DType::kBf16, "tq_prod:k4v4", 0},
    {"d64_latent_prod_k3", 64, DType::kBf16, "tq_prod:k3v3", 0, true},
};

Layout LayoutOf(const Case& c) {
  Layout layout = SampleLayout(1, 1, c.dim, c.dtype);
  layout.rope_state = "theta=10000";
  if (c.latent) layout.layers[0].streams = {{StreamKind::kLatent, 1, c.dim, 0}};
  return layout;
}

// Salt "golden", no extra, tokens 7 i + 1.
BlockIdentity IdentityOf(const Case& c, const Layout& layout) {
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < 64 * (c.index + 1); ++i) tokens.push_back(7 * i + 1);
  Digest root = RootKey(layout.Fingerprint(), "golden");
  std::vector<Digest> keys = BlockKeys(root, tokens);
  return {c.index == 0 ? root : keys[c.index - 1], keys[c.index], c.index};
}

std::string Path(const std::string& folder, const std::string& name) {
  return absl::StrCat(folder, "/", name, ".json");
}

std::vector<uint8_t> Unhex(const std::string& hex) {
  std::string raw = absl::HexStringToBytes(hex);
  return {raw.begin(), raw.end()};
}

// One token of each prefix of the levels and three (the last sink, if any, and the first that is coded) of
// all of them.
Json Decoded(const BlockReader& reader, const SampleBlock& like) {
  Json rows = Json::array();
  for (int levels = 1; levels <= reader.levels(); ++levels) {
    SampleBlock out = like.Blank();
    EXPECT_TRUE(reader.DecodeLayer(0, levels, out.MutableViews()[0]).ok());
    const auto& layer = out.layers[0];
    bool all = levels == reader.levels();
    for (uint32_t t : all ? std::vector<uint32_t>{3, 4, 46} : std::vector<uint32_t>{37}) {
      auto row = [&](const std::vector<float>& x, uint32_t dim) {
        return std::vector<float>(x.begin() + t * dim, x.begin() + (t + 1) * dim);
      };
      Json entry{{"levels", levels}, {"token", t}, {"k", row(layer.k, layer.k_dim)}};
      if (layer.v_dim > 0) entry["v"] = row(layer.v, layer.v_dim);
      rows.push_back(entry);
    }
  }
  return rows;
}

Json Make(const Case& c) {
  Layout layout = LayoutOf(c);
  BlockIdentity identity = IdentityOf(c, layout);
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  SampleBlock block(layout, Part::Whole(layout), c.dim);
  std::vector<uint8_t> object;
  // These objects are older than the search that streams of many bits have by default.
  std::string spec = c.spec;
  if (spec.starts_with("tq:") && spec.find("effort=") == std::string::npos) spec += ",effort=0";
  absl::Status status = codec->Encode(*CodecSpec::Parse(spec), identity, block.Views(), &object);
  EXPECT_TRUE(status.ok()) << status;
  auto reader = BlockReader::Open(codec, identity, object);
  EXPECT_TRUE(reader.ok()) << reader.status();
  return Json{{"name", c.name},
              {"spec", c.spec},
              {"sample_seed", c.dim},
              {"index", c.index},
              {"layout", HexString(layout.Serialize())},
              {"fingerprint", layout.Fingerprint().Hex()},
              {"salt", "golden"},
              {"parent", identity.parent.Hex()},
              {"key", identity.key.Hex()},
              {"object", HexString(object)},
              {"decoded", Decoded(*reader, block)}};
}

// The derived constants a decoder needs, piece by piece.
Json MakeDerived() {
  Json rotations = Json::array(), codebooks = Json::array();
  for (uint32_t dim : {64u, 80u, 128u, 256u, 576u}) {
    std::vector<float> x(dim);
    for (uint32_t i = 0; i < dim; ++i) x[i] = SampleValue(i);
    Rotation(dim, 42).Apply(x.data());
    rotations.push_back({{"dim", dim}, {"seed", 42}, {"rotated_sample", x}});
    for (int bits : {2, 3, 4}) {
      Json kept = Json::object();
      for (int k = 2; k <= bits; ++k)
        kept[std::to_string(k)] = std::vector<float>(Codebook::Get(dim, bits).table(k),
                                                     Codebook::Get(dim, bits).table(k) + (1 << (k - 1)));
      codebooks.push_back({{"dim", dim}, {"bits", bits}, {"centroids_by_kept_bits", kept}});
    }
  }
  return Json{{"rotations", rotations}, {"codebooks", codebooks}};
}

Json MakeProjections() {
  Json projections = Json::array();
  for (uint32_t dim : {16u, 80u, 128u}) {
    Projection projection(dim, 42);
    auto row = [&](uint32_t j) { return std::vector<float>(projection.row(j), projection.row(j) + dim); };
    projections.push_back({{"dim", dim}, {"seed", 42}, {"first_row", row(0)}, {"last_row", row(dim - 1)}});
  }
  return Json{{"projections", projections}};
}

void WriteOrCompare(const std::string& name, const Json& made) {
  if (const char* folder = std::getenv("QUIRE_WRITE_GOLDEN")) {
    std::ofstream(Path(folder, name)) << made.dump() << "\n";
    return;
  }
  std::ifstream in(Path(QUIRE_TEST_DATA "/format_v1", name));
  ASSERT_TRUE(in.good()) << name;
  Json golden = Json::parse(in);
  for (const auto& [field, value] : golden.items()) {
    // As text where it is long: a difference is then one line.
    EXPECT_TRUE(made.at(field) == value) << name << ": " << field << " differs";
  }
  EXPECT_EQ(golden.size(), made.size());
}

TEST(GoldenTest, ObjectsAreWrittenAndReadAsEver) {
  for (const Case& c : kCases) WriteOrCompare(c.name, Make(c));
}

TEST(GoldenTest, DerivedConstants) { WriteOrCompare("derived", MakeDerived()); }

TEST(GoldenTest, Projections) { WriteOrCompare("projections", MakeProjections()); }

TEST(GoldenTest, StoredObjectsStillOpen) {
  for (const Case& c : kCases) {
    std::ifstream in(Path(QUIRE_TEST_DATA "/format_v1", c.name));
    ASSERT_TRUE(in.good()) << c.name;
    Json golden = Json::parse(in);
    auto layout = Layout::Parse(Unhex(golden["layout"]));
    ASSERT_TRUE(layout.ok()) << layout.status();
    EXPECT_EQ(layout->Fingerprint().Hex(), golden["fingerprint"]);
    std::vector<uint8_t> object = Unhex(golden["object"]);
    auto reader = BlockReader::Open(*BlockCodec::Create(*layout, Part::Whole(*layout)),
                                    {*Digest::FromHex(golden["parent"].get<std::string>()),
                                     *Digest::FromHex(golden["key"].get<std::string>()), c.index},
                                    object);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_TRUE(reader->Verify().ok());
    EXPECT_TRUE(Decoded(*reader, SampleBlock(*layout, Part::Whole(*layout))) == golden["decoded"]) << c.name;
  }
}

}  // namespace
}  // namespace quire
