// How another thread wakes a coroutine.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <mutex>

#include "absl/functional/any_invocable.h"

namespace quire::gateway {

// An event with a memory of one: a Notify before the Wait is not lost, several count once. Notify may come
// from any thread; one coroutine may wait at a time. Whoever destroys a Wakeup must have seen its last Wait
// return: the waiting coroutine is owned by the handler kept here.
class Wakeup {
 public:
  Wakeup() = default;
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  void Notify();
  // Resumes on the coroutine's own executor.
  boost::asio::awaitable<void> Wait();

 private:
  bool Consume();

  std::mutex mutex_;
  bool notified_ = false;
  absl::AnyInvocable<void()> waiter_;  // posts the waiting coroutine's resumption
};

}  // namespace quire::gateway
