// Every request of quire.v1.KvStore, with the bytes of Put and Get in messages and in shared memory, while
// time goes by and memory fails: only what was stored is found and comes back, and what is refused changes
// nothing.
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "quire/v1/kv_store.grpc.pb.h"
#include "tests/fuzz/kv_arena.h"
#include "tests/fuzz/served.h"
#include "tests/fuzz/stored_blocks.h"

namespace quire::fuzz {
namespace {

using Stub = v1::KvStore::Stub;

enum Call {
  kRegisterLayout,
  kLookup,
  kPut,
  kGet,
  kDelete,
  kPin,
  kUnpin,
  kTouch,
  kPrefetch,
  kWatch,
  kAttachArena,
  kFillArena,    // no request: offset u16, bytes for the arena
  kPassTime,     // milliseconds u16
  kInjectFault,  // what, how often, parameter u16
  kCalls
};

class Client {
 public:
  explicit Client(Served& served) : served_(served), stub_(served.channel()) {}

  void Run(int call, std::span<const Entry> entries) {
    if (call == kPut) return Put(AllParsed<v1::PutRequest>(entries));
    for (const Entry& entry : entries) RunOnce(call, entry.bytes);
  }

 private:
  void RunOnce(int call, Bytes bytes) {
    switch (call) {
      case kRegisterLayout:
        return RegisterLayout(Parsed<v1::RegisterLayoutRequest>(bytes));
      case kLookup:
        return Lookup(Parsed<v1::LookupRequest>(bytes));
      case kGet:
        return Get(Parsed<v1::GetRequest>(bytes));
      case kDelete:
        return Delete(Parsed<v1::DeleteRequest>(bytes));
      case kPin:
        return AboutKeys(&Stub::Pin, &v1::PinResponse::pinned, Parsed<v1::PinRequest>(bytes));
      case kUnpin:
        return AboutKeys(&Stub::Unpin, &v1::UnpinResponse::unpinned, Parsed<v1::UnpinRequest>(bytes));
      case kTouch:
        return AboutKeys(&Stub::Touch, &v1::TouchResponse::touched, Parsed<v1::TouchRequest>(bytes));
      case kPrefetch:
        return AboutKeys(&Stub::Prefetch, &v1::PrefetchResponse::queued, Parsed<v1::PrefetchRequest>(bytes));
      case kWatch:
        return Watch(Parsed<v1::WatchRequest>(bytes));
      case kAttachArena:
        return AttachArena(Parsed<v1::AttachArenaRequest>(bytes));
      case kFillArena:
        return arena().Fill({bytes.data(), bytes.size()});
      case kPassTime:
        return PassTime({bytes.data(), bytes.size()});
      default:
        return InjectFault({bytes.data(), bytes.size()});
    }
  }

  KvArena& arena() {
    if (!arena_) arena_.emplace(stub_);
    return *arena_;
  }

  void RegisterLayout(const v1::RegisterLayoutRequest& request) {
    const Held before = served_.held();
    Answer<v1::RegisterLayoutResponse> answer = Unary(stub_, &Stub::RegisterLayout, request);
    if (answer.ok()) {
      blocks_.Register(request, answer.response().fingerprint());
    } else {
      QUIRE_FUZZ_CHECK(served_.held() == before);
    }
  }

  // A call that only looks, or marks what it looks at.
  template <typename Method, typename Request>
  auto Looks(Method method, const Request& request) {
    const Held before = served_.held();
    auto answer = Unary(stub_, method, request);
    QUIRE_FUZZ_CHECK(served_.held() == before);
    return answer;
  }

