// Decode attention on codes: microseconds beside SDPA's, bytes a second beside a device copy's, as JSON lines
// (DESIGN.md, "What counts as measured") and a table on stderr.
//
//   quire-attention-bench [main|records|shapes|batches]… [--sdpa=FILE] [--quick]
//
// FILE is what tests/cuda/sdpa_times.py printed on the same machine: a line for each shape, "batch tokens
// microseconds microseconds", replayed from a graph and launched call by call. A layer's launches go through
// the layers of objects of eight, so that no cache holds what they read.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/cuda/attention_pool.h"
#include "tests/cuda/measure.h"

namespace quire::cuda {
namespace {

struct Options {
  std::set<std::string> parts;
  struct Sdpa {
    double graph = 0, launched = 0;  // microseconds
  };
  std::map<std::pair<uint32_t, uint32_t>, Sdpa> sdpa;  // by batch and tokens
  int repeats = 21;
};

constexpr uint32_t kLayers = 8, kBlocks = 3;
constexpr int kLaunches = 16;  // in one measurement

// How a page's slices lie: as in an object, level by level and in it layer by layer; or layer by layer, each
// head's levels side by side.
enum class Order { kLevels, kRecords };

// Pages all over device memory, copies of a few coded blocks, in no order.
class Pages {
 public:
  Pages(const Stream& stream, uint32_t heads, uint32_t dim, uint32_t count, Order order = Order::kLevels)
      : pool_(kLayers, heads, dim, kBlocks, {"tq:k4v4"}), heads_(heads), dim_(dim), places_(count) {
    pool_.FormsToDevice();
    pool_.ToDevice(stream);
    const SliceMap& map = pool_.shape(0).map(false);
    size_t bytes = map.ObjectBytes(map.levels());
    std::vector<DeviceBuffer> records;
    if (order == Order::kRecords) {
      bytes = size_t{kLayers} * heads * RecordPitch(map);
      for (uint32_t b = 1; b < kBlocks; ++b) records.push_back(Records(stream, map, b));
      UseRecords(map);
    }
    pitch_ = (bytes + 255) / 256 * 256;
    memory_ = Check(DeviceBuffer::Allocate(count * pitch_));
    std::iota(places_.begin(), places_.end(), 0);
    std::shuffle(places_.begin(), places_.end(), std::mt19937(5));
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t block = 1 + i % (kBlocks - 1);
      const uint8_t* from = records.empty() ? pool_.DeviceObject(block, 0) : records[block - 1].data();
      Check(CopyOnDevice(stream.ref(), from, bytes, memory_.data() + i * pitch_));
    }
    Check(stream.Synchronize());
  }

  const AttentionPool& pool() const { return pool_; }
  const AttentionForms& forms() const { return forms_ != nullptr ? *forms_ : pool_.forms(); }
  uint32_t heads() const { return heads_; }
  uint32_t dim() const { return dim_; }
  const uint8_t* at(size_t i) const { return memory_.data() + places_[i % places_.size()] * pitch_; }

 private:
  static size_t RecordPitch(const SliceMap& map) {
    size_t bytes = 0;
    for (int level = 0; level < map.levels(); ++level) bytes += map.slice(level, 0, 0).length;
    return (bytes + 127) / 128 * 128;
  }

  DeviceBuffer Records(const Stream& stream, const SliceMap& map, uint32_t block) const {
    size_t pitch = RecordPitch(map);
    DeviceBuffer to = Check(DeviceBuffer::Allocate(kLayers * heads_ * pitch));
    for (uint32_t l = 0; l < kLayers; ++l) {
      for (uint32_t h = 0; h < heads_; ++h) {
        uint8_t* record = to.data() + (l * heads_ + h) * pitch;
        for (int level = 0; level < map.levels(); ++level) {
          Extent slice = map.slice(level, l, h);
          Check(
              CopyOnDevice(stream.ref(), pool_.DeviceObject(block, 0) + slice.offset, slice.length, record));
          record += slice.length;
        }
      }
    }
    return to;
  }

