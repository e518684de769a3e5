#include "services/worker/eval/plot.h"

#include <cairo.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

namespace quire::worker {
namespace {

class PlotTest : public testing::Test {
 protected:
  void SetUp() override { path_ = testing::TempDir() + "plot_" + std::to_string(getpid()) + ".png"; }
  void TearDown() override { std::remove(path_.c_str()); }
  std::string path_;
};

struct Spot {
  double x = 0, y = 0;
  int pixels = 0;
};

// Centres of what is plainly one colour, by colour: 7 × 7 pixels of it, which only markers have.
std::map<uint32_t, Spot> Markers(const std::string& path) {
  cairo_surface_t* image = cairo_image_surface_create_from_png(path.c_str());
  EXPECT_EQ(cairo_surface_status(image), CAIRO_STATUS_SUCCESS);
  const int width = cairo_image_surface_get_width(image), height = cairo_image_surface_get_height(image);
  const int stride = cairo_image_surface_get_stride(image);
  const unsigned char* data = cairo_image_surface_get_data(image);
  EXPECT_EQ(width, 1200);
  EXPECT_EQ(height, 800);
  auto pixel = [&](int x, int y) {
    return reinterpret_cast<const uint32_t*>(data + y * stride)[x] & 0xFFFFFF;
  };
  std::map<uint32_t, Spot> spots;
  for (int y = 3; y + 3 < height; ++y) {
    for (int x = 3; x + 3 < width; ++x) {
      const uint32_t colour = pixel(x, y);
      bool plain = colour != 0xFFFFFF;
      for (int i = 0; plain && i < 49; ++i) plain = pixel(x + i % 7 - 3, y + i / 7 - 3) == colour;
      if (!plain) continue;
      Spot& spot = spots[colour];
      spot.x += x;
      spot.y += y;
      ++spot.pixels;
    }
  }
  for (auto& [colour, spot] : spots) {
    spot.x /= spot.pixels;
    spot.y /= spot.pixels;
  }
  cairo_surface_destroy(image);
  return spots;
}

// Three families at (2, 1e-1), (4, 1e-3), (6, 1e-2): the axes are linear and logarithmic.
TEST_F(PlotTest, MarkersStandWhereTheNumbersSay) {
  ASSERT_TRUE(WritePlot(path_, "a title", {{"a:1", 2, 1e-1}, {"b:1", 4, 1e-3}, {"c", 6, 1e-2}}).ok());
  const std::map<uint32_t, Spot> spots = Markers(path_);
  ASSERT_EQ(spots.size(), 3u);
  const Spot *a = nullptr, *b = nullptr, *c = nullptr;
  for (const auto& [colour, spot] : spots) {
    (a == nullptr || spot.x < a->x) ? a = &spot : nullptr;
    (c == nullptr || spot.x > c->x) ? c = &spot : nullptr;
  }
  for (const auto& [colour, spot] : spots) {
    if (&spot != a && &spot != c) b = &spot;
  }
  ASSERT_NE(b, nullptr);
  EXPECT_NEAR(b->x - a->x, c->x - b->x, 1.5);
  EXPECT_NEAR((b->y - a->y) / 2, b->y - c->y, 1.5);
  EXPECT_GT(b->y, a->y) << "less divergence is lower";
}

TEST_F(PlotTest, TakesWhatHasNoLogarithm) {
  EXPECT_TRUE(WritePlot(path_, "", {{"raw", 16, 0}}).ok());
  EXPECT_TRUE(WritePlot(path_, "", {{"raw", 16, 0}, {"bf16", 12, -1e-9}, {"q4_0", 4.5, 0.1}}).ok());
  EXPECT_EQ(Markers(path_).size(), 3u);
}

TEST_F(PlotTest, NamesAFileThatCanNotBeWritten) {
  const absl::Status status = WritePlot("/nonexistent/plot.png", "", {{"raw", 16, 1e-3}});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/nonexistent/plot.png"));
}

TEST(Family, EndsBeforeBits) {
  EXPECT_EQ(PlotFamily("tq:k4v4@3"), "tq");
  EXPECT_EQ(PlotFamily("turboquant:4"), "turboquant");
  EXPECT_EQ(PlotFamily("q4_0"), "q4_0");
  EXPECT_EQ(PlotFamily("policy (3.50 bits)"), "policy ");
}

}  // namespace
}  // namespace quire::worker