  void Lookup(const v1::LookupRequest& request) {
    constexpr size_t kKeyBytes = 32;
    Answer<v1::LookupResponse> answer = Looks(&Stub::Lookup, request);
    if (!answer.ok()) return;
    std::vector<std::string> keys(request.keys().begin(), request.keys().end());
    for (size_t at = 0; at < request.packed_keys().size(); at += kKeyBytes)
      keys.push_back(request.packed_keys().substr(at, kKeyBytes));
    size_t states = 0, prefix = 0;
    bool whole = true;
    for (const v1::BlockState& state : answer.response().blocks()) {
      const uint32_t run = request.runs() ? std::max(state.run(), 1u) : 1;
      const bool hit = state.state() == v1::BlockState::HIT;
      QUIRE_FUZZ_CHECK(whole || request.all());
      QUIRE_FUZZ_CHECK(run <= keys.size() - states);
      for (uint32_t i = 0; i < run; ++i, ++states) {
        if (!hit) continue;
        QUIRE_FUZZ_CHECK(blocks_.Knows(request.namespace_(), keys[states]));
        QUIRE_FUZZ_CHECK(state.bytes() <= blocks_.LargestObject(request.namespace_(), keys[states]));
        QUIRE_FUZZ_CHECK(state.levels() > 0 && state.tier() == v1::HOST);
      }
      whole = whole && hit;
      if (whole) prefix = states;
    }
    QUIRE_FUZZ_CHECK(answer.response().prefix_blocks() == prefix);
    QUIRE_FUZZ_CHECK(states == keys.size() || (!request.all() && !whole));
  }

  template <typename Method, typename Counter, typename Request>
  void AboutKeys(Method method, Counter counter, const Request& request) {
    auto answer = Looks(method, request);
    if (!answer.ok()) return;
    QUIRE_FUZZ_CHECK((answer.response().*counter)() <= blocks_.Count(request.namespace_(), request.keys()));
  }

  void Delete(const v1::DeleteRequest& request) {
    const Held before = served_.held();
    Answer<v1::DeleteResponse> answer = Unary(stub_, &Stub::Delete, request);
    const Held after = served_.held();
    const uint32_t deleted = answer.ok() ? answer.response().deleted() : 0;
    QUIRE_FUZZ_CHECK(deleted > 0 ? after.blocks < before.blocks : after == before);
    if (!answer.ok()) return;
    const uint32_t known = blocks_.CountOnce(request.namespace_(), request.keys());
    QUIRE_FUZZ_CHECK(deleted <= known);
    if (deleted < known && !request.force()) return;
    for (const std::string& key : request.keys()) blocks_.Remove(request.namespace_(), key);
  }

  // The bytes of each block in a stream's messages, as far as they come in order.
  std::map<uint32_t, std::string> BytesSent(const std::vector<v1::PutRequest>& requests) {
    std::map<uint32_t, std::string> sent;
    for (const v1::PutRequest& request : requests) {
      if (!request.has_data()) continue;
      std::string& bytes = sent[request.data().block()];
      if (request.data().offset() == bytes.size()) bytes += BytesOf(request.data());
    }
    return sent;
  }
  std::string BytesOf(const v1::BlockData& data) {
    if (!data.has_arena_range()) return data.data();
    return arena().Read(data.arena_range());
  }

  void Put(std::vector<v1::PutRequest> requests) {
    for (v1::PutRequest& request : requests) {
      if (!request.announce().arena().empty()) arena().Name(request.mutable_announce()->mutable_arena());
    }
    const Held before = served_.held();
    Answer<v1::PutResponse> answer = Both(stub_, &Stub::Put, requests);
    const Held after = served_.held();
    if (answer.responses.empty()) {
      QUIRE_FUZZ_CHECK(after == before);
      return;
    }
    const v1::PutAnnounce& announce = requests.front().announce();
    std::map<uint32_t, std::string> sent = BytesSent(requests);
    std::set<uint32_t> wanted(answer.responses.front().wanted().blocks().begin(),
                              answer.responses.front().wanted().blocks().end());
    // For what came last something may have had to go that came first.
    const bool made_room = after.evicted + after.levels_dropped > before.evicted + before.levels_dropped;
    uint64_t stored = 0;
    for (const v1::PutResponse& response : std::span(answer.responses).subspan(1)) {
      const v1::PutResult& result = response.result();
      QUIRE_FUZZ_CHECK(wanted.erase(result.block()) == 1);
      if (result.code() != 0) continue;
      ++stored;
      const v1::BlockAnnounce& block = announce.blocks(static_cast<int>(result.block()));
      std::string bytes = sent[result.block()].substr(0, block.bytes());
      if (announce.encode().empty()) QUIRE_FUZZ_CHECK(result.stored_bytes() == bytes.size());
      if (announce.encode().empty()) blocks_.Add(announce.namespace_(), block, bytes);
      if (!made_room) Recall(announce, block, announce.encode().empty() ? &bytes : nullptr);
    }
    QUIRE_FUZZ_CHECK(after.stored - before.stored == stored);
    QUIRE_FUZZ_CHECK(stored > 0 || time_has_passed_ || made_room || after == before);
  }

