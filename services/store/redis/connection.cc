#include "services/store/redis/connection.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kGatherBuffers = 48;                 // Asio passes at most 64 to one writev
constexpr uint64_t kGatherBytes = uint64_t{4} << 20;  // so that replies are looked after in between
constexpr std::string_view kAsking = "*1\r\n$6\r\nASKING\r\n";

uint64_t LoadOf(const Request& request) { return request.command.bytes() + request.into.size(); }

absl::StatusOr<std::string> ReadPassword(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  if (!std::getline(in, line) || line.empty())
    return absl::InvalidArgumentError(absl::StrCat("the redis password file ", file, " has no first line"));
  if (line.back() == '\r') line.pop_back();
  return line;
}

}  // namespace

Connection::Connection(asio::io_context& io, Endpoint endpoint, const ClientOptions& options,
                       ConnectionCounters* counters)
    : io_(io),
      endpoint_(std::move(endpoint)),
      options_(options),
      counters_(counters),
      writer_wake_(io),
      writer_gone_(io),
      pause_timer_(io),
      watch_(io),
      watch_at_(Clock::time_point::max()),
      pause_(options.first_pause) {}

void Connection::Start() { asio::co_spawn(io_, Run(shared_from_this()), asio::detached); }

void Connection::Stop() {
  if (state_ == State::kStopped) return;
  Break(absl::UnavailableError("the client closes"));
  state_ = State::kStopped;
  pause_timer_.cancel();
  watch_.cancel();
}

// Connects, serves until the connection breaks, pauses, again.
asio::awaitable<void> Connection::Run(std::shared_ptr<Connection> self) {
  Connection& c = *self;
  while (c.state_ != State::kStopped) {
    absl::Status status = co_await c.Open();
    if (status.ok() && c.state_ != State::kStopped) {
      c.state_ = State::kReady;
      c.down_ = absl::OkStatus();
      c.pause_ = c.options_.first_pause;
      c.last_use_ = Clock::now();
      ++c.counters_->connects;
      c.writer_running_ = true;
      c.ArmWatch();
      asio::co_spawn(c.io_, WriteLoop(self), asio::detached);
      status = co_await c.ReadLoop();
      c.Break(status);
      ++c.counters_->broken;
      while (c.writer_running_) {
        c.writer_gone_.expires_at(Clock::time_point::max());
        co_await c.writer_gone_.async_wait(kTuple);
      }
    } else {
      c.Break(status);
      ++c.counters_->failed_connects;
      c.down_ = c.break_cause_;
    }
    c.FailAll(c.break_cause_);
    if (c.state_ == State::kStopped) break;
    c.pause_timer_.expires_after(c.NextPause());
    co_await c.pause_timer_.async_wait(kTuple);
  }
  c.FailAll(c.Closing());
}

absl::Status Connection::Closing() const {
  return absl::UnavailableError(absl::StrCat("redis ", endpoint_.ToString(), ": the client closes"));
}

asio::awaitable<absl::Status> Connection::Open() {
  state_ = State::kConnecting;
  break_cause_ = absl::OkStatus();
  stream_ = std::make_unique<Stream>(io_);
  parser_ = std::make_unique<ReplyParser>();
  connect_deadline_ = Clock::now() + options_.timeout;
  ArmWatch();
  absl::Status status = co_await stream_->Connect(endpoint_, options_);
  if (status.ok()) status = co_await Greet();
  connect_deadline_ = Clock::time_point::max();
  co_return status;
}

// AUTH, SELECT and CLIENT SETNAME, all in one write. A server that does not let clients have names is fine.
asio::awaitable<absl::Status> Connection::Greet() {
  std::string text;
  std::vector<bool> required;
  if (!options_.password_file.empty()) {
    absl::StatusOr<std::string> password = ReadPassword(options_.password_file);
    if (!password.ok()) co_return password.status();
    std::vector<std::string_view> auth = {"AUTH"};
    if (!options_.user.empty()) auth.push_back(options_.user);
    auth.push_back(*password);
    text += Command(auth).head();
    required.push_back(true);
  }
  if (options_.database != 0) {
    text += Command({"SELECT", absl::StrCat(options_.database)}).head();
    required.push_back(true);
  }
  text += Command({"CLIENT", "SETNAME", options_.client_name}).head();
  required.push_back(false);
  text += Command({"PING"}).head();
  required.push_back(true);

  std::vector<asio::const_buffer> buffers = {asio::buffer(text)};
  boost::system::error_code error = co_await stream_->Write(buffers);
  if (error) co_return absl::UnavailableError(absl::StrCat("greeting: ", error.message()));
  for (size_t taken = 0; taken < required.size();) {
    Reply reply;
    absl::StatusOr<bool> complete = parser_->Next({}, &reply);
    if (!complete.ok()) co_return complete.status();
    if (*complete) {
      if (required[taken] && reply.is(Reply::Type::kError)) co_return reply.status();
      ++taken;
      continue;
    }
    auto space = parser_->Space();
    std::array<asio::mutable_buffer, 2> into = {asio::buffer(space[0].data(), space[0].size()),
                                                asio::buffer(space[1].data(), space[1].size())};
    Stream::Transferred read = co_await stream_->ReadSome(into);
    if (read.first) co_return absl::UnavailableError(absl::StrCat("greeting: ", read.first.message()));
    parser_->Filled(read.second);
  }
  co_return absl::OkStatus();
}

