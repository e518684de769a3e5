// Inside gateway/http: the connection as a template over its stream (a TCP socket, or TLS over one).
//
// Everything here runs on one strand, the socket's executor. At most one read and one write are under way.
// The read is either the request parser's or, while an answer is made, the watch's: a pending read that sees
// the client go. What the watch reads (a pipelined request) is kept in buffer_. A watch still pending when
// the answer is finished becomes the wait for the next request.
#pragma once

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>

#include "gateway/async/wakeup.h"
#include "gateway/http/connection.h"
#include "gateway/http/wire.h"

namespace quire::gateway::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
using Clock = std::chrono::steady_clock;
using boost::system::error_code;

inline constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

template <typename Stream>
class StreamConnection : public Connection,
                         public Exchange,
                         public std::enable_shared_from_this<StreamConnection<Stream>> {
 public:
  template <typename... Args>
  StreamConnection(std::shared_ptr<ConnectionContext> context, Args&&... args)
      : context_(std::move(context)), stream_(std::forward<Args>(args)...) {
    error_code ec;
    peer_ = Socket().remote_endpoint(ec).address().to_string(ec);
  }

  // Connection
  void Start(std::function<void()> closed) override;
  void Drain() override;
  void Abort() override;
  void CheckDeadline(Clock::time_point now) override;

  // Exchange
  asio::awaitable<void> Send(Response response) override;
  void StartStream(int status, std::string_view content_type, const Headers& headers) override;
  asio::awaitable<bool> Write(std::string_view data) override;
  asio::awaitable<bool> FinishStream(std::string_view data) override;
  void OnDisconnect(std::function<void()> gone) override;

 private:
  using Parser = beast::http::request_parser<beast::http::string_body>;
  enum class Answer { kNone, kStreaming, kDone };

  asio::ip::tcp::socket& Socket() {
    if constexpr (std::is_same_v<Stream, asio::ip::tcp::socket>) {
      return stream_;
    } else {
      return stream_.next_layer();
    }
  }
  auto Self() { return this->shared_from_this(); }
  void SetDeadline(std::chrono::milliseconds after) {
    deadline_.store((Clock::now() + after).time_since_epoch().count());
  }
  void ClearDeadline() { deadline_.store(kNever); }

  asio::awaitable<void> Run();
  asio::awaitable<bool> Handshake();       // by stream type
  asio::awaitable<void> ShutdownStream();  // by stream type
  asio::awaitable<bool> ServeOne();
  asio::awaitable<bool> WaitForBytes();
  asio::awaitable<bool> ReadHeader(Parser& parser);
  asio::awaitable<bool> ReadBody(Parser& parser);
  asio::awaitable<bool> CheckHeader(const Parser& parser);
  asio::awaitable<void> RefuseFor(error_code ec);
  asio::awaitable<void> Refuse(int status, std::string message);
  asio::awaitable<bool> TakeRequest(Parser& parser, Request* request);
  asio::awaitable<void> Handle(Request request);
  asio::awaitable<bool> WriteAll(std::string_view data);
  void Watch();
  void ClientGone();
  void CloseSocket();

  static constexpr int64_t kNever = INT64_MAX;

  const std::shared_ptr<ConnectionContext> context_;
  Stream stream_;
  std::string peer_;
  beast::flat_buffer buffer_;               // bytes read and not yet parsed
  std::atomic<int64_t> deadline_ = kNever;  // of the operation under way, in the clock's ticks
  bool timed_out_ = false;
  bool broken_ = false;  // nothing more can be sent
  bool idle_ = false;    // between requests

  // The answer under way.
  Answer answer_ = Answer::kDone;
  bool keep_alive_ = false;
  bool head_only_ = false;  // HEAD: the body is left out
  bool chunked_ = false;    // else (HTTP/1.0) a stream ends with the connection
  std::string out_;         // bytes to go out with the next write

  // The watch.
  bool watching_ = false;
  std::array<char, 512> watch_bytes_;
  Wakeup watch_ended_;
  std::function<void()> gone_;
};