  // The pool's forms, of records.
  void UseRecords(const SliceMap& map) {
    std::vector<std::vector<AttentionForm>> all(kLayers);
    auto pitch = static_cast<uint32_t>(RecordPitch(map));
    for (uint32_t l = 0; l < kLayers; ++l) {
      for (uint32_t i = 0; i < pool_.forms().count(); ++i) {
        AttentionForm form = pool_.forms().form(l, i);
        uint32_t at = l * heads_ * pitch;
        for (int level = 0; form.kind == AttentionForm::kCoded && level < map.levels(); ++level) {
          form.offset[level] = at;
          form.stride[level] = pitch;
          at += form.length[level];
        }
        all[l].push_back(form);
      }
    }
    forms_ = std::make_unique<AttentionForms>(Check(AttentionForms::Create(all)));
  }

  AttentionPool pool_;
  std::unique_ptr<AttentionForms> forms_;  // where they are not the pool's
  uint32_t heads_, dim_;
  std::vector<uint32_t> places_;
  size_t pitch_ = 0;
  DeviceBuffer memory_;
};

struct Shape {
  std::vector<uint32_t> lengths;  // one a sequence
  std::vector<int> levels;        // pages take them in turn
  uint32_t group = 4;
  bool raw_tail = false;  // the last 128 tokens and the sinks are raw, as in a running sequence
};

struct Outcome {
  double microseconds, bytes;
};

Outcome Measure(const Stream& stream, const Options& options, const Pages& pages, const Shape& shape) {
  const AttentionPool& pool = pages.pool();
  std::vector<std::vector<AttentionPage>> lists;
  uint32_t items = 0;
  size_t next = 0;
  for (uint32_t length : shape.lengths) {
    std::vector<AttentionPage>& list = lists.emplace_back();
    for (uint32_t i = 0; 64 * i < length; ++i) {
      AttentionPage page{pages.at(next++), pool.CodedFormOf(0, false, shape.levels[i % shape.levels.size()])};
      page.position = 64 * i;
      if (shape.raw_tail && i == 0) {
        list.push_back({pool.DeviceRaw(0), pool.RawFormOf(), 0, 4, 0});
        page.first_token = 4;
      } else if (shape.raw_tail && 64 * i + 128 > length) {
        page.data = pool.DeviceRaw(i % kBlocks);
        page.form = pool.RawFormOf();
      }
      list.push_back(page);
    }
    items += static_cast<uint32_t>(list.size());
  }
  std::vector<AttentionSequence> sequences;
  for (size_t s = 0; s < lists.size(); ++s) sequences.push_back({lists[s], shape.lengths[s]});
  auto batch = static_cast<uint32_t>(sequences.size());
  AttentionPlan plan = Check(AttentionPlan::Create({batch, items, pages.heads()}));
  Check(plan.Set(sequences, pages.forms(), 0, 0));
  Check(plan.Upload(stream.ref()));
  DecodeAttention attention = Check(DecodeAttention::Create(
      {AttentionPool::kPoolSeed, pages.dim(), pages.heads(), shape.group, batch, true}));
  int64_t stride = int64_t{pages.heads()} * shape.group * pages.dim();
  std::vector<uint16_t> query(batch * stride);
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  for (uint16_t& x : query) x = ToBf16(normal(engine));
  DeviceBuffer q = Check(DeviceBuffer::Allocate(2 * query.size())),
               out = Check(DeviceBuffer::Allocate(2 * query.size()));
  Check(CopyToDevice(stream.ref(), query.data(), 2 * query.size(), q.data()));
  Check(stream.Synchronize());
  float scale = 1 / std::sqrt(static_cast<float>(pages.dim()));
  double ms = Milliseconds(stream, options.repeats, [&](int) {
    for (uint32_t i = 0; i < kLaunches; ++i)
      Check(attention.Run(plan, pages.forms(), i % kLayers, scale, q.data(), stride, out.data(), stride,
                          stream.ref()));
  });
  return {ms / kLaunches * 1e3, static_cast<double>(plan.bytes())};
}

class Report {
 public:
  Report(const Stream& stream, const Options& options) : options_(options) {
    constexpr size_t kBytes = size_t{1} << 30;
    DeviceBuffer from = Check(DeviceBuffer::Allocate(kBytes)), to = Check(DeviceBuffer::Allocate(kBytes));
    Check(Fill(stream.ref(), 0x5A, kBytes, from.data()));
    double ms = Milliseconds(stream, options.repeats,
                             [&](int) { Check(CopyOnDevice(stream.ref(), from.data(), kBytes, to.data())); });
    copy_ = 2.0 * kBytes / ms * 1e-6;
    std::fprintf(stderr, "device copy: %.0f GB/s read and written\n%-34s %9s %9s %9s %9s %9s\n", copy_, "",
                 "us", "GB/s", "of copy", "x SDPA", "launched");
  }