  // What a put has just stored is there: exactly these bytes (null: whatever the store encoded).
  void Recall(const v1::PutAnnounce& announce, const v1::BlockAnnounce& block, const std::string* bytes) {
    served_.store().faults().DisarmAll();
    v1::GetRequest request;
    *request.mutable_namespace_() = announce.namespace_();
    *request.mutable_part() = announce.part();
    *request.add_blocks() = block;
    Answer<v1::GetResponse> answer = Reads(stub_, &Stub::Get, request, kManyMessages);
    QUIRE_FUZZ_CHECK(answer.ok());
    std::string object;
    for (const v1::GetResponse& response : answer.responses) {
      QUIRE_FUZZ_CHECK(response.has_data() && response.data().offset() == object.size());
      object += response.data().data();
    }
    QUIRE_FUZZ_CHECK(bytes == nullptr || object == *bytes);
    blocks_.Add(announce.namespace_(), block, std::move(object));
  }

  // What came of one block.
  struct Got {
    std::vector<StoredBlocks::Object> may_be;  // those that agree with all that has come
    uint64_t bytes = 0, of = 0;
    std::string object;  // as far as it came in order
    bool missed = false;
  };

  void Get(v1::GetRequest request) {
    if (!request.arena().empty()) arena().Name(request.mutable_arena());
    const Held before = served_.held();
    Answer<v1::GetResponse> answer = Reads(stub_, &Stub::Get, request, kManyMessages);
    const Held after = served_.held();
    QUIRE_FUZZ_CHECK(answer.status.error_code() != grpc::StatusCode::DATA_LOSS);
    QUIRE_FUZZ_CHECK(after == before || after.corrupt > before.corrupt);
    std::vector<Got> got(static_cast<size_t>(request.blocks_size()));
    for (size_t i = 0; i < got.size(); ++i)
      got[i].may_be = blocks_.Objects(request.namespace_(), request.blocks(static_cast<int>(i)));
    for (const v1::GetResponse& response : answer.responses) {
      if (response.has_miss()) {
        Got& block = got.at(response.miss().block());
        QUIRE_FUZZ_CHECK(!block.missed);
        block.missed = true;
      } else {
        Take(request, response.data(), &got.at(response.data().block()));
      }
    }
    if (!answer.ok()) return;
    for (size_t i = 0; i < got.size(); ++i) {
      if (!got[i].missed) CheckWhole(request, static_cast<int>(i), got[i]);
    }
  }

  void Take(const v1::GetRequest& request, const v1::BlockData& data, Got* got) {
    QUIRE_FUZZ_CHECK(!got->missed && !got->may_be.empty());
    const bool placed = data.has_arena_range();
    std::string bytes = placed ? arena().Read(data.arena_range()) : data.data();
    got->bytes += bytes.size(), got->of = data.object_bytes();
    if (data.offset() == got->object.size()) got->object += bytes;
    // Ranges that lie over one another are written over one another.
    if (request.has_decode() || (placed && KvArena::Overlap(request))) return;
    std::erase_if(got->may_be, [&](const StoredBlocks::Object& object) {
      return data.offset() + bytes.size() > object->size() || data.object_bytes() > object->size() ||
             object->compare(data.offset(), bytes.size(), bytes) != 0;
    });
    QUIRE_FUZZ_CHECK(!got->may_be.empty());
  }