template <typename Stream>
void StreamConnection<Stream>::Start(std::function<void()> closed) {
  asio::co_spawn(
      Socket().get_executor(), [self = Self()]() { return self->Run(); },
      [self = Self(), closed = std::move(closed)](std::exception_ptr) {
        self->CloseSocket();
        closed();
      });
}

template <typename Stream>
void StreamConnection<Stream>::Drain() {
  asio::post(Socket().get_executor(), [self = Self()] {
    if (self->idle_) self->CloseSocket();
  });
}

template <typename Stream>
void StreamConnection<Stream>::Abort() {
  asio::post(Socket().get_executor(), [self = Self()] {
    self->CloseSocket();
    self->ClientGone();
  });
}

template <typename Stream>
void StreamConnection<Stream>::CheckDeadline(Clock::time_point now) {
  if (now.time_since_epoch().count() < deadline_.load()) return;
  asio::post(Socket().get_executor(), [self = Self()] {
    // The operation may have ended, and another begun, in the meantime.
    if (Clock::now().time_since_epoch().count() < self->deadline_.load()) return;
    self->timed_out_ = true;
    self->ClearDeadline();
    error_code ec;
    self->Socket().cancel(ec);
  });
}

template <typename Stream>
asio::awaitable<void> StreamConnection<Stream>::Run() {
  // GCC 12 miscompiles a co_await in a loop's condition: here and elsewhere it stands in a statement of its
  // own.
  bool more = co_await Handshake();
  while (more) more = co_await ServeOne();
  if (!broken_) co_await ShutdownStream();
  CloseSocket();
  while (watching_) co_await watch_ended_.Wait();
}

