#include "services/worker/eval/plot.h"

#include <cairo.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::worker {
namespace {

constexpr double kWidth = 1200, kHeight = 800, kLeft = 100, kRight = 40, kTop = 60, kBottom = 80;
constexpr double kRadius = 5, kLabelGap = 8;

struct Colour {
  double r, g, b;
};
// Okabe and Ito's, which colour-blind people tell apart too.
constexpr std::array<Colour, 7> kColours = {{{0.00, 0.45, 0.70},
                                             {0.84, 0.37, 0.00},
                                             {0.00, 0.62, 0.45},
                                             {0.80, 0.47, 0.65},
                                             {0.34, 0.71, 0.91},
                                             {0.90, 0.62, 0.00},
                                             {0.25, 0.25, 0.25}}};

struct Box {
  double x, y, w, h;
  double Overlap(const Box& o) const {
    const double dx = std::min(x + w, o.x + o.w) - std::max(x, o.x);
    const double dy = std::min(y + h, o.y + o.h) - std::max(y, o.y);
    return dx > 0 && dy > 0 ? dx * dy : 0;
  }
};

// What part of the data the frame shows: whole bits by whole decades.
struct Axes {
  double bits_low, bits_high, decade_low, decade_high;

  explicit Axes(const std::vector<PlotPoint>& points) {
    double least = HUGE_VAL, most = 0, low = HUGE_VAL, high = 0;
    for (const PlotPoint& p : points) {
      least = std::min(least, p.bits);
      most = std::max(most, p.bits);
      if (p.kl <= 0) continue;
      low = std::min(low, p.kl);
      high = std::max(high, p.kl);
    }
    if (high == 0) low = high = 1e-6;
    bits_low = std::floor(least - 0.25);
    bits_high = std::ceil(most + 0.25);
    decade_low = std::floor(std::log10(low) - 0.1);
    decade_high = std::ceil(std::log10(high) + 0.1);
  }
  double X(double bits) const {
    return kLeft + (bits - bits_low) / (bits_high - bits_low) * (kWidth - kLeft - kRight);
  }
  double Y(double kl) const {
    const double decade = kl > 0 ? std::max(decade_low, std::log10(kl)) : decade_low;
    return kTop + (decade_high - decade) / (decade_high - decade_low) * (kHeight - kTop - kBottom);
  }
};

enum class Align { kLeft, kCentre, kRight };

class Chart {
 public:
  explicit Chart(const Axes& axes)
      : axes_(axes),
        surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kWidth),
                                            static_cast<int>(kHeight))),
        cr_(cairo_create(surface_.get())) {
    Paint({1, 1, 1});
    cairo_paint(cr_.get());
    cairo_select_font_face(cr_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr_.get(), 14);
  }

  void Frame(const std::string& title);
  void Lines(const std::map<std::string, std::vector<PlotPoint>>& families);
  void Marker(const PlotPoint& point, const Colour& colour);
  // Beside the marker, where it covers the least of what is there.
  void Label(const PlotPoint& point, const Colour& colour);
  void Reserve(const PlotPoint& point) {
    const double r = kRadius + 2;
    taken_.push_back({axes_.X(point.bits) - r, axes_.Y(point.kl) - r, 2 * r, 2 * r});
  }
  absl::Status Write(const std::string& path) const {
    const cairo_status_t status = cairo_surface_write_to_png(surface_.get(), path.c_str());
    if (status == CAIRO_STATUS_SUCCESS) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat(path, ": the plot can't be written: ", cairo_status_to_string(status)));
  }

 private:
  void Paint(const Colour& c) { cairo_set_source_rgb(cr_.get(), c.r, c.g, c.b); }
  void Line(double x0, double y0, double x1, double y1) {
    cairo_move_to(cr_.get(), x0, y0);
    cairo_line_to(cr_.get(), x1, y1);
    cairo_stroke(cr_.get());
  }
  double TextWidth(const std::string& text) const {
    cairo_text_extents_t extents;
    cairo_text_extents(cr_.get(), text.c_str(), &extents);
    return extents.x_advance;
  }
  void Text(double x, double y, const std::string& text, Align align) {
    const double width = TextWidth(text);
    cairo_move_to(cr_.get(),
                  x - (align == Align::kCentre  ? width / 2
                       : align == Align::kRight ? width
                                                : 0),
                  y);
    cairo_show_text(cr_.get(), text.c_str());
  }

  struct Free {
    void operator()(cairo_surface_t* s) const { cairo_surface_destroy(s); }
    void operator()(cairo_t* c) const { cairo_destroy(c); }
  };
  const Axes axes_;
  std::unique_ptr<cairo_surface_t, Free> surface_;
  std::unique_ptr<cairo_t, Free> cr_;
  std::vector<Box> taken_;
};

