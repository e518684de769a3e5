// An HTTP/1.1 server of coroutines: keep-alive, limits, streamed answers with back-pressure, disconnects
// noticed while an answer is in the making. It knows nothing of OpenAI; Beast's headers stay inside this
// folder.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace boost::asio {
class io_context;
}

namespace quire::gateway::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;  // as sent: "GET"
  std::string path;    // starts with '/'; still percent-encoded
  std::string query;   // without '?'
  Headers headers;     // names as sent
  std::string body = {};
  std::string peer;                                // the client's address
  std::chrono::steady_clock::time_point received;  // when its first byte was there

  // The first header of that name (any case), or nullptr.
  const std::string* Header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  Headers headers = {};  // values must hold no line breaks
  std::string body = {};
};

// One request's answer: either Send once, or StartStream, Write any number of times, FinishStream. All calls
// come from the handler's coroutine.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual boost::asio::awaitable<void> Send(Response response) = 0;

  // The head goes out with the first Write.
  virtual void StartStream(int status, std::string_view content_type, const Headers& headers) = 0;
  // Returns when the system took the bytes, so a slow reader slows the caller. false: the client is gone,
  // stop.
  virtual boost::asio::awaitable<bool> Write(std::string_view data) = 0;
  // As Write (data may be empty), then ends the answer. An answer never finished closes the connection, so
  // that the client sees that it was cut.
  virtual boost::asio::awaitable<bool> FinishStream(std::string_view data) = 0;

  // Calls back at once (on the connection's strand) when the client closes or resets the connection before
  // the answer is finished; at most once. A client that closes only its sending side counts as gone, as nginx
  // has it.
  virtual void OnDisconnect(std::function<void()> gone) = 0;
};

using Handler = std::function<boost::asio::awaitable<void>(Request, Exchange&)>;

struct Limits {
  size_t header_bytes = 32 << 10;          // over it 431
  size_t body_bytes = 8 << 20;             // over it 413
  size_t connections = 16384;              // at a time; over it a new one is closed at once
  std::chrono::milliseconds idle{75'000};  // between requests
  std::chrono::milliseconds header_time{
      10'000};  // from a request's first byte to the end of its header, then 408
  std::chrono::milliseconds body_time{60'000};  // to the end of its body, then 408
  std::chrono::milliseconds write_time{
      60'000};  // a write that moves nothing for so long closes the connection
  std::chrono::milliseconds linger{
      2'000};  // how long a refused body is read and dropped, so that the refusal arrives
};

struct ServerOptions {
  std::string listen = "127.0.0.1:0";  // host:port, [v6]:port; port 0 picks one
  std::string certificate, key;        // PEM files; both set: TLS. Re-read when they change.
  std::string client_ca;               // PEM file; set: clients must show a certificate signed by it
  Limits limits;
  // Makes the answer to a request that never reaches the handler: malformed, too large, too slow, or the
  // handler threw.
  std::function<Response(int status, const std::string& message)> refusal;
};

// Thread-safe. Runs on the io_context, which must outlive it and must be running until Shutdown returned.
class Server {
 public:
  static absl::StatusOr<std::unique_ptr<Server>> Start(boost::asio::io_context& io, ServerOptions options,
                                                       Handler handler);
  ~Server();  // Shutdown(0) if not done

  int port() const;
  const std::string& address() const;  // host:port with the real port
  size_t connections() const;

  // Takes no more connections, closes idle ones, lets running requests finish until the deadline, then cuts
  // them. Blocks; not for the io_context's own threads. Afterwards no handler runs.
  void Shutdown(std::chrono::milliseconds deadline);

 private:
  class Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace quire::gateway::http