asio::awaitable<absl::Status> Connection::ReadLoop() {
  while (state_ == State::kReady) {
    absl::StatusOr<bool> taken = TakeReply();
    if (!taken.ok()) co_return taken.status();
    if (*taken) continue;
    auto space = parser_->Space();
    std::array<asio::mutable_buffer, 2> into = {asio::buffer(space[0].data(), space[0].size()),
                                                asio::buffer(space[1].data(), space[1].size())};
    Stream::Transferred read = co_await stream_->ReadSome(into);
    if (read.first) co_return absl::UnavailableError(absl::StrCat("read: ", read.first.message()));
    parser_->Filled(read.second);
  }
  co_return break_cause_;
}

// False: more bytes are needed.
absl::StatusOr<bool> Connection::TakeReply() {
  if (in_flight_.empty()) {
    if (parser_->empty()) return false;
    return absl::DataLossError("redis sent a reply that nobody asked for");
  }
  Queued queued = in_flight_.front();
  Flight& flight = queued.flight();
  bool skip = flight.replies_to_skip > 0;
  absl::StatusOr<bool> complete = parser_->Next(skip ? MutableBytes() : flight.request->into, &reply_);
  if (!complete.ok() || !*complete) return complete;
  if (skip) {
    --flight.replies_to_skip;
    return true;
  }
  flight.request->reply = std::move(reply_);
  reply_ = Reply();
  flight.answered = true;
  in_flight_.pop_front();
  awaited_bytes_ -= flight.request->into.size();
  last_use_ = Clock::now();
  writer_wake_.cancel();  // the window may have room again
  FinishIfOver(queued);
  return true;
}

asio::awaitable<void> Connection::WriteLoop(std::shared_ptr<Connection> self) {
  Connection& c = *self;
  while (c.state_ == State::kReady) {
    std::vector<asio::const_buffer> buffers = c.Gather(&c.sending_);
    if (buffers.empty()) {
      c.writer_wake_.expires_at(Clock::time_point::max());
      co_await c.writer_wake_.async_wait(kTuple);
      continue;
    }
    boost::system::error_code error = co_await c.stream_->Write(buffers);
    if (error) {
      c.Break(absl::UnavailableError(absl::StrCat("write: ", error.message())));
      break;
    }
    std::vector<Queued> sent = std::move(c.sending_);
    c.sending_.clear();
    for (const Queued& queued : sent) {
      queued.flight().written = true;
      c.FinishIfOver(queued);
    }
  }
  c.writer_running_ = false;
  c.writer_gone_.cancel();
}

// The next requests that the window lets through, at least one if nothing is under way.
std::vector<asio::const_buffer> Connection::Gather(std::vector<Queued>* sending) {
  std::vector<asio::const_buffer> buffers;
  uint64_t bytes = 0;
  auto add = [&](const void* data, size_t size) {
    if (size > 0) buffers.emplace_back(data, size);
    bytes += size;
  };
  while (!to_send_.empty() && buffers.size() < kGatherBuffers && bytes < kGatherBytes) {
    Queued queued = to_send_.front();
    Flight& flight = queued.flight();
    const Request& request = *flight.request;
    if (awaited_bytes_ > 0 && awaited_bytes_ + request.into.size() > options_.window_bytes) break;
    awaited_bytes_ += request.into.size();
    if (flight.asking) {
      add(kAsking.data(), kAsking.size());
      flight.replies_to_skip = 1;
    }
    const Command& command = request.command;
    add(command.head().data(), command.head().size());
    add(command.payload().data(), command.payload().size());
    add(command.tail().data(), command.tail().size());
    queued.group->started = true;
    in_flight_.push_back(queued);
    sending->push_back(queued);
    to_send_.pop_front();
  }
  return buffers;
}

void Connection::Submit(std::shared_ptr<Group> group) {
  group->open = group->flights.size();
  if (group->open == 0) return group->done(*group);
  absl::Status refused = state_ == State::kStopped ? Closing() : down_;
  if (!refused.ok()) {
    // Not a time-out of this request's: nothing was waited for.
    if (absl::IsDeadlineExceeded(refused)) refused = absl::UnavailableError(refused.message());
    for (Flight& flight : group->flights) flight.request->status = OwnCopy(refused);
    group->open = 0;
    return group->done(*group);
  }
  for (size_t i = 0; i < group->flights.size(); ++i) {
    load_bytes_ += LoadOf(*group->flights[i].request);
    to_send_.push_back({group, i});
  }
  Clock::time_point deadline = group->deadline;
  groups_.push_back(std::move(group));
  if (deadline < watch_at_) ArmWatch();
  writer_wake_.cancel();
}

