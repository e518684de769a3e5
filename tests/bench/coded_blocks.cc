#include "tests/bench/coded_blocks.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/base/float16.h"
#include "core/base/status_macros.h"

namespace quire::bench {
namespace {

double Now(Clock clock) {
  timespec now;
  clock_gettime(clock == Clock::kWall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// n pieces over `threads` threads, the caller's among them.
void Spread(size_t threads, size_t n, absl::FunctionRef<void(size_t)> body) {
  std::atomic<size_t> next = 0;
  auto work = [&] {
    for (size_t i = next++; i < n; i = next++) body(i);
  };
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
}

std::function<void(size_t, absl::FunctionRef<void(size_t)>)> Pool(size_t threads) {
  return [threads](size_t n, absl::FunctionRef<void(size_t)> body) { Spread(threads, n, body); };
}

}  // namespace

std::vector<double> BestSeconds(Clock clock, const std::vector<std::function<void()>>& works, int rounds) {
  std::vector<double> best(works.size(), std::numeric_limits<double>::infinity());
  for (int round = 0; round <= rounds; ++round) {
    for (size_t i = 0; i < works.size(); ++i) {
      double begin = Now(clock);
      works[i]();
      double seconds = Now(clock) - begin;
      if (round > 0) best[i] = std::min(best[i], seconds);  // round 0 warms up
    }
  }
  return best;
}

Tensor RawBlocks(const Shape& shape, size_t blocks) {
  constexpr size_t kPeriod = 1 << 20;
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  std::vector<float> noise(kPeriod);
  for (float& x : noise) x = normal(generator);
  Tensor data(blocks * shape.block_elements());
  for (size_t i = 0; i < data.size(); ++i) {
    bool key = i / shape.stream_elements() % 2 == 0;
    data[i] = ToBf16(noise[i % kPeriod] + (key ? 2.0f * std::sin(static_cast<float>(i % shape.dim)) : 0.0f));
  }
  return data;
}

absl::StatusOr<CodedBlocks> CodedBlocks::Create(const Shape& shape, const std::string& spec, Tensor raw) {
  if (raw.empty() || raw.size() % shape.block_elements() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(raw.size(), " values are not whole blocks of ", shape.block_elements(), " values"));
  }
  CodedBlocks b;
  b.shape_ = shape;
  QUIRE_ASSIGN_OR_RETURN(b.spec_, CodecSpec::Parse(spec));
  Layout layout = Layout::Uniform(Digest{}, shape.layers, shape.heads, shape.dim);
  QUIRE_ASSIGN_OR_RETURN(b.codec_, BlockCodec::Create(layout, Part::Whole(layout)));
  b.raw_ = std::move(raw);
  b.out_.resize(b.raw_.size(), 1);
  b.objects_.resize(b.raw_.size() / shape.block_elements());
  for (size_t i = 0; i < b.objects_.size(); ++i) {
    for (uint32_t l = 0; l < shape.layers; ++l) {
      b.layers_.push_back(
          {b.Stream<StreamView>(b.raw_.data(), i, l, 0), b.Stream<StreamView>(b.raw_.data(), i, l, 1)});
    }
  }
  return b;
}

template <typename View>
View CodedBlocks::Stream(uint16_t* base, size_t block, uint32_t layer, int which) const {
  return {base + ((block * shape_.layers + layer) * 2 + which) * shape_.stream_elements(), DType::kBf16,
          static_cast<ptrdiff_t>(shape_.heads * shape_.dim), static_cast<ptrdiff_t>(shape_.dim)};
}

void CodedBlocks::Copy(size_t threads) {
  size_t bytes = raw_.size() * sizeof(uint16_t), part = (bytes / threads + 63) / 64 * 64;
  Spread(threads, threads, [&](size_t i) {
    size_t first = std::min(bytes, i * part);
    std::memcpy(reinterpret_cast<uint8_t*>(out_.data()) + first,
                reinterpret_cast<uint8_t*>(raw_.data()) + first, std::min(part, bytes - first));
  });
}

void CodedBlocks::Encode(size_t threads) {
  std::vector<BlockCodec::EncodeJob> jobs(objects_.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i] = {{Digest{}, Digest{}, 1},
               std::span(layers_).subspan(i * shape_.layers, shape_.layers),
               &objects_[i],
               {}};
  }
  codec_->EncodeBlocks(spec_, jobs, Pool(threads));
  for (const auto& job : jobs) Keep(job.status);
}

void CodedBlocks::Decode(size_t threads) {
  std::vector<BlockReader> readers;
  for (const auto& object : objects_) {
    auto reader = BlockReader::OpenAny(codec_, object);
    if (!reader.ok()) return Keep(reader.status());
    readers.push_back(*std::move(reader));
  }
  std::vector<BlockReader::DecodeJob> jobs;
  for (size_t i = 0; i < readers.size(); ++i) {
    for (uint32_t l = 0; l < shape_.layers; ++l) {
      MutableLayerView out{Stream<MutableStreamView>(out_.data(), i, l, 0),
                           Stream<MutableStreamView>(out_.data(), i, l, 1)};
      jobs.push_back({&readers[i], l, readers[i].levels(), out, {}});
    }
  }
  BlockReader::DecodeLayers(jobs, Pool(threads));
  for (const auto& job : jobs) Keep(job.status);
}

double CodedBlocks::compression() const {
  return static_cast<double>(shape_.block_elements() * sizeof(uint16_t)) /
         static_cast<double>(objects_[0].size());
}

double CodedBlocks::RelativeError(int stream) const {
  double energy = 0, error = 0;
  for (size_t i = 0; i < raw_.size(); ++i) {
    if (static_cast<int>(i / shape_.stream_elements() % 2) != stream) continue;
    double x = FromBf16(raw_[i]), miss = x - FromBf16(out_[i]);
    energy += x * x;
    error += miss * miss;
  }
  return energy > 0 ? error / energy : 0;
}

}  // namespace quire::bench