  double Share(const Outcome& o) const { return o.bytes / o.microseconds * 1e-3 / copy_; }

  // `goal`: of the share of copy speed, `sdpa_goal`: of the ratio to SDPA; 0: none.
  void Add(const std::string& name, const Outcome& o, double goal, std::pair<uint32_t, uint32_t> shape,
           double sdpa_goal, const std::string& context) const {
    double rate = o.bytes / o.microseconds * 1e-3;
    Print(
        {"gpu.attention." + name + ".rate", "GB/s", "device copy", context, rate, copy_, rate / copy_, goal});
    auto sdpa = options_.sdpa.find(shape);
    double ratio = 0, launched = 0;
    if (sdpa != options_.sdpa.end()) {
      ratio = sdpa->second.graph / o.microseconds;
      launched = sdpa->second.launched / o.microseconds;
      Print({"gpu.attention." + name + ".time", "us", "bf16 SDPA, replayed from a graph", context,
             o.microseconds, sdpa->second.graph, ratio, sdpa_goal});
      Print({"gpu.attention." + name + ".time_launched", "us", "bf16 SDPA, launched call by call", context,
             o.microseconds, sdpa->second.launched, launched, 0});
    }
    std::fprintf(stderr, "%-34s %9.1f %9.0f %8.1f%% %9.2f %9.2f\n", name.c_str(), o.microseconds, rate,
                 100 * rate / copy_, ratio, launched);
  }

