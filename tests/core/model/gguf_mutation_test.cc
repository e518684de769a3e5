// Thousands of damaged copies of a small valid model: the reader may accept or refuse each, and must neither
// crash (ASan and UBSan builds run this too) nor hold more memory than a constant factor of the file's size.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>

#include "core/model/decoder_config.h"
#include "tests/core/model/gguf_builder.h"

namespace {

std::atomic<size_t> live_bytes{0}, peak_bytes{0};

void* Counted(size_t size) {
  void* p = std::malloc(size);
  if (p == nullptr) throw std::bad_alloc();
  size_t live = live_bytes += malloc_usable_size(p);
  if (live > peak_bytes) peak_bytes = live;
  return p;
}

void Uncounted(void* p) noexcept {
  if (p != nullptr) live_bytes -= malloc_usable_size(p);
  std::free(p);
}

}  // namespace

void* operator new(size_t size) { return Counted(size); }
void* operator new[](size_t size) { return Counted(size); }
void operator delete(void* p) noexcept { Uncounted(p); }
void operator delete[](void* p) noexcept { Uncounted(p); }
void operator delete(void* p, size_t) noexcept { Uncounted(p); }
void operator delete[](void* p, size_t) noexcept { Uncounted(p); }

namespace quire {
namespace {

// Opens the bytes and uses everything that opened. Returns whether they were accepted.
bool Exercise(const std::vector<uint8_t>& bytes) {
  auto file = GgufFile::Parse(bytes);
  if (!file.ok()) {
    EXPECT_FALSE(file.status().message().empty());
    return false;
  }
  std::vector<float> out;
  for (const GgufTensor& tensor : (*file)->tensors()) {
    EXPECT_GE(tensor.data.data(), bytes.data());
    EXPECT_LE(tensor.data.data() + tensor.data.size(), bytes.data() + bytes.size());
    out.resize(tensor.elements());
    Dequantize(tensor.type, tensor.data, out);
  }
  if (auto config = DecoderConfig::FromGguf(**file); config.ok())
    (void)config->KvLayout((*file)->WeightsDigest());
  return true;
}

// Runs `bytes` and checks what it took: arrays of bytes grow eightfold, strings and names by their headers,
// one tensor to floats.
bool ExerciseBounded(const std::vector<uint8_t>& bytes) {
  size_t before = live_bytes;
  peak_bytes = before;
  bool accepted = Exercise(bytes);
  EXPECT_LE(peak_bytes - before, 16 * bytes.size() + (64 << 10));
  EXPECT_EQ(live_bytes, before);
  return accepted;
}

TEST(GgufMutation, TheOriginalIsValid) {
  EXPECT_TRUE(ExerciseBounded(SmallLlama().Build()));
  EXPECT_TRUE(ExerciseBounded(SmallGemma3().Build()));
}

TEST(GgufMutation, EveryTruncationIsRefused) {
  const std::vector<uint8_t> whole = SmallLlama().Build();
  for (size_t size = 0; size < whole.size(); ++size) {
    std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    ASSERT_FALSE(ExerciseBounded(cut)) << size;
  }
}

TEST(GgufMutation, DamagedBytes) {
  // Most of a file is tensor data, where damage means nothing: aim at what stands before it.
  struct Original {
    std::vector<uint8_t> whole;
    size_t parsed;
  };
  std::vector<Original> originals;
  for (std::vector<uint8_t> whole : {SmallLlama().Build(), SmallGemma3().Build()}) {
    const size_t parsed =
        static_cast<size_t>((*GgufFile::Parse(whole))->tensors()[0].data.data() - whole.data());
    originals.push_back({std::move(whole), parsed});
  }
  constexpr uint64_t kWild[] = {0,          1,          0x7F,       0x80,       0xFF,
                                0xFFFF,     0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ull << 32,
                                1ull << 62, 1ull << 63, ~0ull};
  size_t accepted = 0;
  constexpr int kRounds = 20000;
  for (int round = 0; round < kRounds; ++round) {
    std::mt19937 random(static_cast<uint32_t>(round));
    const size_t parsed = originals[static_cast<size_t>(round) % originals.size()].parsed;
    std::vector<uint8_t> bytes = originals[static_cast<size_t>(round) % originals.size()].whole;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      size_t at = random() % std::min(parsed, bytes.size());
      switch (random() % 5) {
        case 0:
          bytes[at] ^= static_cast<uint8_t>(1u << random() % 8);
          break;
        case 1:
          bytes[at] = static_cast<uint8_t>(random());
          break;
        case 2: {
          uint64_t value = kWild[random() % std::size(kWild)];
          std::memcpy(&bytes[at], &value, std::min<size_t>(random() % 2 ? 8 : 4, bytes.size() - at));
          break;
        }
        case 3:
          bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at));
          break;
        default:
          bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(random()));
          break;
      }
    }
    accepted += ExerciseBounded(bytes);
    if (HasFailure()) FAIL() << "round " << round;
  }
  // Both outcomes must occur, or the mutations miss their aim.
  EXPECT_GT(accepted, static_cast<size_t>(kRounds / 100));
  EXPECT_LT(accepted, static_cast<size_t>(kRounds / 10 * 9));
}

}  // namespace
}  // namespace quire
