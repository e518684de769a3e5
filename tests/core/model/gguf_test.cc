#include "core/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/core/model/gguf_builder.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::Status ParseStatus(const GgufBuilder& builder) {
  std::vector<uint8_t> bytes = builder.Build();
  return GgufFile::Parse(bytes).status();
}

void ExpectRefused(const GgufBuilder& builder, const std::string& words) {
  absl::Status status = ParseStatus(builder);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

// One tensor of 32 floats; what the lies below are told about.
GgufBuilder OneTensor() {
  GgufBuilder b;
  b.Zeros("t", GgmlType::kF32, {4, 8});
  return b;
}

template <typename T>
std::vector<uint8_t> Payload(std::initializer_list<T> values) {
  std::vector<uint8_t> out;
  for (T v : values) ByteWriter(&out).Put(v);
  return out;
}

// The head of an array: element type, then count.
std::vector<uint8_t> ArrayHead(uint32_t type, uint64_t count) {
  std::vector<uint8_t> out;
  ByteWriter w(&out);
  w.Put(type);
  w.Put(count);
  return out;
}

TEST(Gguf, ReadsEveryKindOfValue) {
  GgufBuilder b;
  b.U32("u", 7)
      .F32("f", 1.5f)
      .Bool("b", true)
      .String("s", "héllo")
      .Strings("ss", {"x", "", "z"})
      .I32s("is", {-1, 2});
  b.Scalar("i8", GgufBuilder::kI8, int8_t{-3})
      .Scalar("u64", GgufBuilder::kU64, ~uint64_t{0})
      .Scalar("f64", GgufBuilder::kF64, 0.1);
  b.Zeros("w", GgmlType::kQ8_0, {3, 64});
  std::vector<uint8_t> bytes = b.Build();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& f = **file;
  EXPECT_EQ(*f.GetUint("u"), 7u);
  EXPECT_EQ(*f.GetUint("u64"), ~uint64_t{0});
  EXPECT_EQ(*f.GetFloat("f"), 1.5);
  EXPECT_EQ(*f.GetFloat("f64"), 0.1);
  EXPECT_EQ(*f.GetBool("b"), true);
  EXPECT_EQ(*f.GetString("s"), "héllo");
  EXPECT_THAT(*f.GetStrings("ss"), ElementsAre("x", "", "z"));
  EXPECT_THAT(*f.GetInts("is"), ElementsAre(-1, 2));
  EXPECT_TRUE(f.Has("u"));
  EXPECT_FALSE(f.Has("v"));
  EXPECT_THAT(f.Keys(), ElementsAre("b", "f", "f64", "i8", "is", "s", "ss", "u", "u64"));
  const GgufTensor* w = f.Find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_THAT(w->shape, ElementsAre(3, 64));
  EXPECT_EQ(w->data.size(), 3u * 2 * 34);
  EXPECT_EQ(f.parameters(), 192u);
  EXPECT_EQ(f.Find("v"), nullptr);
}

TEST(Gguf, WrongAccessNamesTheKeyAndBothKinds) {
  GgufBuilder b;
  b.String("s", "x").Scalar("i", GgufBuilder::kI32, int32_t{-5});
  std::vector<uint8_t> bytes = b.Build();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->GetUint("s").status().message(),
            "GGUF: metadata key 's' is a string, wanted an unsigned integer");
  EXPECT_EQ((*file)->GetUint("i").status().message(), "GGUF: metadata key 'i' is -5, wanted 0 or more");
  EXPECT_EQ((*file)->GetInts("q").status().message(), "GGUF: metadata key 'q' is missing");
}

TEST(Gguf, DigestFollowsTensorsAndNothingElse) {
  auto digest = [](const GgufBuilder& b) {
    std::vector<uint8_t> bytes = b.Build();
    return (*GgufFile::Parse(bytes))->WeightsDigest();
  };
  Digest plain = digest(OneTensor());
  EXPECT_EQ(digest(OneTensor().String("general.name", "other")), plain);
  GgufBuilder data = OneTensor(), name = OneTensor(), shape = OneTensor(), type = OneTensor();
  data.tensors()[0].data[5] = 1;
  name.tensors()[0].name = "u";
  shape.tensors()[0].shape = {8, 4};
  type.tensors()[0] = {.name = "t",
                       .type = 1,
                       .shape = {4, 8},
                       .data = std::vector<uint8_t>(64),
                       .offset = {},
                       .claimed_dimensions = {}};
  for (const GgufBuilder& other : {data, name, shape, type}) EXPECT_NE(digest(other), plain);
  GgufBuilder ab, ba;
  ab.Zeros("a", GgmlType::kF32, {1}).Zeros("b", GgmlType::kF32, {2});
  ba.Zeros("b", GgmlType::kF32, {2}).Zeros("a", GgmlType::kF32, {1});
  EXPECT_EQ(digest(ab), digest(ba));
}

