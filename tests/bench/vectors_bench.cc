#include "tests/bench/vectors_bench.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/codec/head_codec.h"
#include "tests/bench/coded_blocks.h"

namespace quire::bench {
namespace {

constexpr uint32_t kHeads = 8;

absl::StatusOr<Tensor> ReadValues(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  Tensor values(static_cast<size_t>(file.tellg()) / sizeof(uint16_t));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
  if (!file) return absl::DataLossError(absl::StrCat(path, ": can't be read"));
  return values;
}

}  // namespace

absl::Status RunVectorsBench(const VectorsBench& bench, Report& report) {
  QUIRE_ASSIGN_OR_RETURN(Tensor values, ReadValues(bench.file));
  for (const std::string& spec : bench.specs) {
    QUIRE_ASSIGN_OR_RETURN(CodedBlocks work, CodedBlocks::Create({1, kHeads, bench.dim}, spec, values));
    std::vector<double> seconds =
        BestSeconds(Clock::kWall, {[&] { work.Copy(bench.threads); }, [&] { work.Encode(bench.threads); },
                                   [&] { work.Decode(bench.threads); }});
    QUIRE_RETURN_IF_ERROR(work.failure());
    std::string context = absl::StrCat(CodecTargetName(), ", d=", bench.dim, ", ", bench.threads,
                                       " threads, ", work.gigabytes(), " GB raw");
    const double copy = work.gigabytes() / seconds[0];
    report.Add({spec + "/encode", work.gigabytes() / seconds[1], "GB/s raw", "memcpy", copy, {}, context});
    report.Add({spec + "/decode", work.gigabytes() / seconds[2], "GB/s raw", "memcpy", copy, {}, context});
    report.Add({spec + "/bits", 16 / work.compression(), "bits", "bf16", 16, {}, context});
    report.Add({spec + "/error-k", work.RelativeError(0), "of energy", "nothing kept", 1, {}, context});
    report.Add({spec + "/error-v", work.RelativeError(1), "of energy", "nothing kept", 1, {}, context});
  }
  return absl::OkStatus();
}

}  // namespace quire::bench
