#include "tests/core/codec/scalar_reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "core/base/dtype.h"

namespace quire::reference {
namespace {

constexpr size_t kN = kTqTokens;
constexpr float kTiny = 0x1p-100f, kStep = 0x1p-10f;

uint64_t Mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Bit position of value (token, channel) in a plane of `width` bits a value (core/block/README.md).
size_t PlaneBit(FragmentOrder order, uint32_t dim, uint32_t token, uint32_t channel, size_t width) {
  uint32_t m = token / 16, r = token / 8 % 2, g, t, unit, j, units = dim / 16;
  bool tail = dim % 32 == 16 && channel >= dim - 16;
  uint32_t within = tail ? channel % 16 : channel % 32;
  if (order == FragmentOrder::kKey) {
    g = token % 8;
    t = tail ? within / 4 : within / 8;
    unit = tail ? units - 1 : r * (dim / 32) + channel / 32;
    j = tail ? 4 * r + within % 4 : within % 8;
  } else {
    t = token % 8 / 2;
    g = 2 * (tail ? within / 4 : within / 8) + within % 2;
    unit = tail ? units - 1 : 2 * (channel / 32) + within / 4 % 2;
    j = token % 2 + 2 * r + 4 * (within / 2 % 2);
  }
  size_t lane = 32 * m + 4 * g + t, fours = dim / 64, pair = dim / 32 % 2;
  if (unit < 4 * fours) {
    size_t i = unit % 4, group = 32 * width * (lane * fours + unit / 4);
    return group + (width == 2 ? 32 * (i / 2) + 4 * j + 2 * (i % 2) : 4 * j + i);
  }
  size_t base = 128 * fours * 32 * width, rest = unit - 4 * fours;
  if (pair && rest < 2) return base + 16 * width * lane + (width == 2 ? 4 * j + 2 * rest : 2 * j + rest);
  return base + 128 * pair * 16 * width + 8 * width * lane + width * j;
}

void Pack(FragmentOrder order, uint32_t dim, int bits, const uint8_t* codes, const PlanePointers& planes) {
  for (int p = 0; p < bits - 1; ++p) std::memset(planes[p], 0, PlaneBytes(dim, p == 0 ? 2 : 1));
  auto set = [&](int p, size_t bit, int value) {
    planes[p][bit / 8] |= static_cast<uint8_t>(value << bit % 8);
  };
  for (uint32_t c = 0; c < dim; ++c) {
    for (uint32_t t = 0; t < kN; ++t) {
      int code = codes[c * kN + t];
      size_t crumb = PlaneBit(order, dim, t, c, 2), one = PlaneBit(order, dim, t, c, 1);
      set(0, crumb, code >> (bits - 2) & 1);
      set(0, crumb + 1, code >> (bits - 1) & 1);
      for (int p = 1; p < bits - 1; ++p) set(p, one, code >> (bits - 2 - p) & 1);
    }
  }
}

void Unpack(FragmentOrder order, uint32_t dim, int kept, const ConstPlanePointers& planes, uint8_t* codes) {
  auto get = [&](int p, size_t bit) { return planes[p][bit / 8] >> bit % 8 & 1; };
  for (uint32_t c = 0; c < dim; ++c) {
    for (uint32_t t = 0; t < kN; ++t) {
      size_t crumb = PlaneBit(order, dim, t, c, 2), one = PlaneBit(order, dim, t, c, 1);
      int code = get(0, crumb + 1) << 1 | get(0, crumb);
      for (int p = 1; p < kept - 1; ++p) code = code << 1 | get(p, one);
      codes[c * kN + t] = static_cast<uint8_t>(code);
    }
  }
}

std::vector<float> Load(uint32_t dim, uint32_t first_token, const HeadRows& rows) {
  std::vector<float> y(dim * kN);
  for (uint32_t t = first_token; t < kN; ++t) {
    for (uint32_t c = 0; c < dim; ++c) {
      y[c * kN + t] = LoadElement(rows.dtype, rows.data, static_cast<size_t>(t * rows.token_stride) + c);
    }
  }
  return y;
}

// What both encoders work on: rotated vectors, their codes, and sums over channels in ascending order.
struct Vectors {
  const Codebook& book;
  uint32_t dim, first;
  std::vector<float> y;
  std::vector<uint8_t> codes;
  std::vector<float> energy, inverse;
  double tiny = 0;

