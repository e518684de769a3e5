// Inside gateway/http: one client's connection, whatever it runs over.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "gateway/http/server.h"

namespace quire::gateway::http {

// What all connections of a server share. Outlives them.
struct ConnectionContext {
  Limits limits;
  Handler handler;
  std::function<Response(int, const std::string&)> refusal;
  std::atomic<bool> draining = false;
};

// All methods may come from any thread; what they do happens on the connection's strand.
class Connection {
 public:
  virtual ~Connection() = default;

  // Serves until the connection ends, then calls `closed`, once.
  virtual void Start(std::function<void()> closed) = 0;
  // The context began to drain: an idle connection closes now, a busy one after its answer.
  virtual void Drain() = 0;
  // Closes now; a running handler sees its client gone.
  virtual void Abort() = 0;
  // Called every now and then: ends an operation that is past its deadline.
  virtual void CheckDeadline(std::chrono::steady_clock::time_point now) = 0;
};

std::shared_ptr<Connection> NewTcpConnection(boost::asio::ip::tcp::socket socket,
                                             std::shared_ptr<ConnectionContext> context);
std::shared_ptr<Connection> NewTlsConnection(boost::asio::ip::tcp::socket socket,
                                             std::shared_ptr<boost::asio::ssl::context> tls,
                                             std::shared_ptr<ConnectionContext> context);

}  // namespace quire::gateway::http