// One request and its answer; false ends the connection.
template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::ServeOne() {
  Request request;
  {
    bool good = co_await WaitForBytes();
    if (!good) co_return false;
    Parser parser;  // freed before the answer is made: streams may be open for long
    request.received = Clock::now();
    good = co_await ReadHeader(parser);
    if (good) good = co_await CheckHeader(parser);
    if (good) good = co_await ReadBody(parser);
    if (good) good = co_await TakeRequest(parser, &request);
    if (!good) co_return false;
  }
  buffer_.shrink_to_fit();
  co_await Handle(std::move(request));
  gone_ = nullptr;
  co_return (answer_ == Answer::kDone) && keep_alive_ && !broken_;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::WaitForBytes() {
  if (watching_ && buffer_.size() > 0) {  // a pipelined request: the parser needs the socket for itself
    error_code ec;
    Socket().cancel(ec);
    while (watching_) co_await watch_ended_.Wait();
    if (broken_) co_return false;
  }
  if (buffer_.size() > 0) co_return true;
  if (context_->draining) co_return false;
  idle_ = true;
  SetDeadline(context_->limits.idle);
  if (watching_) {
    while (watching_) co_await watch_ended_.Wait();
  } else {
    auto [ec, n] = co_await stream_.async_read_some(buffer_.prepare(1024), kTuple);
    buffer_.commit(n);
  }
  ClearDeadline();
  idle_ = false;
  co_return buffer_.size() > 0 && !broken_;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::ReadHeader(Parser& parser) {
  answer_ = Answer::kNone;
  keep_alive_ = false;
  head_only_ = false;
  chunked_ = false;
  parser.header_limit(static_cast<uint32_t>(context_->limits.header_bytes));
  parser.body_limit(context_->limits.body_bytes);
  SetDeadline(context_->limits.header_time);
  auto [ec, n] = co_await beast::http::async_read_header(stream_, buffer_, parser, kTuple);
  ClearDeadline();
  if (!ec) co_return true;
  co_await RefuseFor(ec);
  co_return false;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::CheckHeader(const Parser& parser) {
  namespace http = beast::http;
  const auto& message = parser.get();
  head_only_ = message.method() == http::verb::head;
  if (message.version() != 10 && message.version() != 11) {
    co_await Refuse(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
    co_return false;
  }
  if (message.version() == 11 && message.count(http::field::host) != 1) {
    co_await Refuse(400, "A request needs exactly one Host header.");
    co_return false;
  }
  if (message.count(http::field::transfer_encoding) > 0 &&
      (message.version() == 10 || !beast::iequals(message[http::field::transfer_encoding], "chunked"))) {
    co_await Refuse(501, "The only transfer encoding understood is chunked, over HTTP/1.1.");
    co_return false;
  }
  auto coding = message[http::field::content_encoding];
  if (!coding.empty() && !beast::iequals(coding, "identity")) {
    co_await Refuse(415, "Compressed request bodies (Content-Encoding) are not supported.");
    co_return false;
  }
  auto expect = message[http::field::expect];
  if (!expect.empty() && !beast::iequals(expect, "100-continue")) {
    co_await Refuse(417, "The only expectation understood is 100-continue.");
    co_return false;
  }
  co_return true;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::ReadBody(Parser& parser) {
  if (parser.is_done()) co_return true;
  if (beast::iequals(parser.get()[beast::http::field::expect], "100-continue") &&
      parser.get().version() == 11 && buffer_.size() == 0) {
    const bool sent = co_await WriteAll("HTTP/1.1 100 Continue\r\n\r\n");
    if (!sent) co_return false;
  }
  if (parser.content_length().value_or(1 << 20) > (4 << 10))
    buffer_.reserve(64 << 10);  // large bodies in few reads
  SetDeadline(context_->limits.body_time);
  auto [ec, n] = co_await beast::http::async_read(stream_, buffer_, parser, kTuple);
  ClearDeadline();
  if (!ec) co_return true;
  co_await RefuseFor(ec);
  co_return false;
}

// What went wrong while reading becomes an answer, where there is still somebody to answer.
template <typename Stream>
asio::awaitable<void> StreamConnection<Stream>::RefuseFor(error_code ec) {
  using beast::http::error;
  if (timed_out_) {
    timed_out_ = false;
    co_await Refuse(408, "The request did not arrive in time.");
  } else if (ec == error::header_limit || ec == error::buffer_overflow) {
    co_await Refuse(431, "The request's header is larger than the limit of " +
                             std::to_string(context_->limits.header_bytes) + " bytes.");
  } else if (ec == error::body_limit) {
    co_await Refuse(413, "The request's body is larger than the limit of " +
                             std::to_string(context_->limits.body_bytes) + " bytes.");
  } else if (ec == error::end_of_stream || ec == error::partial_message ||
             ec.category() != make_error_code(error::bad_method).category()) {
    broken_ = true;  // closed or reset in the middle of a request
  } else {
    co_await Refuse(400, "The request is not valid HTTP/1.1: " + ec.message() + ".");
  }
}

template <typename Stream>
asio::awaitable<void> StreamConnection<Stream>::Refuse(int status, std::string message) {
  keep_alive_ = false;
  co_await Send(context_->refusal(status, message));
  if (broken_) co_return;
  // Closing with unread bytes would reset the connection, and the client might never see the answer: read on
  // for a little.
  error_code ec;
  Socket().shutdown(asio::socket_base::shutdown_send, ec);
  SetDeadline(context_->limits.linger);
  buffer_ = {};
  buffer_.reserve(16 << 10);
  while (!ec && !timed_out_) {
    auto [read_ec, n] = co_await Socket().async_read_some(buffer_.prepare(16 << 10), kTuple);
    ec = read_ec;
  }
  broken_ = true;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::TakeRequest(Parser& parser, Request* request) {
  auto message = parser.release();
  if (!SplitTarget({message.target().data(), message.target().size()}, &request->path, &request->query)) {
    co_await Refuse(400, "The request's target is not a path.");
    co_return false;
  }
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() == 11;
  request->method = std::string(message.method_string());
  request->peer = peer_;
  for (const auto& field : message) request->headers.emplace_back(field.name_string(), field.value());
  request->body = std::move(message.body());
  co_return true;
}

template <typename Stream>
asio::awaitable<void> StreamConnection<Stream>::Handle(Request request) {
  bool threw = false;
  try {
    co_await context_->handler(std::move(request), *this);
  } catch (...) {
    threw = true;
  }
  if (answer_ == Answer::kNone && !broken_) {
    const std::string message =
        threw ? "The server had an error while processing your request." : "The server made no answer.";
    co_await Send(context_->refusal(500, message));
  }
}

template <typename Stream>
asio::awaitable<void> StreamConnection<Stream>::Send(Response response) {
  if (answer_ != Answer::kNone) co_return;
  if (context_->draining) keep_alive_ = false;
  answer_ = Answer::kDone;
  out_.clear();
  AppendHead(response.status, response.content_type, response.headers,
             {.keep_alive = keep_alive_, .content_length = response.body.size()}, &out_);
  if (!head_only_) out_.append(response.body);
  co_await WriteAll(out_);
  out_ = {};
}

template <typename Stream>
void StreamConnection<Stream>::StartStream(int status, std::string_view content_type,
                                           const Headers& headers) {
  if (answer_ != Answer::kNone) return;
  if (context_->draining || !chunked_) keep_alive_ = false;
  answer_ = Answer::kStreaming;
  out_.clear();
  AppendHead(status, content_type, headers,
             {.keep_alive = keep_alive_, .content_length = {}, .chunked = chunked_}, &out_);
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::Write(std::string_view data) {
  if (answer_ != Answer::kStreaming || broken_) co_return false;
  if (!data.empty() && !head_only_) {
    if (chunked_) {
      AppendChunk(data, &out_);
    } else {
      out_.append(data);
    }
  }
  bool ok = co_await WriteAll(out_);
  out_.clear();
  if (out_.capacity() > (16 << 10)) out_.shrink_to_fit();
  co_return ok;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::FinishStream(std::string_view data) {
  if (answer_ != Answer::kStreaming || broken_) co_return false;
  if (!data.empty() && !head_only_) {
    if (chunked_) {
      AppendChunk(data, &out_);
    } else {
      out_.append(data);
    }
  }
  if (chunked_ && !head_only_) out_.append(kLastChunk);
  answer_ = Answer::kDone;
  bool ok = co_await WriteAll(out_);
  out_ = {};
  co_return ok;
}

template <typename Stream>
asio::awaitable<bool> StreamConnection<Stream>::WriteAll(std::string_view data) {
  if (broken_) co_return false;
  while (!data.empty()) {  // by hand, so that the deadline is about each step and not about the whole
    SetDeadline(context_->limits.write_time);
    auto [ec, n] = co_await stream_.async_write_some(asio::buffer(data), kTuple);
    ClearDeadline();
    if (ec) {
      broken_ = true;
      co_return false;
    }
    data.remove_prefix(n);
  }
  co_return true;
}

template <typename Stream>
void StreamConnection<Stream>::OnDisconnect(std::function<void()> gone) {
  gone_ = std::move(gone);
  if (broken_) {
    ClientGone();
  } else if (!watching_) {
    Watch();
  }
}

template <typename Stream>
void StreamConnection<Stream>::Watch() {
  watching_ = true;
  stream_.async_read_some(asio::buffer(watch_bytes_), [self = Self()](error_code ec, size_t n) {
    self->watching_ = false;
    if (n > 0) {
      auto space = self->buffer_.prepare(n);
      asio::buffer_copy(space, asio::buffer(self->watch_bytes_, n));
      self->buffer_.commit(n);
    }
    bool cancelled = ec == asio::error::operation_aborted && !self->timed_out_;
    if (ec && !cancelled) {
      self->broken_ = true;
      self->ClientGone();
    }
    // Go on watching while an answer is made, unless the client piles requests up without end.
    if (!ec && self->gone_ && self->answer_ != Answer::kDone &&
        self->buffer_.size() < self->context_->limits.header_bytes) {
      self->Watch();
    } else {
      self->watch_ended_.Notify();
    }
  });
}

template <typename Stream>
void StreamConnection<Stream>::ClientGone() {
  if (auto gone = std::exchange(gone_, nullptr)) gone();
}

template <typename Stream>
void StreamConnection<Stream>::CloseSocket() {
  error_code ec;
  broken_ = true;
  Socket().close(ec);
}

}  // namespace quire::gateway::http