  Vectors(const Codebook& codebook, uint32_t first_token, std::vector<float> rotated)
      : book(codebook),
        dim(codebook.dim()),
        first(first_token),
        y(std::move(rotated)),
        codes(dim * kN),
        energy(kN),
        inverse(kN) {}

  template <typename Term>
  float Sum(uint32_t t, Term term) const {
    float sum = 0;
    for (uint32_t c = 0; c < dim; ++c) sum += term(y[c * kN + t], codes[c * kN + t]);
    return sum;
  }
  float Centroid(uint8_t code, int kept) const { return book.table(kept)[code >> (book.bits() - kept)]; }
  float Along(uint32_t t, int kept) const {
    return Sum(t, [&](float v, uint8_t code) { return v * Centroid(code, kept); });
  }
  float Square(uint32_t t) const {
    return Sum(
        t, [&](float, uint8_t code) { return Centroid(code, book.bits()) * Centroid(code, book.bits()); });
  }
  int MeasureEnergy() {
    for (uint32_t t = 0; t < kN; ++t) energy[t] = Sum(t, [](float v, uint8_t) { return v * v; });
    for (uint32_t t = first; t < kN; ++t) {
      if (!std::isfinite(energy[t])) return static_cast<int>(t);
    }
    return -1;
  }
  double TotalEnergy() const {
    double total = 0;
    for (uint32_t t = first; t < kN; ++t) total += energy[t];
    return total;
  }
  void Index() {
    for (uint32_t c = 0; c < dim; ++c) {
      for (uint32_t t = 0; t < kN; ++t) {
        float z = std::fabs(y[c * kN + t]) * inverse[t];
        int cell = 0;
        for (float threshold : book.float_thresholds()) cell += threshold < z;
        codes[c * kN + t] = static_cast<uint8_t>(cell | (y[c * kN + t] < 0 ? 1 << (book.bits() - 1) : 0));
      }
    }
  }
  // Codes, after the vectors that are not coded have become zero.
  void Code(int effort) {
    for (uint32_t t = 0; t < kN; ++t) {
      if (t >= first && energy[t] < kTiny) tiny += energy[t];
      bool live = t >= first && energy[t] >= kTiny;
      inverse[t] = live ? std::sqrt(static_cast<float>(dim)) / std::sqrt(energy[t]) : 0;
      if (live) continue;
      energy[t] = 0;
      for (uint32_t c = 0; c < dim; ++c) y[c * kN + t] = 0;
    }
    Index();
    for (int i = 0; i < effort; ++i) {
      for (uint32_t t = 0; t < kN; ++t) {
        float along = Along(t, book.bits());
        if (along > 0) inverse[t] = Square(t) / along;
      }
      Index();
    }
  }
  // Codes anew, with each channel's miss made up for in those after it (core/codec/query_shape.h).
  void Shape(const float* feedback) {
    std::vector<float> target(dim);
    for (uint32_t t = 0; t < kN; ++t) {
      float along = Along(t, book.bits());
      if (!(along > 0)) continue;
      float factor = along / energy[t];
      for (uint32_t c = 0; c < dim; ++c) target[c] = y[c * kN + t] * factor;
      for (uint32_t c = 0; c < dim; ++c) {
        int cell = 0;
        for (float threshold : book.float_thresholds()) cell += threshold < std::fabs(target[c]);
        uint8_t& code = codes[c * kN + t];
        code = static_cast<uint8_t>(cell | (target[c] < 0 ? 1 << (book.bits() - 1) : 0));
        float miss = target[c] - Centroid(code, book.bits());
        for (uint32_t j = c + 1; j < dim; ++j) target[j] -= miss * feedback[c * dim + j];
      }
    }
  }
  double Error(int kept, const float* scales) const {
    double total = 0;
    for (uint32_t t = 0; t < kN; ++t) {
      total += Sum(t, [&](float v, uint8_t code) {
        float miss = v - scales[t] * Centroid(code, kept);
        return miss * miss;
      });
    }
    return total + tiny;
  }
};

int8_t Correction(float wanted, float from) {
  if (!(from > 0)) return 0;
  return static_cast<int8_t>(std::lrintf(std::clamp((wanted / from - 1.0f) / kStep, -127.0f, 127.0f)));
}
float Corrected(float scale, int8_t correction) {
  return scale * (1.0f + static_cast<float>(correction) * kStep);
}

float ValueScale(float base, int code) {
  if (code == 255) return 0;
  return base * std::ldexp(static_cast<float>(std::exp2(-(code % 16) / 16.0)), -(code / 16));
}

void RemoveMean(Vectors& v, TqKey* out) {
  std::vector<float> mean(v.dim);
  float largest = 0;
  for (uint32_t c = 0; c < v.dim; ++c) {
    float sum = 0;
    for (uint32_t t = v.first; t < kN; ++t) sum += v.y[c * kN + t];
    mean[c] = sum / static_cast<float>(kN - v.first);
    largest = std::max(largest, std::fabs(mean[c]));
  }
  out->mean_step = ToBf16(largest / 127);
  float step = FromBf16(out->mean_step);
  for (uint32_t c = 0; c < v.dim; ++c) {
    out->mean[c] =
        static_cast<int8_t>(step > 0 ? std::lrintf(std::clamp(mean[c] / step, -127.0f, 127.0f)) : 0);
    for (uint32_t t = 0; t < kN; ++t) v.y[c * kN + t] -= static_cast<float>(out->mean[c]) * step;
  }
}

}  // namespace

Rotation::Rotation(uint32_t dim, uint64_t seed)
    : dim_(dim), power_(1u << std::countr_zero(dim)), odd_(dim / power_) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
  for (uint64_t round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < dim; ++i) {
      uint64_t word = Mix64(Mix64(seed + kGolden) + (16 * round + i / 64 + 1) * kGolden);
      signs_[round].push_back(word >> (i % 64) & 1 ? -1.0f : 1.0f);
    }
  }
  for (uint32_t i = 0; i < odd_ * odd_; ++i) {
    double angle = 2 * std::numbers::pi * (i / odd_ * (i % odd_) % odd_) / odd_;
    hartley_.push_back(static_cast<float>((std::cos(angle) + std::sin(angle)) / std::sqrt(odd_ * 1.0)));
  }
}

