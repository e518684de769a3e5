// A blocking HTTP client over a raw socket, so that tests can send what no library would.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace quire::gateway::test {

struct Reply {
  int status = 0;                              // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks put together
  bool complete = false;                       // the body ended as it announced

  nlohmann::json Json() const { return nlohmann::json::parse(body, nullptr, false); }
};

// Every read gives up after 30 s, so a test that went wrong fails instead of hanging.
class Client {
 public:
  explicit Client(int port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool Send(std::string_view bytes);  // false: the other side has closed
  // The next answer on this connection. no_body: it is one to HEAD.
  Reply ReadReply(bool no_body = false);
  // Only the head; the body is then read by ReadEvent.
  Reply ReadHead();
  // The next "data: …" of a chunked event stream without its prefix; empty at its end.
  std::string ReadEvent();
  // Waits until the server closes; false if it sends something instead.
  bool ReadEnd();
  void ShutdownSend();
  void Reset();  // closes with RST
  void Close();
  // A small receive buffer, to be a slow reader. Before anything is read.
  void ShrinkReceiveBuffer(int bytes);

  Reply Request(std::string_view method, std::string_view path, std::string_view body = "",
                std::string_view more_headers = "");

 private:
  bool Fill();  // more bytes into buffer_; false at the end
  bool ReadLine(std::string* line);
  bool ReadExactly(size_t n, std::string* out);
  bool ReadChunk(std::string* out);  // false: the last one, or the end

  int fd_ = -1;
  std::string buffer_;
  std::string events_;  // text of the stream not yet taken by ReadEvent
};

std::string RequestText(std::string_view method, std::string_view path, std::string_view body = "",
                        std::string_view more_headers = "");
// One request on a connection of its own.
Reply Get(int port, std::string_view path);
Reply Post(int port, std::string_view path, const nlohmann::json& body);
// A streamed request: the events' JSON, without [DONE].
std::vector<nlohmann::json> PostStream(int port, std::string_view path, const nlohmann::json& body,
                                       bool* done);

}  // namespace quire::gateway::test
