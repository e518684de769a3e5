// A store and its services in this process, new for every input, so that an input tells all there is to tell;
// and the calls that an input makes of it. The server before them and its channel stay: starting them takes
// longer than most inputs do.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/bytes.h"
#include "services/runtime/metrics.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"
#include "tests/fuzz/input.h"

namespace quire::fuzz {

// What a store holds. A refused request leaves it as it was.
struct Held {
  uint64_t used_bytes = 0, blocks = 0, raw_bytes = 0, stored = 0, deleted = 0, evicted = 0,
           levels_dropped = 0, corrupt = 0, layouts = 0, put_sessions = 0;
  friend bool operator==(const Held&, const Held&) = default;
};

class Served {
 public:
  Served();
  ~Served();  // waits for the calls that still run
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  store::LocalStore& store() { return *store_; }
  Held held();
  // The store's clocks stand still but for this.
  void Advance(int64_t ms) { *now_ms_ += ms; }

 private:
  std::shared_ptr<std::atomic<int64_t>> now_ms_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::shared_ptr<store::LocalStore> store_;
  std::unique_ptr<store::StoreServices> services_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Calls of an input: [number of the call][length u16][bytes of its request], again and again; the number
// modulo `calls`. Consecutive entries of one number are the messages of one stream.
struct Entry {
  int call = 0;
  Bytes bytes;
};
std::vector<Entry> Entries(Input input, int calls);

// Defined by each fuzzer of a service: an empty message of what its call takes; null: bytes without a form.
// For mutations.cc.
const google::protobuf::Message* RequestOf(int call);
int Calls();

// Empty if the bytes are no such message: gRPC refuses those before the service sees them.
template <typename Message>
Message Parsed(Bytes bytes) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) message.Clear();
  return message;
}

template <typename Message>
std::vector<Message> AllParsed(std::span<const Entry> entries) {
  std::vector<Message> messages;
  for (const Entry& entry : entries) messages.push_back(Parsed<Message>(entry.bytes));
  return messages;
}

// A context whose call ends soon, whatever the input wants.
inline void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

// Codes that a request can bring about. INTERNAL and UNKNOWN would be the server's fault, and
// DEADLINE_EXCEEDED a request that hangs it.
void CheckStatus(const grpc::Status& status);

template <typename Response>
struct Answer {
  grpc::Status status;
  std::vector<Response> responses;  // one if the call gives one and succeeded
  bool ok() const { return status.ok(); }
  const Response& response() const { return responses.front(); }
};

template <typename Stub, typename Request, typename Response>
Answer<Response> Unary(Stub& stub,
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                       const Request& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  Response response;
  Answer<Response> answer{(stub.*method)(&context, request, &response), {}};
  CheckStatus(answer.status);
  if (answer.ok()) answer.responses.push_back(std::move(response));
  return answer;
}

// Takes at most `most` messages and ends the call then: some streams have no end of their own.
template <typename Stub, typename Request, typename Response>
Answer<Response> Reads(Stub& stub,
                       std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(grpc::ClientContext*,
                                                                                     const Request&),
                       const Request& request, size_t most) {
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = (stub.*method)(&context, request);
  stream->WaitForInitialMetadata();  // the server has begun with it
  Answer<Response> answer;
  Response response;
  while (answer.responses.size() < most && stream->Read(&response)) answer.responses.push_back(response);
  if (answer.responses.size() == most) {
    context.TryCancel();
    while (stream->Read(&response)) {
    }
  }
  answer.status = stream->Finish();
  CheckStatus(answer.status);
  return answer;
}

template <typename Stub, typename Request, typename Response>
Answer<Response> Both(
    Stub& stub,
    std::unique_ptr<grpc::ClientReaderWriter<Request, Response>> (Stub::*method)(grpc::ClientContext*),
    const std::vector<Request>& requests) {
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = (stub.*method)(&context);
  Answer<Response> answer;
  {
    // Within a process nothing lies between the two ends: a write waits until the other one reads.
    std::jthread writer([&] {
      for (const Request& request : requests) {
        if (!stream->Write(request)) break;
      }
      stream->WritesDone();
    });
    Response response;
    while (stream->Read(&response)) answer.responses.push_back(response);
  }
  answer.status = stream->Finish();
  CheckStatus(answer.status);
  return answer;
}

// Hands `run` each stream's worth of entries.
template <typename Run>
void ByCall(std::span<const Entry> entries, Run run) {
  for (size_t at = 0; at < entries.size();) {
    size_t end = at + 1;
    while (end < entries.size() && entries[end].call == entries[at].call) ++end;
    run(entries[at].call, entries.subspan(at, end - at));
    at = end;
  }
}

}  // namespace quire::fuzz
