#include "services/store/engine/scrubber.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::store {
namespace {

constexpr int64_t kSecond = 1'000'000;        // µs
constexpr int64_t kSaveEvery = 60 * kSecond;  // how much of a round a killed process repeats
constexpr int64_t kLongest = 3600 * kSecond;  // for one copy, however slow the rate
constexpr size_t kNamesAtOnce = 8192;
constexpr std::string_view kPlaceTitle = "quire scrub v1 ";

// A place is kept, and shown, by a key's first 64 bits: keys are hashes, so few blocks share them.
uint64_t FirstBits(const Digest& key) {
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) bits = bits << 8 | key.bytes[static_cast<size_t>(i)];
  return bits;
}
double ShareDone(const Digest& place) { return static_cast<double>(FirstBits(place)) * 0x1p-64; }

int64_t SteadyUs() {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Scrubber::Scrubber(ScrubOptions options, const BlockIndex& index, StoreCounters& counters, Check check,
                   Activity activity)
    : options_(std::move(options)),
      index_(index),
      counters_(counters),
      check_(std::move(check)),
      activity_(std::move(activity)) {
  LoadPlace();
}

Scrubber::~Scrubber() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
  SavePlace();
}

void Scrubber::Start() {
  if (options_.bytes_per_second > 0) thread_ = std::thread([this] { Run(); });
}

void Scrubber::Run() {
  std::unique_lock lock(mu_);
  while (!stop_) {
    lock.unlock();
    int64_t now = SteadyUs();
    int64_t due = Step(now);
    lock.lock();
    if (due > now) stopped_.wait_for(lock, std::chrono::microseconds(due - now), [this] { return stop_; });
  }
}

int64_t Scrubber::Step(int64_t now_us) {
  if (options_.bytes_per_second == 0) return INT64_MAX;
  if (now_us < due_us_) return due_us_;
  if (!std::exchange(in_round_, true)) due_us_ = round_began_us_ = now_us;
  if (saved_us_ == INT64_MIN || now_us - saved_us_ >= kSaveEvery) {
    SavePlace();
    saved_us_ = now_us;
  }
  StoredObjectPtr copy = NextCopy();
  if (copy == nullptr) return EndRound(now_us);
  CheckOne(copy);
  uint64_t bytes = copy->record.bytes();
  uint64_t activity = activity_();
  if (std::exchange(seen_activity_, activity) != activity) bytes *= options_.load_factor;
  double cost = static_cast<double>(bytes) / static_cast<double>(options_.bytes_per_second) * kSecond;
  // What was missed while something else held it up is made up for, a second's worth.
  due_us_ = std::max(due_us_, now_us - kSecond) + static_cast<int64_t>(std::min<double>(cost, kLongest));
  return due_us_;
}

int64_t Scrubber::EndRound(int64_t now_us) {
  in_round_ = false;
  place_ = {};
  counters_.ScrubRoundEnded();
  due_us_ = std::max(now_us + kSecond, round_began_us_ + options_.least_round_ms * 1000);
  return due_us_;
}

// Names and parts are kept between steps, never copies: one with more owners than the index is in use, and
// could not be evicted.
StoredObjectPtr Scrubber::NextCopy() {
  while (true) {
    if (!at_place_.empty()) {
      auto [part, tier] = at_place_.back();
      at_place_.pop_back();
      if (StoredObjectPtr copy = index_.PeekIn(place_, part, tier)) return copy;
      continue;  // gone meanwhile
    }
    if (names_.empty()) {
      std::vector<BlockName> next = index_.NamesAfter(place_, kNamesAtOnce);
      if (next.empty()) return nullptr;
      names_.assign(next.begin(), next.end());
    }
    place_ = names_.front();
    names_.pop_front();
    at_place_ = index_.CopiesOf(place_);
  }
}

void Scrubber::CheckOne(const StoredObjectPtr& copy) {
  absl::Status checked = check_(place_, copy);
  counters_.Scrubbed(copy->tier, copy->record.bytes(), checked);
  counters_.ScrubAt(ShareDone(place_.key));
  if (!absl::IsDataLoss(checked)) return;
  spdlog::error("store: scrubbing found wrong bytes in a block of the {} tier, of {} bytes, and dropped it",
                TierName(copy->tier), copy->record.bytes());
}

void Scrubber::LoadPlace() {
  if (options_.position_file.empty()) return;
  std::ifstream file(options_.position_file);
  std::string line;
  uint64_t bits = 0;
  if (!std::getline(file, line) || !line.starts_with(kPlaceTitle)) return;
  if (!absl::SimpleHexAtoi(line.substr(kPlaceTitle.size()), &bits)) return;
  if (bits == 0) return;        // a round's beginning
  place_.key.bytes.fill(0xFF);  // after all blocks that share these bits: they were begun
  for (size_t i = 0; i < 8; ++i) place_.key.bytes[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
}

void Scrubber::SavePlace() const {
  if (options_.position_file.empty()) return;
  std::string fresh = options_.position_file + ".new";
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << kPlaceTitle << absl::StrFormat("%016x", FirstBits(place_.key)) << '\n';
    if (!file.flush()) return;  // then the next process repeats a part of the round
  }
  std::error_code ignored;
  std::filesystem::rename(fresh, options_.position_file, ignored);
}

}  // namespace quire::store
