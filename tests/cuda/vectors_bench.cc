#include "tests/cuda/vectors_bench.h"

#include <fstream>
#include <vector>

#include "core/base/float16.h"
#include "cuda/block_batch.h"
#include "cuda/memory.h"
#include "tests/cuda/measure.h"

namespace quire::cuda {
namespace {

constexpr uint32_t kHeads = 8;

std::vector<uint16_t> ReadValues(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) Fail(path + ": can't be read");
  std::vector<uint16_t> values(static_cast<size_t>(file.tellg()) / sizeof(uint16_t));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
  if (!file) Fail(path + ": can't be read");
  return values;
}

// One layer's K and V of a block that begins at `base`.
template <typename View>
std::vector<View> Views(uint8_t* base, uint32_t dim) {
  View view;
  view.key = {base, DType::kBf16, static_cast<ptrdiff_t>(kHeads * dim), static_cast<ptrdiff_t>(dim)};
  view.value = view.key;
  view.value.data = base + size_t{kBlockTokens} * kHeads * dim * sizeof(uint16_t);
  return {view};
}

double RelativeError(const std::vector<uint16_t>& raw, const std::vector<uint16_t>& out,
                     size_t stream_elements, size_t stream) {
  double energy = 0, error = 0;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (i / stream_elements % 2 != stream) continue;
    double x = FromBf16(raw[i]), miss = x - FromBf16(out[i]);
    energy += x * x;
    error += miss * miss;
  }
  return error / energy;
}

}  // namespace

void BenchVectors(const Stream& stream, int repeats, const std::string& file, uint32_t dim,
                  const std::string& spec) {
  std::vector<uint16_t> values = ReadValues(file);
  const size_t stream_elements = size_t{kBlockTokens} * kHeads * dim, block_bytes = 2 * stream_elements * 2;
  const size_t bytes = values.size() * sizeof(uint16_t);
  const uint32_t blocks = static_cast<uint32_t>(bytes / block_bytes);
  if (blocks == 0 || bytes % block_bytes != 0)
    Fail(file + ": not whole blocks of " + std::to_string(block_bytes) + " bytes");
  Layout layout = Layout::Uniform(Digest(), 1, kHeads, dim);
  BlockShape shape = Check(BlockShape::Create(layout, Part::Whole(layout), Check(CodecSpec::Parse(spec))));
  std::shared_ptr<const TqCodec> codec =
      Check(TqCodec::Create(layout.rotation_seed, shape.dims(), shape.projected_dims()));
  const int levels = shape.map(false).levels();
  const size_t object_bytes = shape.map(false).ObjectBytes(levels), pitch = (object_bytes + 255) / 256 * 256;
  DeviceBuffer raw = Check(DeviceBuffer::Allocate(bytes)), out = Check(DeviceBuffer::Allocate(bytes));
  DeviceBuffer coded = Check(DeviceBuffer::Allocate(blocks * pitch));
  Check(CopyToDevice(stream.ref(), values.data(), bytes, raw.data()));
  BlockTasks encode_tasks, decode_tasks;
  for (uint32_t b = 0; b < blocks; ++b) {
    uint8_t* object = coded.data() + b * pitch;
    Check(encode_tasks.AddEncode(shape, false, Views<LayerView>(raw.data() + b * block_bytes, dim), object));
    Check(decode_tasks.AddDecode(shape, false, levels, object,
                                 Views<MutableLayerView>(out.data() + b * block_bytes, dim)));
  }
  const TqBatch::Limits limits{static_cast<uint32_t>(encode_tasks.tasks.size()),
                               static_cast<uint32_t>(encode_tasks.tasks.size()) * kHeads, 0};
  TqBatch encode = Check(TqBatch::Create(codec, TqBatch::Direction::kEncode, limits));
  TqBatch decode = Check(TqBatch::Create(codec, TqBatch::Direction::kDecode, limits));
  Check(encode.Set(encode_tasks.tasks, {}, CodecSpec()));
  Check(decode.Set(decode_tasks.tasks, {}, CodecSpec()));
  Check(encode.Upload(stream.ref()));
  Check(decode.Upload(stream.ref()));
  const double copy_ms = Milliseconds(
      stream, repeats, [&](int) { Check(CopyOnDevice(stream.ref(), raw.data(), bytes, out.data())); });
  const double encode_ms = Milliseconds(stream, repeats, [&](int) { Check(encode.Launch(stream.ref())); });
  const double decode_ms = Milliseconds(stream, repeats, [&](int) { Check(decode.Launch(stream.ref())); });
  std::vector<uint16_t> decoded(values.size());
  Check(CopyToHost(stream.ref(), out.data(), bytes, decoded.data()));
  Check(stream.Synchronize());
  const double gigabytes = static_cast<double>(bytes) * 1e-9, copy = gigabytes / copy_ms * 1e3;
  const std::string context = "d=" + std::to_string(dim) + ", " + std::to_string(bytes >> 20) + " MiB raw";
  auto rate = [&](const char* what, double ms) {
    const double value = gigabytes / ms * 1e3;
    Print({spec + what, "GB/s raw", "device copy", context, value, copy, value / copy, 0});
  };
  rate("/encode", encode_ms);
  rate("/decode", decode_ms);
  const double bits = 16.0 * static_cast<double>(object_bytes) / static_cast<double>(block_bytes);
  Print({spec + "/bits", "bits", "bf16", context, bits, 16, bits / 16, 0});
  for (size_t s : {0, 1}) {
    const double error = RelativeError(values, decoded, stream_elements, s);
    Print({spec + (s == 0 ? "/error-k" : "/error-v"), "of energy", "nothing kept", context, error, 1, error,
           0});
  }
}

}  // namespace quire::cuda
