// The disk tier's parts on their own.
#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "services/store/disk/garbage.h"
#include "services/store/disk/readers.h"

namespace quire::store {
namespace {

TEST(FilesToRewrite, TakesTheFewestOldestThatFreeEnough) {
  std::vector<BlobFile> files = {{100, 50}, {100, 0}, {100, 30}, {100, 100}};
  EXPECT_EQ(FilesToRewrite(files, 0, 1000), 0u);
  EXPECT_EQ(FilesToRewrite(files, 50, 1000), 1u);
  EXPECT_EQ(FilesToRewrite(files, 51, 1000), 3u);
  EXPECT_EQ(FilesToRewrite(files, 81, 1000), 4u);
  EXPECT_EQ(FilesToRewrite(files, 1000, 1000), 4u);  // all there is
}

TEST(FilesToRewrite, StopsAtTheMostThatARoundMayRewrite) {
  std::vector<BlobFile> files = {{100, 10}, {100, 0}, {100, 10}, {100, 10}};
  EXPECT_EQ(FilesToRewrite(files, 30, 300), 3u);
  EXPECT_EQ(FilesToRewrite(files, 30, 250),
            1u);                                // a file that frees nothing is not worth its place at the end
  EXPECT_EQ(FilesToRewrite(files, 30, 1), 1u);  // yet one
}

TEST(FilesToRewrite, LiveFilesBeforeTheFirstGarbageAreTakenAlong) {
  std::vector<BlobFile> files = {{100, 0}, {100, 0}, {100, 70}};
  EXPECT_EQ(FilesToRewrite(files, 10, 150), 3u);
  EXPECT_EQ(FilesToRewrite(std::vector<BlobFile>(3, {100, 0}), 10, 150), 0u);
  EXPECT_EQ(FilesToRewrite({}, 10, 150), 0u);
}

TEST(Readers, CallEachIndexOnceForManyCallers) {
  for (int threads : {0, 1, 3}) {
    Readers readers(threads);
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; ++c) {
      callers.emplace_back([&] {
        for (size_t n : {0, 1, 2, 7, 100}) {
          std::vector<std::atomic<int>> calls(n);
          readers.Run(n, [&](size_t i) { ++calls[i]; });
          for (auto& count : calls) EXPECT_EQ(count, 1);
        }
      });
    }
    for (std::thread& t : callers) t.join();
  }
}

// Calls of one batch run at the same time: each waits for all.
TEST(Readers, WorkSideBySide) {
  Readers readers(3);
  std::atomic<int> arrived{0};
  readers.Run(4, [&](size_t) {
    ++arrived;
    while (arrived < 4) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 4);
}

}  // namespace
}  // namespace quire::store
