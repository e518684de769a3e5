// Blocks to be encoded and decoded, again and again, and how long that takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"

namespace quire::bench {

inline constexpr int kRounds = 7;

// Wall seconds, or those of this thread's processor: one core is measured by the latter, so that neighbours
// on a shared machine cost nothing but their cache.
enum class Clock { kWall, kProcessor };

// Seconds of each piece of work: the best of some rounds in which all take turns, so that they share the
// machine's moods.
std::vector<double> BestSeconds(Clock clock, const std::vector<std::function<void()>>& works,
                                int rounds = kRounds);

// Of every block.
struct Shape {
  uint32_t layers, heads, dim;
  size_t stream_elements() const { return size_t{kBlockTokens} * heads * dim; }
  size_t block_elements() const { return layers * 2 * stream_elements(); }
};

// On 64 bytes, as tensors are.
template <typename T>
struct TensorAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};
  TensorAllocator() = default;
  template <typename U>
  TensorAllocator(const TensorAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kAlignment)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kAlignment); }
  friend bool operator==(const TensorAllocator&, const TensorAllocator&) { return true; }
};
using Tensor = std::vector<uint16_t, TensorAllocator<uint16_t>>;

// K and V as models have them: noise, and a per-channel offset in K. [block][layer][k, v][token][head][d],
// bf16.
Tensor RawBlocks(const Shape& shape, size_t blocks);

// Some blocks, the codec, and room for what comes out.
class CodedBlocks {
 public:
  // `raw` as RawBlocks makes it. INVALID_ARGUMENT for a spec or a shape that no codec has.
  static absl::StatusOr<CodedBlocks> Create(const Shape& shape, const std::string& spec, Tensor raw);

  // The raw values to where Decode writes; all of them, as Encode and Decode work on all blocks.
  void Copy(size_t threads);
  void Encode(size_t threads);
  // REQUIRES: Encode succeeded.
  void Decode(size_t threads);

  double gigabytes() const { return static_cast<double>(raw_.size() * sizeof(uint16_t)) * 1e-9; }
  // Raw bytes over an object's. REQUIRES: as Decode.
  double compression() const;
  // Σ‖x − x̂‖² / Σ‖x‖² of K (0) or V (1). REQUIRES: Decode was the last to write.
  double RelativeError(int stream) const;
  // The first failure of anything above.
  const absl::Status& failure() const { return failure_; }

 private:
  template <typename View>
  View Stream(uint16_t* base, size_t block, uint32_t layer, int which) const;
  void Keep(const absl::Status& status) {
    if (failure_.ok()) failure_ = status;
  }

  Shape shape_;
  CodecSpec spec_;
  std::shared_ptr<const BlockCodec> codec_;
  Tensor raw_, out_;
  std::vector<LayerView> layers_;
  std::vector<std::vector<uint8_t>> objects_;
  absl::Status failure_;
};

}  // namespace quire::bench