// A reply counts only once the request's bytes are no longer being written: a server that answers early must
// not make us give memory back that the socket still reads.
void Connection::FinishIfOver(const Queued& queued) {
  if (queued.flight().written && queued.flight().answered) Finish(queued);
}

void Connection::Finish(const Queued& queued) {
  load_bytes_ -= LoadOf(*queued.flight().request);
  if (--queued.group->open > 0) return;
  std::shared_ptr<Group> group = queued.group;
  std::erase(groups_, group);
  group->done(*group);
}

// Ends reading and writing; Run does the rest once both have let go of all memory.
void Connection::Break(const absl::Status& why) {
  if (state_ == State::kBroken || state_ == State::kStopped) return;
  bool silent = absl::IsDeadlineExceeded(why);
  state_ = State::kBroken;
  break_cause_ =
      absl::Status(why.code() == absl::StatusCode::kDataLoss ? absl::StatusCode::kUnavailable : why.code(),
                   absl::StrCat("redis ", endpoint_.ToString(), ": ", std::string(why.message())));
  // One that does not answer at all is not waited for again; one that closed may just have restarted.
  if (silent) down_ = break_cause_;
  if (stream_ != nullptr) stream_->Close();
  writer_wake_.cancel();
}

void Connection::FailAll(const absl::Status& why) {
  Clock::time_point now = Clock::now();
  to_send_.clear();
  in_flight_.clear();
  sending_.clear();
  load_bytes_ = awaited_bytes_ = 0;
  std::vector<std::shared_ptr<Group>> groups = std::move(groups_);
  groups_.clear();
  for (const std::shared_ptr<Group>& group : groups) {
    absl::Status status = why;
    if (absl::IsDeadlineExceeded(why) && group->deadline > now)
      status = absl::UnavailableError(why.message());
    if (group->deadline <= now) status = absl::DeadlineExceededError(why.message());
    for (Flight& flight : group->flights) {
      if (!flight.written || !flight.answered) flight.request->status = OwnCopy(status);
    }
    group->open = 0;
    group->done(*group);
  }
}

// The watch runs off at the earliest of: the connect deadline, a group's deadline, the time to see whether
// the connection has been idle.
void Connection::ArmWatch() {
  Clock::time_point at = Clock::time_point::max();
  if (state_ == State::kConnecting) at = connect_deadline_;
  if (state_ == State::kReady) at = (groups_.empty() ? last_use_ : Clock::now()) + options_.keepalive;
  for (const auto& group : groups_) {
    if (state_ == State::kReady || !group->started) at = std::min(at, group->deadline);
  }
  watch_at_ = at;
  watch_.expires_at(at);
  watch_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->OnWatch();
  });
}

void Connection::OnWatch() {
  watch_at_ = Clock::time_point::max();
  if (state_ == State::kStopped) return;
  Clock::time_point now = Clock::now();
  if (state_ == State::kConnecting && now >= connect_deadline_)
    Break(
        absl::DeadlineExceededError(absl::StrCat("no connection within ", options_.timeout.count(), " ms")));
  bool silent = ExpireGroups(now);
  if (silent && state_ == State::kReady) {
    ++counters_->timeouts;
    Break(absl::DeadlineExceededError("no answer before the deadline"));
  }
  if (state_ == State::kReady && groups_.empty() && now >= last_use_ + options_.keepalive) SubmitPing();
  ArmWatch();
}

// Ends what is over its deadline and was not sent; true if something over its deadline was.
bool Connection::ExpireGroups(Clock::time_point now) {
  bool sent = false;
  std::vector<std::shared_ptr<Group>> expired;
  for (const auto& group : groups_) {
    if (group->deadline > now) continue;
    sent = sent || group->started;
    if (!group->started) expired.push_back(group);
  }
  for (const std::shared_ptr<Group>& group : expired) {
    std::erase_if(to_send_, [&](const Queued& q) { return q.group == group; });
    std::erase(groups_, group);
    for (Flight& flight : group->flights) {
      load_bytes_ -= LoadOf(*flight.request);
      flight.request->status = absl::DeadlineExceededError(
          absl::StrCat("redis ", endpoint_.ToString(), ": not sent before the deadline"));
    }
    group->open = 0;
    group->done(*group);
  }
  return sent;
}

// Its answer proves the connection alive; without one its deadline ends the connection.
void Connection::SubmitPing() {
  auto request = std::make_shared<Request>();
  request->command = Command({"PING"});
  auto group = std::make_shared<Group>();
  group->flights.push_back({request.get()});
  group->deadline = Clock::now() + options_.timeout;
  group->done = [request](Group&) {};
  Submit(std::move(group));
}

std::chrono::milliseconds Connection::NextPause() {
  thread_local std::minstd_rand generator(std::random_device{}());
  std::chrono::milliseconds longest = pause_;
  pause_ = std::min(pause_ * 2, options_.last_pause);
  return longest -
         std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(0, longest.count() / 2)(generator));
}

}  // namespace quire::store::redis
