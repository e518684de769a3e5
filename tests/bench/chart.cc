#include "tests/bench/chart.h"

#include <cairo.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::bench {
namespace {

constexpr int kWidth = 1100, kHeight = 640, kLeft = 80, kRight = 330, kTop = 60, kBottom = 60;
constexpr double kColours[][3] = {{.12, .47, .71}, {.84, .15, .16}, {.17, .63, .17}, {1., .5, .05},
                                  {.58, .4, .74},  {.55, .34, .29}, {.89, .47, .76}, {.09, .75, .81},
                                  {.74, .74, .13}, {.3, .3, .3}};

// The least of 1, 2 and 5 times a power of ten that cuts `range` into at most `most` steps.
double Step(double range, int most) {
  double power = std::pow(10, std::floor(std::log10(range / most)));
  for (double factor : {1., 2., 5.}) {
    if (range / (factor * power) <= most) return factor * power;
  }
  return 10 * power;
}

class Chart {
 public:
  Chart()
      : surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, kWidth, kHeight)),
        c_(cairo_create(surface_)) {
    cairo_set_source_rgb(c_, 1, 1, 1);
    cairo_paint(c_);
    cairo_select_font_face(c_, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  }
  ~Chart() {
    cairo_destroy(c_);
    cairo_surface_destroy(surface_);
  }
  Chart(const Chart&) = delete;

  void Fit(const std::vector<ChartLine>& lines) {
    for (const ChartLine& line : lines) {
      for (auto [x, y] : line.points) x_max_ = std::max(x_max_, x), y_max_ = std::max(y_max_, y);
    }
    x_max_ = x_max_ > 0 ? 1.05 * x_max_ : 1, y_max_ = y_max_ > 0 ? 1.1 * y_max_ : 1;
  }

  void Axes(const std::string& title, const std::string& x_label, const std::string& y_label) {
    Text(kLeft, kTop - 25, title, 16, 0);
    Text(kLeft + PlotWidth() / 2, kHeight - 15, x_label, 13, .5);
    Text(kLeft - 60, kTop - 8, y_label, 13, 0);
    double x_step = Step(x_max_, 10), y_step = Step(y_max_, 8);
    for (double x = 0; x <= x_max_; x += x_step) {
      Line(X(x), Y(0), X(x), Y(y_max_), .9);
      Text(X(x), Y(0) + 20, absl::StrFormat("%g", std::round(x * 1e6) / 1e6), 12, .5);
    }
    for (double y = 0; y <= y_max_; y += y_step) {
      Line(X(0), Y(y), X(x_max_), Y(y), .9);
      Text(X(0) - 8, Y(y) + 4, absl::StrFormat("%g", std::round(y * 1e6) / 1e6), 12, 1);
    }
    Line(X(0), Y(0), X(x_max_), Y(0), 0);
    Line(X(0), Y(0), X(0), Y(y_max_), 0);
  }

  void Draw(const ChartLine& line, size_t number) {
    const double* rgb = kColours[number % std::size(kColours)];
    const double dashes[] = {7, 4};
    cairo_set_source_rgb(c_, rgb[0], rgb[1], rgb[2]);
    cairo_set_line_width(c_, 2);
    cairo_set_dash(c_, dashes, line.dashed ? 2 : 0, 0);
    for (auto [x, y] : line.points) cairo_line_to(c_, X(x), Y(y));
    cairo_stroke(c_);
    double at = kTop + 22. * static_cast<double>(number), left = kWidth - kRight + 20;
    cairo_move_to(c_, left, at);
    cairo_line_to(c_, left + 28, at);
    cairo_stroke(c_);
    cairo_set_dash(c_, dashes, 0, 0);
    for (auto [x, y] : line.points) {
      cairo_arc(c_, X(x), Y(y), 3.5, 0, 2 * M_PI);
      cairo_fill(c_);
    }
    Text(left + 36, at + 4, line.label, 12, 0);
  }

  absl::Status Write(const std::string& path) {
    cairo_status_t status = cairo_surface_write_to_png(surface_, path.c_str());
    if (status == CAIRO_STATUS_SUCCESS) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", cairo_status_to_string(status)));
  }

 private:
  static double PlotWidth() { return kWidth - kLeft - kRight; }
  double X(double x) const { return kLeft + x / x_max_ * PlotWidth(); }
  double Y(double y) const { return kHeight - kBottom - y / y_max_ * (kHeight - kTop - kBottom); }
  void Line(double x0, double y0, double x1, double y1, double grey) {
    cairo_set_source_rgb(c_, grey, grey, grey);
    cairo_set_line_width(c_, 1);
    cairo_move_to(c_, x0, y0);
    cairo_line_to(c_, x1, y1);
    cairo_stroke(c_);
  }
  // `anchor`: 0 begins at x, 1 ends there.
  void Text(double x, double y, const std::string& text, double size, double anchor) {
    cairo_text_extents_t extents;
    cairo_set_source_rgb(c_, .1, .1, .1);
    cairo_set_font_size(c_, size);
    cairo_text_extents(c_, text.c_str(), &extents);
    cairo_move_to(c_, x - anchor * extents.x_advance, y);
    cairo_show_text(c_, text.c_str());
    cairo_new_path(c_);
  }

  cairo_surface_t* surface_;
  cairo_t* c_;
  double x_max_ = 0, y_max_ = 0;
};

}  // namespace

absl::Status WriteChart(const std::string& path, const std::string& title, const std::string& x_label,
                        const std::string& y_label, const std::vector<ChartLine>& lines) {
  Chart chart;
  chart.Fit(lines);
  chart.Axes(title, x_label, y_label);
  for (size_t i = 0; i < lines.size(); ++i) chart.Draw(lines[i], i);
  return chart.Write(path);
}

}  // namespace quire::bench
