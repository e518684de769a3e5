// The CUDA kernels beside what the device can do, as JSON lines (DESIGN.md, "What counts as measured").
//
//   quire-cuda-bench [codec|flat|latency|transfer]… [--dims=64,128,256] [--quick]
//   quire-cuda-bench --vectors=FILE --dims=128 [--codecs=tq:k4v4,…]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <set>
#include <sstream>

#include "cuda/block_batch.h"
#include "cuda/memory.h"
#include "cuda/transfer.h"
#include "tests/cuda/measure.h"
#include "tests/cuda/plain.h"
#include "tests/cuda/vectors_bench.h"

namespace quire::cuda {
namespace {

struct Options {
  std::set<std::string> parts;
  std::vector<uint32_t> dims{128, 64, 256};
  int repeats = 15;
  std::string vectors;
  std::vector<std::string> codecs{"tq:k4v4"};
};

// A prefix of many blocks of one model on the device: raw tensors, objects, and batches over them.
class Prefix {
 public:
  static constexpr uint32_t kLayers = 32, kHeads = 8;

  Prefix(const Stream& stream, uint32_t dim, const std::string& spec, uint32_t blocks)
      : dim_(dim), blocks_(blocks) {
    Layout layout = Layout::Uniform(Digest(), kLayers, kHeads, dim);
    layout.rotation_seed = 1;
    shape_ = Check(BlockShape::Create(layout, Part::Whole(layout), Check(CodecSpec::Parse(spec))));
    codec_ = Check(TqCodec::Create(1, shape_.dims(), shape_.projected_dims()));
    object_bytes_ = shape_.map(false).ObjectBytes(shape_.map(false).levels());
    object_pitch_ = (object_bytes_ + 255) / 256 * 256;
    raw_ = Check(DeviceBuffer::Allocate(raw_bytes()));
    coded_ = Check(DeviceBuffer::Allocate(blocks * object_pitch_));
    for (uint32_t i = 0; i < blocks * kLayers * 2; ++i)
      Check(RandomBf16(stream.ref(), Tensor(i), TensorElements(), dim, i % 2 == 0));
  }

  size_t TensorElements() const { return size_t{kBlockTokens} * kHeads * dim_; }
  uint8_t* Tensor(uint32_t i) const { return raw_.data() + i * TensorElements() * 2; }
  size_t raw_bytes() const { return size_t{blocks_} * kLayers * 2 * TensorElements() * 2; }
  size_t object_bytes() const { return object_bytes_; }
  size_t object_pitch() const { return object_pitch_; }
  const DeviceBuffer& raw() const { return raw_; }
  const DeviceBuffer& coded() const { return coded_; }
  const BlockShape& shape() const { return shape_; }
  std::shared_ptr<const TqCodec> codec() const { return codec_; }
  uint32_t blocks() const { return blocks_; }

  std::vector<MutableLayerView> Views(uint32_t block) const {
    std::vector<MutableLayerView> views(kLayers);
    for (uint32_t l = 0; l < kLayers; ++l) {
      for (int s = 0; s < 2; ++s) {
        (s == 0 ? views[l].key : views[l].value) = {Tensor((block * kLayers + l) * 2 + s), DType::kBf16,
                                                    static_cast<ptrdiff_t>(kHeads * dim_), dim_};
      }
    }
    return views;
  }

  // Tasks of blocks [first, first + count), `kind` 0 or 1 alone, or both (2).
  TqBatch Batch(TqBatch::Direction direction, uint32_t first, uint32_t count, int levels, int kind,
                const uint8_t* objects = nullptr) const {
    BlockTasks tasks;
    for (uint32_t b = first; b < first + count; ++b) {
      std::vector<MutableLayerView> views = Views(b);
      uint8_t* object =
          (objects != nullptr ? const_cast<uint8_t*>(objects) : coded_.data()) + b * object_pitch_;
      if (direction == TqBatch::Direction::kDecode) {
        Check(tasks.AddDecode(shape_, false, levels, object, views));
      } else {
        std::vector<LayerView> read;
        for (const auto& v : views) {
          read.push_back({{v.key.data, v.key.dtype, v.key.token_stride, v.key.head_stride},
                          {v.value.data, v.value.dtype, v.value.token_stride, v.value.head_stride}});
        }
        Check(tasks.AddEncode(shape_, false, read, object));
      }
    }
    if (kind < 2) std::erase_if(tasks.tasks, [&](const ShapedTask& t) { return t.task.kind != kind; });
    TqBatch batch = Check(TqBatch::Create(
        codec_, direction,
        {static_cast<uint32_t>(tasks.tasks.size()), static_cast<uint32_t>(tasks.tasks.size()) * kHeads, 0}));
    Check(batch.Set(tasks.tasks, {}, CodecSpec()));
    return batch;
  }