 private:
  const Options& options_;
  double copy_ = 0;
};

// 32 query and 8 KV heads, d = 128.
void BenchMain(const Stream& stream, const Options& options, const Report& report, Order order) {
  Pages pages(stream, 8, 128, 8192, order);
  const char* prefix = order == Order::kRecords ? "records." : "";
  struct Goal {
    uint32_t batch, tokens;
    double share, four, fewer;
  };
  for (const Goal& g : {Goal{1, 32768, 0.47, 3.1, 0},
                        {1, 131072, 0.70, 3.1, 0},
                        {16, 8192, 0.72, 3.1, 0},
                        {16, 32768, 0.85, 3.3, 4.3}}) {
    std::vector<uint32_t> lengths(g.batch, g.tokens);
    std::string name = absl::StrCat(prefix, "b", g.batch, ".", g.tokens / 1024, "k");
    double one_by_one = 0;
    for (int levels = 3; levels >= 1; --levels) {
      Outcome o = Measure(stream, options, pages, {lengths, {levels}});
      one_by_one += o.microseconds / 3;
      report.Add(absl::StrCat(name, ".", levels + 1), o, levels == 3 ? g.share : 0, {g.batch, g.tokens},
                 levels == 3 ? g.four : g.fewer,
                 absl::StrCat("32 query and 8 KV heads, d=128, block means, ", levels + 1, " bits"));
    }
    Outcome mixed = Measure(stream, options, pages, {lengths, {3, 2, 1}});
    report.Add(name + ".mixed", mixed, 0, {g.batch, g.tokens}, 0, "pages of 4, 3 and 2 bits in turn");
    Print({"gpu.attention." + name + ".mixed.mean", "us", "mean of 4, 3 and 2 bits", "", mixed.microseconds,
           one_by_one, one_by_one / mixed.microseconds, 0});
  }
  Outcome small = Measure(stream, options, pages, {{2048}, {3}});
  report.Add(absl::StrCat(prefix, "b1.2k.4"), small, 0, {1, 2048}, 0, "a launch that has little to do");
}

// Other head sizes and groups, 16 sequences of 8k tokens each; goals: 70 % of what is asked of d = 128 and
// groups of 4.
void BenchShapes(const Stream& stream, const Options& options, const Report& report) {
  constexpr double kGoal = 0.7 * 0.72;
  for (uint32_t dim : {64, 128, 256}) {
    Pages pages(stream, 8, dim, 2048);
    for (uint32_t group : {4, 1, 2, 3, 7, 8}) {
      if (dim != 128 && group != 4 && group != 8) continue;
      Outcome o = Measure(stream, options, pages, {std::vector<uint32_t>(16, 8192), {3}, group});
      report.Add(absl::StrCat("d", dim, ".group", group, ".b16.8k.4"), o, kGoal, {}, 0,
                 absl::StrCat("8 KV heads, ", 8 * group, " query heads"));
    }
  }
}

// Batches as they run: lengths of all sorts, partial last pages, sinks and the last 128 tokens raw.
void BenchBatches(const Stream& stream, const Options& options, const Report& report) {
  constexpr double kGoal = 0.7 * 0.72;
  Pages pages(stream, 8, 128, 4096);
  std::vector<uint32_t> unequal, partial(16, 8192 - 27), few{131072 - 27, 4000, 100};
  for (uint32_t i = 0; i < 16; ++i) unequal.push_back(515 + 1024 * i);
  report.Add("unequal.b16.4", Measure(stream, options, pages, {unequal, {3}}), kGoal, {}, 0,
             "515 to 15875 tokens");
  report.Add("partial.b16.8k.4", Measure(stream, options, pages, {partial, {3}}), kGoal, {}, 0,
             "last page of 37 tokens");
  report.Add("raw_tail.b16.8k.4", Measure(stream, options, pages, {partial, {3}, 4, true}), kGoal, {}, 0,
             "sinks and last 128 tokens raw");
  report.Add("raw_tail.b1.32k.4", Measure(stream, options, pages, {{32768 - 27}, {3}, 4, true}), 0, {}, 0,
             "sinks and last 128 tokens raw");
  report.Add("long_and_short.b3.4", Measure(stream, options, pages, {few, {3}, 4, true}), 0, {}, 0,
             "131045, 4000 and 100 tokens");
  report.Add("b64.4k.4", Measure(stream, options, pages, {std::vector<uint32_t>(64, 4096), {3}}), 0, {}, 0,
             "more pairs than blocks");
  report.Add("b20.8k.4", Measure(stream, options, pages, {std::vector<uint32_t>(20, 8192), {3}}), 0, {}, 0,
             "160 pairs for 132 blocks");
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg.starts_with("--sdpa=")) {
      std::ifstream file(arg.substr(7));
      uint32_t batch, tokens;
      Options::Sdpa times;
      while (file >> batch >> tokens >> times.graph >> times.launched) options.sdpa[{batch, tokens}] = times;
      if (options.sdpa.empty()) Fail("no times in " + arg.substr(7));
    } else if (arg == "--quick") {
      options.repeats = 7;
    } else {
      options.parts.insert(arg);
    }
  }
  auto wanted = [&](const char* part) { return options.parts.empty() || options.parts.contains(part); };
  Stream stream = Check(Stream::Create());
  Report report(stream, options);
  if (wanted("main")) BenchMain(stream, options, report, Order::kLevels);
  if (wanted("records")) BenchMain(stream, options, report, Order::kRecords);
  if (wanted("shapes")) BenchShapes(stream, options, report);
  if (wanted("batches")) BenchBatches(stream, options, report);
  return 0;
}

}  // namespace
}  // namespace quire::cuda

int main(int argc, char** argv) { return quire::cuda::Main(argc, argv); }