TEST(Gguf, AlignmentIsHonoured) {
  GgufBuilder b = OneTensor().U32("general.alignment", 256);
  b.alignment = 256;
  std::vector<uint8_t> bytes = b.Build();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(((*file)->Find("t")->data.data() - bytes.data()) % 256, 0);
}

TEST(GgufLies, Header) {
  GgufBuilder b = OneTensor();
  b.magic = "GGML";
  ExpectRefused(b, "no magic");
  b = OneTensor();
  b.version = 1;
  ExpectRefused(b, "version 1");
  b.version = 4;
  ExpectRefused(b, "version 4");
  b.version = 0x03000000;
  ExpectRefused(b, "big-endian");
  EXPECT_EQ(GgufFile::Parse({}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GgufLies, Counts) {
  for (uint64_t claim : {uint64_t{2}, uint64_t{1000}, uint64_t{1} << 32, uint64_t{1} << 59, ~uint64_t{0}}) {
    GgufBuilder tensors = OneTensor(), pairs = OneTensor();
    tensors.claimed_tensors = claim;
    pairs.claimed_pairs = claim;
    EXPECT_EQ(ParseStatus(tensors).code(), absl::StatusCode::kInvalidArgument) << claim;
    EXPECT_EQ(ParseStatus(pairs).code(), absl::StatusCode::kInvalidArgument) << claim;
  }
  GgufBuilder huge = OneTensor();
  huge.claimed_tensors = uint64_t{1} << 60;
  ExpectRefused(huge, "tensor count 1152921504606846976");
}

TEST(GgufLies, Strings) {
  ExpectRefused(OneTensor().Raw("s", GgufBuilder::kString, Payload<uint64_t>({1 << 20})),
                "'s' claims 1048576 bytes");
  ExpectRefused(OneTensor().Raw("s", GgufBuilder::kString, Payload<uint64_t>({~uint64_t{0}})),
                "'s' claims 18446744073709551615 bytes");
  ExpectRefused(OneTensor().String("s", "ab\xFF"), "'s' is not UTF-8 from byte 2");
  ExpectRefused(OneTensor().String("s\xC0", "x"), "a metadata key is not UTF-8");
  ExpectRefused(OneTensor().String("", "x"), "a metadata key is empty");
}

TEST(GgufLies, Values) {
  ExpectRefused(OneTensor().Raw("k", 13, {0, 0, 0, 0}), "'k' has unknown value type 13");
  ExpectRefused(OneTensor().U32("k", 1).U32("k", 2), "'k' appears twice");
}

TEST(GgufLies, Arrays) {
  ExpectRefused(OneTensor().I32s("a", {1, 2}, uint64_t{1} << 62), "element of 'a' count 4611686018427387904");
  ExpectRefused(OneTensor().Strings("a", {"x"}, uint64_t{1} << 61), "element of 'a' count");
  ExpectRefused(OneTensor().Strings("a", {"x"}, 9), "of 'a' claims");
  ExpectRefused(OneTensor().Raw("a", GgufBuilder::kArray, ArrayHead(77, 1)),
                "array 'a' has unknown element type 77");
  std::vector<uint8_t> nested = ArrayHead(GgufBuilder::kArray, 1);
  for (uint8_t byte : ArrayHead(GgufBuilder::kU8, 0)) nested.push_back(byte);
  ExpectRefused(OneTensor().Raw("a", GgufBuilder::kArray, nested), "'a' is an array of arrays");
  std::vector<uint8_t> large = ArrayHead(GgufBuilder::kU64, 1);
  ByteWriter(&large).Put(~uint64_t{0});
  ExpectRefused(OneTensor().Raw("a", GgufBuilder::kArray, large), "18446744073709551615");
}

TEST(GgufLies, Alignment) {
  for (uint32_t bad : {0u, 1u, 4u, 24u, 33u, 0x80000000u, 0xFFFFFFFFu}) {
    ExpectRefused(OneTensor().U32("general.alignment", bad), "general.alignment is " + std::to_string(bad));
  }
  ExpectRefused(OneTensor().String("general.alignment", "32"),
                "general.alignment is not a 32-bit unsigned integer");
  GgufBuilder offset = OneTensor();
  offset.tensors()[0].offset = 8;
  ExpectRefused(offset, "offset 8, no multiple of 32");
}

TEST(GgufLies, TensorInfo) {
  GgufBuilder b = OneTensor();
  b.tensors()[0].name = "";
  ExpectRefused(b, "a tensor name is empty");
  for (uint32_t dimensions : {0u, 5u, 0xFFFFFFFFu}) {
    b = OneTensor();
    b.tensors()[0].claimed_dimensions = dimensions;
    ExpectRefused(b, "tensor 't' has " + std::to_string(dimensions) + " dimensions");
  }
  b = OneTensor();
  b.Zeros("t", GgmlType::kF32, {1});
  ExpectRefused(b, "tensor 't' appears twice");
  b = OneTensor();
  b.tensors()[0].type = 99;
  ExpectRefused(b, "unknown type 99");
  b.tensors()[0].type = 11;
  absl::Status status = ParseStatus(b);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor 't' has type Q3_K"));
}

TEST(GgufLies, Shapes) {
  auto with_shape = [](GgmlType type, std::vector<uint64_t> shape) {
    GgufBuilder b = OneTensor();
    b.tensors()[0].type = static_cast<uint32_t>(type);
    b.tensors()[0].shape = std::move(shape);
    return b;
  };
  ExpectRefused(with_shape(GgmlType::kF32, {4, 0}), "shape [4, 0], impossible");
  ExpectRefused(with_shape(GgmlType::kQ8_0, {4, 33}), "shape [4, 33], impossible for type Q8_0");
  ExpectRefused(with_shape(GgmlType::kF32, {uint64_t{1} << 32, uint64_t{1} << 32}), "impossible");
  ExpectRefused(with_shape(GgmlType::kF32, {uint64_t{1} << 62}), "impossible");
  ExpectRefused(with_shape(GgmlType::kQ6_K, {~uint64_t{0} / 256, 256}), "impossible");
  ExpectRefused(with_shape(GgmlType::kF32, {5, 8}), "claims 160 bytes at data offset 0");
}

TEST(GgufLies, Offsets) {
  for (uint64_t offset : {uint64_t{32}, uint64_t{1} << 40, ~uint64_t{31}}) {
    GgufBuilder b = OneTensor();
    b.tensors()[0].offset = offset;
    ExpectRefused(b, "claims 128 bytes at data offset " + std::to_string(offset));
  }
  GgufBuilder overlap = OneTensor();
  overlap.Zeros("u", GgmlType::kF32, {32});
  overlap.tensors()[1].offset = 96;
  ExpectRefused(overlap, "tensors 't' and 'u' overlap");
  GgufBuilder cut = OneTensor();
  cut.missing_data = 1;
  ExpectRefused(cut, "the file has 127 bytes of data");
}

TEST(GgufFileSystem, FailuresNameThePath) {
  EXPECT_EQ(GgufFile::Open("/no/such/model.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(GgufFile::Open("/no/such/model.gguf").status().message()),
              HasSubstr("/no/such/model.gguf"));
  std::string folder = std::filesystem::temp_directory_path();
  EXPECT_EQ(GgufFile::Open(folder).status().code(), absl::StatusCode::kInvalidArgument);
  std::string path = folder + "/quire_gguf_test_" + std::to_string(getpid());
  { std::ofstream empty(path); }
  EXPECT_THAT(std::string(GgufFile::Open(path).status().message()), HasSubstr("is empty"));
  {
    std::ofstream out(path, std::ios::binary);
    std::vector<uint8_t> bytes = OneTensor().Build();
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  auto file = GgufFile::Open(path);
  std::filesystem::remove(path);  // the mapping outlives the name
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Find("t")->data.size(), 128u);
}

TEST(GgufRealModel, OpensAndIsWhole) {
  const char* path = std::getenv("QUIRE_MODEL");
  ASSERT_NE(path, nullptr) << "ctest sets QUIRE_MODEL";
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 272u);
  EXPECT_EQ((*file)->parameters(), 134515008u);
  EXPECT_EQ((*file)->GetStrings("tokenizer.ggml.tokens")->size(), 49152u);
  EXPECT_EQ((*file)->WeightsDigest(), (*GgufFile::Open(path))->WeightsDigest());
}

}  // namespace
}  // namespace quire
