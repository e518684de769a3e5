#include "services/worker/engine/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "absl/synchronization/notification.h"

namespace quire::worker {
namespace {

// OpenMP's idle threads spin for milliseconds before they sleep, and where another thread or process wants
// their core that makes everybody wait, ourselves ten-fold. libgomp keeps it to a moment once a process has
// more of its threads than cores, and has no call to ask for it, only an environment read before main. So one
// more team exists that never works. Where fewer threads than cores are wanted the spinning stays, and hurts
// nobody.
void ParkSpareTeam() {
  std::thread([] {
    at::init_num_threads();
    at::parallel_for(0, at::get_num_threads(), 1, [](int64_t, int64_t) {});
    static auto* forever = new absl::Notification;  // never destroyed: the thread outlives main
    forever->WaitForNotification();
  }).detach();
}

}  // namespace

void ParallelFor(int64_t n, absl::FunctionRef<void(int64_t)> body) {
  const int64_t workers = std::min<int64_t>(n, at::get_num_threads());
  if (workers <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) body(i);
    }
  });
}

int Threads() { return at::get_num_threads(); }

void SetThreads(int threads) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  at::set_num_threads(threads);
  static std::once_flag once;
  std::call_once(once, ParkSpareTeam);
}

}  // namespace quire::worker
