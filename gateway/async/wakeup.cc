#include "gateway/async/wakeup.h"

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

namespace quire::gateway {
namespace asio = boost::asio;

void Wakeup::Notify() {
  absl::AnyInvocable<void()> resume;
  {
    std::lock_guard lock(mutex_);
    if (!waiter_) {
      notified_ = true;
      return;
    }
    resume = std::move(waiter_);
    waiter_ = nullptr;
  }
  resume();
}

bool Wakeup::Consume() {
  std::lock_guard lock(mutex_);
  return std::exchange(notified_, false);
}

asio::awaitable<void> Wakeup::Wait() {
  if (Consume()) co_return;
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [this](auto handler) {
        std::unique_lock lock(mutex_);
        if (!std::exchange(notified_, false)) {
          waiter_ = [handler = std::move(handler)]() mutable { asio::post(std::move(handler)); };
          return;
        }
        lock.unlock();
        asio::post(std::move(handler));
      },
      asio::use_awaitable);
}

}  // namespace quire::gateway