  // Coded bytes of one head of K or V, `kept` bits.
  size_t HeadBytes(int kind, int levels) const {
    size_t bytes = 0;
    const LayerCodec& codec = shape_.codecs()[0];
    for (int level = 0; level < levels; ++level) {
      TqSlice parts = TqSlice::At(level, dim_, codec.k_bits, dim_, codec.v_bits);
      bytes += kind == 0 ? parts.k_mean.length + parts.scalars.length + parts.k_scales.length +
                               parts.k_planes.length
                         : parts.v_scales.length + parts.v_planes.length;
    }
    return bytes;
  }

 private:
  uint32_t dim_, blocks_;
  size_t object_bytes_ = 0, object_pitch_ = 0;
  BlockShape shape_;
  std::shared_ptr<const TqCodec> codec_;
  DeviceBuffer raw_, coded_;
};

double PlainMilliseconds(const Stream& stream, const Prefix& prefix, int repeats, size_t coded, bool encode,
                         size_t heads) {
  size_t raw = prefix.TensorElements() * 2 / Prefix::kHeads;
  double best = 1e9;
  for (int variant = 0; variant < kPlainVariants; ++variant) {
    best = std::min(best, Milliseconds(stream, repeats, [&](int) {
                      Check(encode ? PlainMove(stream.ref(), variant, prefix.raw().data(), raw,
                                               prefix.coded().data(), coded, heads)
                                   : PlainMove(stream.ref(), variant, prefix.coded().data(), coded,
                                               prefix.raw().data(), raw, heads));
                    }));
  }
  return best;
}

void BenchCodec(const Stream& stream, const Options& options, uint32_t dim) {
  uint32_t blocks = 256 * 128 / dim;  // 1 GiB each of K and V
  Prefix prefix(stream, dim, "tq:k4v4", blocks);
  size_t half = prefix.raw_bytes() / 2;
  double copy_ms = Milliseconds(stream, options.repeats, [&](int) {
    Check(CopyOnDevice(stream.ref(), prefix.raw().data(), half, prefix.raw().data() + half));
  });
  double copy = 2.0 * half / copy_ms * 1e-6;  // GB/s
  Check(RandomBf16(stream.ref(), prefix.raw().data() + half, half / 2, dim, true));
  std::string d = "d=" + std::to_string(dim);
  Print(
      {"gpu.copy", "GB/s", "", d + ", read+write, " + std::to_string(half >> 20) + " MiB", copy, copy, 1, 0});
  size_t heads = size_t{blocks} * Prefix::kLayers * Prefix::kHeads;
  double raw = static_cast<double>(half);
  for (int kind : {0, 1}) {
    std::string name = kind == 0 ? "K" : "V";
    double coded = static_cast<double>(heads) * prefix.HeadBytes(kind, 3);
    TqBatch batch = prefix.Batch(TqBatch::Direction::kEncode, 0, blocks, 3, kind);
    Check(batch.Upload(stream.ref()));
    double ms = Milliseconds(stream, options.repeats, [&](int) { Check(batch.Launch(stream.ref())); });
    double plain = PlainMilliseconds(stream, prefix, options.repeats, prefix.HeadBytes(kind, 3), true, heads);
    double rate = (raw + coded) / ms * 1e-6;
    Print({"gpu.encode." + name + "4", "GB/s raw", "device copy",
           d + ", share of the roofline; plain kernel " + std::to_string((raw + coded) / plain * 1e-6 / copy),
           raw / ms * 1e-6, copy, rate / copy, kind == 0 ? 0.75 : 0.84});
    for (int levels = 3; levels >= 1; --levels) {
      // The plain kernel overwrites the codes: encode again.
      Check(batch.Launch(stream.ref()));
      TqBatch decode = prefix.Batch(TqBatch::Direction::kDecode, 0, blocks, levels, kind);
      Check(decode.Upload(stream.ref()));
      double dms = Milliseconds(stream, options.repeats, [&](int) { Check(decode.Launch(stream.ref())); });
      double dplain =
          PlainMilliseconds(stream, prefix, options.repeats, prefix.HeadBytes(kind, levels), false, heads);
      double bytes = raw + static_cast<double>(heads) * prefix.HeadBytes(kind, levels);
      Print({"gpu.decode." + name + std::to_string(levels + 1), "GB/s raw", "plain kernel",
             d + ", of copy " + std::to_string(bytes / dms * 1e-6 / copy), raw / dms * 1e-6,
             raw / dplain * 1e-6, dplain / dms, 0.97});
    }
  }
}

// fp8 and tq_prod, K and V together: the share of the copy's rate that their bytes go at.
void BenchFlat(const Stream& stream, const Options& options, uint32_t dim, const std::string& spec) {
  Prefix prefix(stream, dim, spec, 128 * 128 / dim);
  size_t half = prefix.raw_bytes() / 2;
  double copy_ms = Milliseconds(stream, options.repeats, [&](int) {
    Check(CopyOnDevice(stream.ref(), prefix.raw().data(), half, prefix.raw().data() + half));
  });
  double copy = 2.0 * half / copy_ms * 1e-6;  // GB/s
  double raw = static_cast<double>(prefix.raw_bytes()),
         coded = static_cast<double>(prefix.blocks()) * Prefix::kLayers * Prefix::kHeads *
                 FlatSlice::At(prefix.shape().codecs()[0], dim, dim).bytes;
  for (auto direction : {TqBatch::Direction::kEncode, TqBatch::Direction::kDecode}) {
    TqBatch batch = prefix.Batch(direction, 0, prefix.blocks(), 1, 2);
    Check(batch.Upload(stream.ref()));
    double ms = Milliseconds(stream, options.repeats, [&](int) { Check(batch.Launch(stream.ref())); });
    Print({(direction == TqBatch::Direction::kEncode ? "gpu.encode." : "gpu.decode.") + spec, "GB/s raw",
           "device copy", "d=" + std::to_string(dim) + ", share of the roofline", raw / ms * 1e-6, copy,
           (raw + coded) / ms * 1e-6 / copy, 0});
  }
}

void BenchLatency(const Stream& stream, const Options& options) {
  constexpr uint32_t kBlocks = 24;
  Prefix prefix(stream, 128, "tq:k4v4", kBlocks);
  for (auto direction : {TqBatch::Direction::kEncode, TqBatch::Direction::kDecode}) {
    bool encode = direction == TqBatch::Direction::kEncode;
    std::vector<TqBatch> batches;
    for (uint32_t b = 0; b < kBlocks; ++b) {
      batches.push_back(prefix.Batch(direction, b, 1, 3, 2));
      Check(batches.back().Upload(stream.ref()));
    }
    double one = Milliseconds(stream, 48, [&](int i) { Check(batches[i % kBlocks].Launch(stream.ref())); });
    double many = Milliseconds(stream, options.repeats,
                               [&](int) {
                                 for (const TqBatch& batch : batches) Check(batch.Launch(stream.ref()));
                               }) /
                  kBlocks;
    double run = Milliseconds(stream, 48, [&](int i) { Check(batches[i % kBlocks].Run(stream.ref())); });
    double copy = Milliseconds(stream, 48, [&](int i) {
      Check(CopyOnDevice(stream.ref(), prefix.Tensor(i % kBlocks * 64), prefix.raw_bytes() / kBlocks,
                         prefix.Tensor((i + 7) % kBlocks * 64)));
    });
    std::vector<double> walls;
    for (int i = 0; i < 48; ++i) {
      auto begin = std::chrono::steady_clock::now();
      Check(batches[i % kBlocks].Run(stream.ref()));
      Check(stream.Synchronize());
      walls.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    }
    std::sort(walls.begin(), walls.end());
    Print({encode ? "gpu.encode.block" : "gpu.decode.block", "us", "20 us",
           "one block of 32 layers, 8 heads, d=128, K and V, by events; in a row " +
               std::to_string(many * 1e3) + "; with reports " + std::to_string(run * 1e3) + "; host wall " +
               std::to_string(walls[24]) + "; device copy of the same raw bytes " +
               std::to_string(copy * 1e3),
           one * 1e3, 20, one * 1e3 / 20, 1});
  }
}

double WallMilliseconds(int repeats, const std::function<void()>& work) {
  std::vector<double> times;
  for (int i = 0; i < repeats + 1; ++i) {
    auto begin = std::chrono::steady_clock::now();
    work();
    if (i > 0)
      times.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Restore and offload of 1 GiB of raw KV through pinned memory, beside a plain pinned copy.
void BenchTransfer(const Stream& stream, const Options& options) {
  constexpr uint32_t kBlocks = 128;
  Prefix prefix(stream, 128, "tq:k4v4", kBlocks);
  int repeats = std::max(options.repeats / 3, 3);
  PinnedBuffer host = Check(PinnedBuffer::Allocate(kBlocks * prefix.object_pitch()));
  double wire = static_cast<double>(host.bytes()), raw = static_cast<double>(prefix.raw_bytes());
  double up = WallMilliseconds(repeats, [&] {
    Check(CopyToDevice(stream.ref(), host.data(), host.bytes(), prefix.coded().data()));
    Check(stream.Synchronize());
  });
  double down = WallMilliseconds(repeats, [&] {
    Check(CopyToHost(stream.ref(), prefix.coded().data(), host.bytes(), host.data()));
    Check(stream.Synchronize());
  });
  double h2d = wire / up * 1e-6, d2h = wire / down * 1e-6;
  std::vector<std::vector<MutableLayerView>> views;
  std::vector<std::vector<LayerView>> read;
  for (uint32_t b = 0; b < kBlocks; ++b) {
    views.push_back(prefix.Views(b));
    read.emplace_back();
    for (const auto& v : views[b]) {
      read[b].push_back({{v.key.data, v.key.dtype, v.key.token_stride, v.key.head_stride},
                         {v.value.data, v.value.dtype, v.value.token_stride, v.value.head_stride}});
    }
  }
  auto object = [&](uint32_t b) { return host.data() + size_t{b} * prefix.object_pitch(); };
  auto scattered = [](uint32_t b) { return b * 47 % kBlocks; };
  auto report = [&](const std::string& name, double ms, double pinned, double goal,
                    const std::string& context) {
    Print({"gpu." + name, "GB/s raw", "pinned copy", context, raw / ms * 1e-6, pinned,
           raw / ms * 1e-6 / pinned, goal});
  };
  for (size_t chunk : {size_t{16} << 20, size_t{4} << 20}) {
    Transfer transfer =
        Check(Transfer::Create(prefix.codec(), prefix.shape(), {chunk, 64, 3, {host.data(), host.bytes()}}));
    std::string sizes = "chunks of " + std::to_string(chunk >> 20) + " MiB, " +
                        std::to_string(transfer.device_bytes()) + " bytes of device memory, " +
                        std::to_string(transfer.pinned_bytes()) + " pinned";
    for (auto path : {Transfer::Path::kCopy, Transfer::Path::kZeroCopy}) {
      bool zero = path == Transfer::Path::kZeroCopy;
      if (zero && chunk < (size_t{16} << 20)) continue;
      std::string how = zero ? "zero-copy, scattered 64-token blocks" : sizes;
      std::vector<Transfer::OffloadItem> out;
      for (uint32_t b = 0; b < kBlocks; ++b) out.push_back({object(zero ? scattered(b) : b), false, read[b]});
      double ms = WallMilliseconds(repeats, [&] {
        Check(transfer.Offload(out, path, stream.ref(),
                               [](size_t, const TqBatch&, size_t) { return absl::OkStatus(); }));
      });
      report("offload.4", ms, d2h, zero ? 3.3 : 3.5, how);
      for (int levels = 3; levels >= 1; --levels) {
        for (bool mixed : {false, true}) {
          if (zero != mixed && (zero || chunk < (size_t{16} << 20))) continue;
          std::vector<Transfer::RestoreItem> in;
          for (uint32_t b = 0; b < kBlocks; ++b)
            in.push_back({object(mixed ? scattered(b) : b), false, levels, views[b]});
          double restore = WallMilliseconds(repeats, [&] {
            Check(transfer.Restore(in, path, stream.ref()));
            Check(stream.Synchronize());
          });
          static constexpr double kGoals[] = {6.8, 4.7, 3.6};
          report("restore." + std::to_string(levels + 1), restore, h2d,
                 mixed ? (levels == 3 ? 3.3 : 0) : kGoals[levels - 1],
                 how + (mixed && !zero ? ", scattered blocks gathered" : ""));
        }
      }
    }
  }
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg.starts_with("--dims=")) {
      options.dims.clear();
      std::stringstream list(arg.substr(7));
      for (std::string item; std::getline(list, item, ',');)
        options.dims.push_back(static_cast<uint32_t>(std::stoul(item)));
    } else if (arg.starts_with("--vectors=")) {
      options.vectors = arg.substr(10);
    } else if (arg.starts_with("--codecs=")) {
      options.codecs.clear();
      std::stringstream list(arg.substr(9));
      for (std::string item; std::getline(list, item, ',');) options.codecs.push_back(item);
    } else if (arg == "--quick") {
      options.repeats = 7;
    } else {
      options.parts.insert(arg);
    }
  }
  auto wanted = [&](const char* part) { return options.parts.empty() || options.parts.contains(part); };
  Stream stream = Check(Stream::Create());
  if (!options.vectors.empty()) {
    for (const std::string& spec : options.codecs)
      BenchVectors(stream, options.repeats, options.vectors, options.dims.front(), spec);
    return 0;
  }
  if (wanted("codec")) {
    for (uint32_t dim : options.dims) BenchCodec(stream, options, dim);
  }
  if (wanted("flat")) {
    for (uint32_t dim : options.dims) {
      for (const char* spec : {"fp8", "tq_prod:k4v4"}) BenchFlat(stream, options, dim, spec);
    }
  }
  if (wanted("latency")) BenchLatency(stream, options);
  if (wanted("transfer")) BenchTransfer(stream, options);
  return 0;
}

}  // namespace
}  // namespace quire::cuda

int main(int argc, char** argv) { return quire::cuda::Main(argc, argv); }
