#include "tests/bench/codec_bench.h"

#include <algorithm>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/codec/head_codec.h"
#include "tests/bench/coded_blocks.h"
#include "tests/core/codec/scalar_reference.h"

namespace quire::bench {
namespace {

constexpr size_t kRawBytes = 64 << 20;  // beyond the caches, so that memcpy runs at memory speed
// What the issue asks of one core, 4 bits, d = 64 and 128.
std::optional<double> Goal(const Shape& shape, const std::string& spec, bool encode) {
  if (spec != "tq:k4v4" || (shape.dim != 64 && shape.dim != 128)) return std::nullopt;
  bool wide = std::string_view(CodecTargetName()).starts_with("AVX3");
  return encode ? (wide ? 0.25 : 0.12) : (wide ? 0.5 : 0.25);
}

void AddThroughput(Report& report, const std::string& name, const CodedBlocks& work, const double* seconds,
                   const std::string& baseline, const Shape& shape, const std::string& spec, bool goals) {
  std::string context = absl::StrCat(CodecTargetName(), ", ", work.gigabytes(), " GB raw, objects ",
                                     work.compression(), " times smaller, best of ", kRounds);
  for (int which : {1, 2}) {
    report.Add({absl::StrCat(which == 1 ? "encode/" : "decode/", name), work.gigabytes() / seconds[which],
                "GB/s raw", baseline, work.gigabytes() / seconds[0],
                goals ? Goal(shape, spec, which == 1) : std::nullopt, context});
  }
}

// A long prefix on one core beside memcpy.
absl::Status OneCore(Report& report, const Shape& shape, const std::string& spec) {
  size_t blocks = std::max<size_t>(1, kRawBytes / (shape.block_elements() * sizeof(uint16_t)));
  QUIRE_ASSIGN_OR_RETURN(CodedBlocks work, CodedBlocks::Create(shape, spec, RawBlocks(shape, blocks)));
  std::vector<double> seconds = BestSeconds(
      Clock::kProcessor, {[&] { work.Copy(1); }, [&] { work.Encode(1); }, [&] { work.Decode(1); }});
  QUIRE_RETURN_IF_ERROR(work.failure());
  AddThroughput(report, absl::StrCat(spec, "/d", shape.dim), work, seconds.data(), "memcpy", shape, spec,
                true);
  return absl::OkStatus();
}

// The same on several, and what they gain over one beside what memcpy gains.
absl::Status Cores(Report& report, const Shape& shape, const std::string& spec) {
  size_t blocks = std::max<size_t>(1, kRawBytes / (shape.block_elements() * sizeof(uint16_t)));
  QUIRE_ASSIGN_OR_RETURN(CodedBlocks work, CodedBlocks::Create(shape, spec, RawBlocks(shape, blocks)));
  size_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<size_t> counts = {1};
  if (cores > 1) counts.push_back(2);
  if (cores > 2) counts.push_back(cores);
  std::vector<std::function<void()>> works;
  for (size_t threads : counts) {
    works.push_back([&work, threads] { work.Copy(threads); });
    works.push_back([&work, threads] { work.Encode(threads); });
    works.push_back([&work, threads] { work.Decode(threads); });
  }
  std::vector<double> seconds = BestSeconds(Clock::kWall, works);
  QUIRE_RETURN_IF_ERROR(work.failure());
  for (size_t i = 1; i < counts.size(); ++i) {
    const double *one = &seconds[0], *now = &seconds[3 * i];
    std::string name = absl::StrCat(spec, "/d", shape.dim, "/", counts[i], "-cores");
    AddThroughput(report, name, work, now, absl::StrCat("memcpy, ", counts[i], " cores"), shape, spec, false);
    for (int which : {1, 2}) {
      report.Add({absl::StrCat(which == 1 ? "encode/" : "decode/", name, "/gain"), one[which] / now[which],
                  "times 1", "memcpy's gain", one[0] / now[0],
                  counts[i] == 2 ? std::optional(0.9) : std::nullopt,
                  absl::StrCat(CodecTargetName(), ", wall time, best of ", kRounds)});
    }
  }
  return absl::OkStatus();
}

// One 64-token block of a whole model.
absl::Status Latency(Report& report, const char* model, const Shape& shape) {
  QUIRE_ASSIGN_OR_RETURN(CodedBlocks work, CodedBlocks::Create(shape, "tq:k4v4", RawBlocks(shape, 1)));
  std::vector<double> seconds = BestSeconds(
      Clock::kProcessor, {[&] { work.Copy(1); }, [&] { work.Encode(1); }, [&] { work.Decode(1); }}, 41);
  QUIRE_RETURN_IF_ERROR(work.failure());
  std::string context = absl::StrCat(CodecTargetName(), ", ", shape.layers, " layers, ", shape.heads,
                                     " heads, d=", shape.dim, ", tq:k4v4, one core, best of 41");
  for (int which : {1, 2}) {
    report.Add({absl::StrCat(which == 1 ? "encode" : "decode", "-block/", model), seconds[which] * 1e6, "us",
                "memcpy", seconds[0] * 1e6, std::nullopt, context});
  }
  return absl::OkStatus();
}

// The kernels beside the same codec written down plainly, head by head.
void AgainstScalar(Report& report, uint32_t dim) {
  const Codebook& book = Codebook::Get(dim, 4);
  Rotation rotation(dim, 1);
  reference::Rotation plain(dim, 1);
  Tensor raw = RawBlocks({1, 1, dim}, 1), out(raw.size());
  std::vector<uint8_t> bytes(3 * PlaneBytes(dim, 2));
  PlanePointers planes{};
  ConstPlanePointers const_planes{};
  for (size_t p = 0; p < 3; ++p) const_planes[p] = planes[p] = bytes.data() + p * PlaneBytes(dim, 2);
  HeadRows rows{raw.data(), DType::kBf16, dim};
  MutableHeadRows room{out.data(), DType::kBf16, dim};
  TqKey key;
  float scales[kTqTokens], mean[kMaxCodecDim];
  EncodeKeyHead(rotation, book, 0, 0, rows, &key, planes);
  TqKeyScales(book, 3, key, scales);
  TqKeyMean(dim, key, mean);
  std::vector<double> seconds = BestSeconds(
      Clock::kProcessor,
      {[&] { EncodeKeyHead(rotation, book, 0, 0, rows, &key, planes); },
       [&] { reference::EncodeKeyHead(plain, book, 0, 0, rows, &key, planes); },
       [&] { DecodeHead(&rotation, book, 4, FragmentOrder::kKey, const_planes, scales, mean, 0, room); },
       [&] {
         reference::DecodeHead(&plain, book, 4, FragmentOrder::kKey, const_planes, scales, mean, 0, room);
       }},
      101);
  double megabytes = kTqTokens * dim * sizeof(uint16_t) * 1e-6;
  for (int which : {0, 2}) {
    report.Add({absl::StrCat(which == 0 ? "encode" : "decode", "-head/k4/d", dim), megabytes / seconds[which],
                "MB/s raw", "scalar", megabytes / seconds[which + 1], 20,
                absl::StrCat(CodecTargetName(), ", one head of K, not vectorised beside it, best of 101")});
  }
}

// What it takes to steer a key's errors: the same head with and without.
absl::Status SteeredKeys(Report& report, uint32_t dim) {
  const Codebook& book = Codebook::Get(dim, 4);
  const Rotation rotation(dim, 1);
  std::vector<double> moments(size_t{dim} * dim);  // of queries that favour some channels
  for (uint32_t c = 0; c < dim; ++c) moments[c * dim + c] = 1.0 / (1 + c);
  QUIRE_ASSIGN_OR_RETURN(QueryShape shape, QueryShape::Create(rotation, moments));
  Tensor raw = RawBlocks({1, 1, dim}, 1);
  const HeadRows rows{raw.data(), DType::kBf16, dim};
  std::vector<uint8_t> bytes(3 * PlaneBytes(dim, 2));
  PlanePointers planes{};
  for (size_t p = 0; p < 3; ++p) planes[p] = bytes.data() + p * PlaneBytes(dim, 2);
  TqKey key;
  std::vector<double> seconds =
      BestSeconds(Clock::kProcessor,
                  {[&] { EncodeKeyHead(rotation, book, 0, 0, rows, &key, planes, nullptr, &shape); },
                   [&] { EncodeKeyHead(rotation, book, 0, 0, rows, &key, planes); }},
                  101);
  report.Add({absl::StrCat("encode-steered/k4/d", dim), seconds[0] / kTqTokens * 1e9, "ns", "not steered",
              seconds[1] / kTqTokens * 1e9, std::nullopt,
              absl::StrCat(CodecTargetName(), ", a key, the best of 101 heads")});
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCodecBench(Report& report) {
  for (uint32_t dim : {64u, 80u, 96u, 128u, 192u, 256u}) {
    for (const char* spec : {"tq:k2v2", "tq:k3v3", "tq:k4v4", "tq:k6v6", "tq:k8v8"}) {
      QUIRE_RETURN_IF_ERROR(OneCore(report, {8, 4, dim}, spec));
    }
  }
  QUIRE_RETURN_IF_ERROR(OneCore(report, {8, 4, 128}, "raw"));
  for (uint32_t dim : {64u, 128u}) QUIRE_RETURN_IF_ERROR(Cores(report, {8, 4, dim}, "tq:k4v4"));
  QUIRE_RETURN_IF_ERROR(Latency(report, "smollm2-135m", {30, 3, 64}));
  QUIRE_RETURN_IF_ERROR(Latency(report, "llama-8b", {32, 8, 128}));
  for (uint32_t dim : {64u, 128u}) AgainstScalar(report, dim);
  for (uint32_t dim : {64u, 128u, 256u}) QUIRE_RETURN_IF_ERROR(SteeredKeys(report, dim));
  return absl::OkStatus();
}

}  // namespace quire::bench