  void CheckWhole(const v1::GetRequest& request, int block, const Got& got) {
    if (request.has_decode()) {
      QUIRE_FUZZ_CHECK(got.bytes == got.of);
      QUIRE_FUZZ_CHECK(got.of ==
                       blocks_.RawBytes(request.namespace_(), request.part(), request.decode().dtype()));
    } else if (request.order() == v1::GetRequest::BY_BLOCK) {
      QUIRE_FUZZ_CHECK(got.object.size() == got.of && got.bytes == got.of);
      if (request.arena_ranges_size() == 0)
        blocks_.CheckObject(request.namespace_(), request.blocks(block), got.object);
    }
  }

  // As many events as there are; others would have to happen first.
  void Watch(const v1::WatchRequest& request) {
    uint64_t there = 0;
    const std::string& tenant = request.namespace_().tenant();
    if (absl::StatusOr<uint32_t> number = served_.store().TenantToWatch(tenant);
        number.ok() && request.from_sequence() > 0 && request.namespace_().fingerprint().empty()) {
      uint64_t next = served_.store().events().NextSequence(*number);
      there = next - std::min(next, request.from_sequence());
    }
    grpc::ClientContext context;
    SetDeadline(context);
    std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> stream = stub_.Watch(&context, request);
    stream->WaitForInitialMetadata();
    v1::WatchResponse event;
    for (uint64_t i = 0; i < there && stream->Read(&event); ++i) {
      QUIRE_FUZZ_CHECK(event.sequence() == request.from_sequence() + i);
      QUIRE_FUZZ_CHECK(v1::WatchResponse::Kind_IsValid(event.kind()) && event.key().size() == 32);
    }
    context.TryCancel();
    served_.store().events().Wake();
    while (stream->Read(&event)) {
    }
    CheckStatus(stream->Finish());
  }

  void AttachArena(const v1::AttachArenaRequest& request) {
    const Held before = served_.held();
    { KvArena another(stub_, request); }
    QUIRE_FUZZ_CHECK(served_.held() == before);
  }

  void PassTime(Input input) {
    const uint16_t ms = input.Short();
    time_has_passed_ = time_has_passed_ || ms > 0;
    served_.Advance(ms);
  }

  void InjectFault(Input input) {
    const bool corrupt = input.Byte() % 2 == 0;
    const uint32_t count = input.Byte() % 4;
    QUIRE_FUZZ_CHECK(served_.store()
                         .InjectFault(corrupt ? "corrupt_byte" : "allocation_failure", count, input.Short())
                         .ok());
  }

  static constexpr size_t kManyMessages = 10'000;
  Served& served_;
  Stub stub_;
  std::optional<KvArena> arena_;
  StoredBlocks blocks_;
  bool time_has_passed_ = false;
};

}  // namespace

const google::protobuf::Message* RequestOf(int call) {
  static const google::protobuf::Message* const kRequests[kCalls] = {
      &v1::RegisterLayoutRequest::default_instance(),
      &v1::LookupRequest::default_instance(),
      &v1::PutRequest::default_instance(),
      &v1::GetRequest::default_instance(),
      &v1::DeleteRequest::default_instance(),
      &v1::PinRequest::default_instance(),
      &v1::UnpinRequest::default_instance(),
      &v1::TouchRequest::default_instance(),
      &v1::PrefetchRequest::default_instance(),
      &v1::WatchRequest::default_instance(),
      &v1::AttachArenaRequest::default_instance(),
  };
  return kRequests[call];
}
int Calls() { return kCalls; }

}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire::fuzz;
  Served served;
  Client client(served);
  ByCall(Entries({data, size}, Calls()),
         [&](int call, std::span<const Entry> entries) { client.Run(call, entries); });
  return 0;
}
