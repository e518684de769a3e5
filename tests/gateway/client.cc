#include "tests/gateway/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>

namespace quire::gateway::test {

Client::Client(int port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval limit{30, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) Close();
}

Client::~Client() { Close(); }

void Client::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void Client::Reset() {
  linger hard{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  Close();
}

void Client::ShutdownSend() { shutdown(fd_, SHUT_WR); }

void Client::ShrinkReceiveBuffer(int bytes) { setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); }

bool Client::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool Client::Fill() {
  char chunk[65536];
  ssize_t n = recv(fd_, chunk, sizeof chunk, 0);
  if (n <= 0) return false;
  buffer_.append(chunk, static_cast<size_t>(n));
  return true;
}

bool Client::ReadLine(std::string* line) {
  size_t end;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (!Fill()) return false;
  }
  *line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return true;
}

bool Client::ReadExactly(size_t n, std::string* out) {
  while (buffer_.size() < n) {
    if (!Fill()) return false;
  }
  out->append(buffer_, 0, n);
  buffer_.erase(0, n);
  return true;
}

bool Client::ReadChunk(std::string* out) {
  std::string line, tail;
  if (!ReadLine(&line)) return false;
  size_t size = std::strtoul(line.c_str(), nullptr, 16);
  return ReadExactly(size, out) && ReadExactly(2, &tail) && size > 0;
}

Reply Client::ReadHead() {
  Reply reply;
  std::string line;
  if (!ReadLine(&line) || line.rfind("HTTP/1.1 ", 0) != 0) return reply;
  const int status = std::atoi(line.c_str() + 9);
  while (ReadLine(&line)) {
    if (line.empty()) {
      reply.status = status;
      return reply;
    }
    size_t colon = line.find(": ");
    if (colon == std::string::npos) return reply;
    std::string name = line.substr(0, colon);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    reply.headers[name] = line.substr(colon + 2);
  }
  return reply;
}

Reply Client::ReadReply(bool no_body) {
  Reply reply = ReadHead();
  if (reply.status == 100) reply = ReadHead();
  if (reply.status == 0) return reply;
  if (no_body) {
    reply.complete = true;
  } else if (auto length = reply.headers.find("content-length"); length != reply.headers.end()) {
    reply.complete = ReadExactly(std::strtoul(length->second.c_str(), nullptr, 10), &reply.body);
  } else if (reply.headers.count("transfer-encoding")) {
    std::string line;
    for (;;) {
      if (!ReadLine(&line)) break;
      size_t size = std::strtoul(line.c_str(), nullptr, 16);
      std::string tail;
      if (!ReadExactly(size, &reply.body) || !ReadExactly(2, &tail)) break;
      if (size == 0) {
        reply.complete = true;
        break;
      }
    }
  } else {
    while (Fill()) {
    }
    reply.body = std::move(buffer_);
    buffer_.clear();
    reply.complete = true;
  }
  return reply;
}

std::string Client::ReadEvent() {
  size_t end;
  while ((end = events_.find("\n\n")) == std::string::npos) {
    if (!ReadChunk(&events_)) return "";
  }
  std::string event = events_.substr(0, end);
  events_.erase(0, end + 2);
  return event.rfind("data: ", 0) == 0 ? event.substr(6) : event;
}

bool Client::ReadEnd() {
  if (!buffer_.empty()) return false;
  char byte;
  return recv(fd_, &byte, 1, 0) <= 0 && errno != EAGAIN && errno != EWOULDBLOCK;
}

std::string RequestText(std::string_view method, std::string_view path, std::string_view body,
                        std::string_view more_headers) {
  std::string text = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n" +
                     std::string(more_headers);
  if (!body.empty())
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  return text + "\r\n" + std::string(body);
}

Reply Client::Request(std::string_view method, std::string_view path, std::string_view body,
                      std::string_view more_headers) {
  Send(RequestText(method, path, body, more_headers));
  return ReadReply(method == "HEAD");
}

Reply Get(int port, std::string_view path) { return Client(port).Request("GET", path); }

Reply Post(int port, std::string_view path, const nlohmann::json& body) {
  return Client(port).Request("POST", path, body.dump());
}

std::vector<nlohmann::json> PostStream(int port, std::string_view path, const nlohmann::json& body,
                                       bool* done) {
  Client client(port);
  client.Send(RequestText("POST", path, body.dump()));
  std::vector<nlohmann::json> events;
  *done = false;
  if (client.ReadHead().status != 200) return events;
  for (std::string event = client.ReadEvent(); !event.empty(); event = client.ReadEvent()) {
    if (event == "[DONE]") {
      *done = client.ReadEvent().empty();
      break;
    }
    events.push_back(nlohmann::json::parse(event, nullptr, false));
  }
  return events;
}

}  // namespace quire::gateway::test