void Chart::Frame(const std::string& title) {
  cairo_set_line_width(cr_.get(), 1);
  const double foot = kHeight - kBottom, right = kWidth - kRight;
  for (double bits = axes_.bits_low; bits <= axes_.bits_high; ++bits) {
    Paint({0.87, 0.87, 0.87});
    Line(axes_.X(bits), kTop, axes_.X(bits), foot);
    Paint({0.2, 0.2, 0.2});
    Text(axes_.X(bits), foot + 22, absl::StrFormat("%g", bits), Align::kCentre);
  }
  for (double decade = axes_.decade_low; decade <= axes_.decade_high; ++decade) {
    const double y = axes_.Y(std::pow(10.0, decade));
    Paint({0.87, 0.87, 0.87});
    Line(kLeft, y, right, y);
    Paint({0.2, 0.2, 0.2});
    Text(kLeft - 10, y + 5, absl::StrFormat("1e%g", decade), Align::kRight);
  }
  Paint({0.2, 0.2, 0.2});
  Text((kLeft + right) / 2, kHeight - 28, "bits an element of K and V, everything counted", Align::kCentre);
  cairo_save(cr_.get());
  cairo_translate(cr_.get(), 28, (kTop + foot) / 2);
  cairo_rotate(cr_.get(), -std::acos(-1.0) / 2);
  Text(0, 0, "mean KL divergence from the uncoded run, nats", Align::kCentre);
  cairo_restore(cr_.get());
  cairo_set_font_size(cr_.get(), 18);
  Text(kLeft, 36, title, Align::kLeft);
  cairo_set_font_size(cr_.get(), 14);
}

void Chart::Marker(const PlotPoint& point, const Colour& colour) {
  cairo_new_path(cr_.get());
  cairo_arc(cr_.get(), axes_.X(point.bits), axes_.Y(point.kl), kRadius, 0, 2 * std::acos(-1.0));
  Paint(point.label.find('@') == std::string::npos ? colour : Colour{1, 1, 1});
  cairo_fill_preserve(cr_.get());
  Paint(colour);
  cairo_set_line_width(cr_.get(), 2);
  cairo_stroke(cr_.get());
}

void Chart::Label(const PlotPoint& point, const Colour& colour) {
  const double width = TextWidth(point.label), height = 15;
  const double x = axes_.X(point.bits), y = axes_.Y(point.kl), far = kRadius + kLabelGap;
  Box best{};
  double least = HUGE_VAL;
  for (double up = 0; up <= 4; ++up) {
    for (const double down : {-up, up}) {
      const double top = y - height / 2 + down * height;
      for (const Box& box : {Box{x + far, top, width, height}, Box{x - far - width, top, width, height},
                             Box{x - width / 2, top, width, height}}) {
        const Box inside{kLeft, kTop - height, kWidth - kLeft - 4, kHeight - kBottom - kTop + height};
        double cost = (width * height - box.Overlap(inside)) * 4 + up;
        for (const Box& other : taken_) cost += box.Overlap(other);
        if (cost >= least) continue;
        least = cost;
        best = box;
      }
    }
  }
  taken_.push_back(best);
  Paint(colour);
  Text(best.x, best.y + height - 4, point.label, Align::kLeft);
}

void Chart::Lines(const std::map<std::string, std::vector<PlotPoint>>& families) {
  cairo_new_path(cr_.get());
  cairo_set_line_width(cr_.get(), 1.5);
  size_t number = 0;
  for (const auto& [name, points] : families) {
    Paint(kColours[number++ % kColours.size()]);
    bool begun = false;
    for (const PlotPoint& p : points) {
      if (p.label.find('@') != std::string::npos) continue;
      begun ? cairo_line_to(cr_.get(), axes_.X(p.bits), axes_.Y(p.kl))
            : cairo_move_to(cr_.get(), axes_.X(p.bits), axes_.Y(p.kl));
      begun = true;
    }
    cairo_stroke(cr_.get());
  }
}

}  // namespace

std::string PlotFamily(const std::string& label) { return label.substr(0, label.find_first_of(":@(")); }

absl::Status WritePlot(const std::string& path, const std::string& title,
                       const std::vector<PlotPoint>& points) {
  std::map<std::string, std::vector<PlotPoint>> families;
  for (const PlotPoint& point : points) families[PlotFamily(point.label)].push_back(point);
  Chart chart{Axes(points)};
  chart.Frame(title);
  for (auto& [name, members] : families) {
    std::stable_sort(members.begin(), members.end(),
                     [](const PlotPoint& a, const PlotPoint& b) { return a.bits < b.bits; });
    for (const PlotPoint& point : members) chart.Reserve(point);
  }
  chart.Lines(families);
  size_t number = 0;
  for (const auto& [name, members] : families) {
    const Colour& colour = kColours[number++ % kColours.size()];
    for (const PlotPoint& point : members) chart.Marker(point, colour);
    for (const PlotPoint& point : members) chart.Label(point, colour);
  }
  return chart.Write(path);
}

}  // namespace quire::worker