void Rotation::Mix(float* x) const {
  for (uint32_t h = 1; h < power_; h *= 2) {
    for (uint32_t c = 0; c < dim_; ++c) {
      if ((c % power_ & h) != 0) continue;
      for (uint32_t t = 0; t < kN; ++t) {
        float a = x[c * kN + t], b = x[(c + h) * kN + t];
        x[c * kN + t] = a + b;
        x[(c + h) * kN + t] = a - b;
      }
    }
  }
  if (odd_ == 1) return;
  std::vector<float> in(x, x + dim_ * kN);
  for (uint32_t c = 0; c < dim_; ++c) {
    for (uint32_t t = 0; t < kN; ++t) {
      float sum = 0;
      for (uint32_t k = 0; k < odd_; ++k)
        sum += hartley_[c / power_ * odd_ + k] * in[(k * power_ + c % power_) * kN + t];
      x[c * kN + t] = sum;
    }
  }
}

void Rotation::Apply(float* x) const {
  for (int round = 0; round < 2; ++round) {
    for (uint32_t c = 0; c < dim_; ++c) {
      float factor = signs_[round][c] * (round == 0 ? 1.0f : 1.0f / static_cast<float>(power_));
      for (uint32_t t = 0; t < kN; ++t) x[c * kN + t] *= factor;
    }
    Mix(x);
  }
}

void Rotation::ApplyTransposed(float* y) const {
  for (int round = 1; round >= 0; --round) {
    Mix(y);
    for (uint32_t c = 0; c < dim_; ++c) {
      float factor = signs_[round][c] * (round == 0 ? 1.0f : 1.0f / static_cast<float>(power_));
      for (uint32_t t = 0; t < kN; ++t) y[c * kN + t] *= factor;
    }
  }
}

int EncodeKeyHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                  const HeadRows& rows, TqKey* out, const PlanePointers& planes, const float* feedback) {
  Vectors v(book, first_token, Load(book.dim(), first_token, rows));
  rotation.Apply(v.y.data());
  if (int bad = v.MeasureEnergy(); bad >= 0) return bad;
  out->measured.energy = v.TotalEnergy();
  RemoveMean(v, out);
  if (int bad = v.MeasureEnergy(); bad >= 0) return bad;
  v.Code(effort);
  if (feedback != nullptr) v.Shape(feedback);
  float scales[kN];
  for (int level = 0; level < kTqLevels; ++level) {
    int kept = KeptBits(book.bits(), level);
    if (!HasLevel(book.bits(), level)) {
      out->measured.error[level] = out->measured.error[level - 1];
      continue;
    }
    for (uint32_t t = 0; t < kN; ++t) {
      float along = v.Along(t, kept), wanted = along > 0 ? v.energy[t] / along : 0;
      if (level == 0) {
        out->scales[t] = ToBf16(wanted);
        scales[t] = FromBf16(out->scales[t]);
      } else {
        float from = scales[t] * book.nominal_ratio(KeptBits(book.bits(), level - 1), kept);
        out->corrections[level][t] = Correction(wanted, from);
        scales[t] = Corrected(from, out->corrections[level][t]);
      }
    }
    out->measured.error[level] = v.Error(kept, scales);
  }
  Pack(FragmentOrder::kKey, book.dim(), book.bits(), v.codes.data(), planes);
  return -1;
}

int EncodeValueHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                    const HeadRows& rows, TqValue* out, const PlanePointers& planes) {
  Vectors v(book, first_token, Load(book.dim(), first_token, rows));
  rotation.Apply(v.y.data());
  if (int bad = v.MeasureEnergy(); bad >= 0) return bad;
  out->measured.energy = v.TotalEnergy();
  v.Code(effort);
  float wanted[kN], scales[kN], largest = 0;
  for (uint32_t t = 0; t < kN; ++t) {
    float along = v.Along(t, book.bits());
    wanted[t] = along > 0 ? along / v.Square(t) : 0;
    largest = std::max(largest, wanted[t]);
  }
  out->scale_base = ToBf16(largest);
  float base = FromBf16(out->scale_base);
  for (uint32_t t = 0; t < kN; ++t) {
    double steps = -16 * std::log2(static_cast<double>(wanted[t]) / base);
    bool some = wanted[t] > ValueScale(base, 254) / 2;
    out->scale_codes[t] = static_cast<uint8_t>(some ? std::lrint(std::clamp(steps, 0.0, 254.0)) : 255);
    scales[t] = ValueScale(base, out->scale_codes[t]);
    if (HasLevel(book.bits(), 3)) out->corrections[t] = Correction(wanted[t], scales[t]);
  }
  for (int level = 0; level < kTqLevels; ++level) {
    if (!HasLevel(book.bits(), level)) {
      out->measured.error[level] = out->measured.error[level - 1];
      continue;
    }
    if (level == 3) {
      for (uint32_t t = 0; t < kN; ++t) scales[t] = Corrected(scales[t], out->corrections[t]);
    }
    out->measured.error[level] = v.Error(KeptBits(book.bits(), level), scales);
  }
  Pack(FragmentOrder::kValue, book.dim(), book.bits(), v.codes.data(), planes);
  return -1;
}

void DecodeHead(const Rotation* rotation, const Codebook& book, int kept, FragmentOrder order,
                const ConstPlanePointers& planes, const float* scales, const float* mean,
                uint32_t first_token, const MutableHeadRows& rows) {
  uint32_t dim = book.dim();
  std::vector<uint8_t> codes(dim * kN);
  std::vector<float> y(dim * kN);
  Unpack(order, dim, kept, planes, codes.data());
  for (uint32_t c = 0; c < dim; ++c) {
    for (uint32_t t = 0; t < kN; ++t) {
      y[c * kN + t] = scales[t] * book.table(kept)[codes[c * kN + t]];
      if (mean != nullptr) y[c * kN + t] += mean[c];
    }
  }
  if (rotation != nullptr) rotation->ApplyTransposed(y.data());
  for (uint32_t t = first_token; t < kN; ++t) {
    for (uint32_t c = 0; c < dim; ++c) {
      StoreElement(rows.dtype, rows.data, static_cast<size_t>(t * rows.token_stride) + c, y[c * kN + t]);
    }
  }
}

}  // namespace quire::reference
