// Writes the seeds of the kept corpus into FOLDER/<fuzzer>/: valid objects, layouts, records and whole
// conversations with a store, from which the fuzzers begin. Run again, it writes the same files.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "quire/v1/codec.pb.h"
#include "quire/v1/kv_store.pb.h"
#include "quire/v1/store_admin.pb.h"
#include "services/store/redis/stored_record.h"
#include "services/store/tier/object_tier.h"
#include "services/store/wire/convert.h"
#include "tests/fuzz/chain.h"
#include "tests/fuzz/layouts.h"

namespace quire::fuzz {
namespace {

std::string root;

void Write(const std::string& fuzzer, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(root + "/" + fuzzer);
  std::ofstream(root + "/" + fuzzer + "/" + name, std::ios::binary) << bytes;
}

// An input that begins with the number of what is to be done with the rest.
std::string Numbered(int number, std::string_view rest) {
  std::string input(1, static_cast<char>(number));
  return input.append(rest);
}

std::string Entry(int call, const std::string& bytes) {
  std::string entry = {static_cast<char>(call), static_cast<char>(bytes.size() & 255),
                       static_cast<char>(bytes.size() >> 8)};
  return entry + bytes;
}

// Between two streams of one call: no time passes.
const std::string kNextStream = Entry(12, "");

std::string Entry(int call, const google::protobuf::Message& message) {
  return Entry(call, message.SerializeAsString());
}

void Objects() {
  constexpr const char* kSpecs[] = {"tq:k4v4", "tq:k8v5", "tq:k2v2", "raw", "fp8", "tq_prod:k3v3"};
  for (size_t l = 0; l < Layouts().size(); ++l) {
    for (const char* spec : kSpecs) {
      if (l > 1 && spec != kSpecs[l % 6]) continue;  // larger ones: one each
      Chain chain = MakeChain(Layouts()[l], spec, 2);
      std::string mode(1, static_cast<char>(l << 2 | 2));
      std::string name = absl::StrCat("layout", l, "_", spec);
      std::replace(name.begin(), name.end(), ':', '_');
      Write("object", name + "_sinks", mode + std::string(AsString(chain.objects[0])));
      Write("object", name, mode + std::string(AsString(chain.objects[1])));
    }
  }
}

void KeysAndRecords() {
  Write("keys", "chain", std::string("\0abcd\2ss\1x\x07", 10) + std::string(200, 't'));
  for (size_t l = 0; l < Layouts().size(); ++l)
    Write("keys", absl::StrCat("layout", l), Numbered(1, AsString(Layouts()[l].Serialize())));
  for (const char* spec :
       {"raw", "fp8", "tq", "tq:k8v2,effort=3,layers=0-3:k4v4,layers=7:k2v2", "tq_prod:k3v4"})
    Write("keys", absl::StrCat("spec", std::string(spec).size()), Numbered(2, spec));

  store::ObjectRecord record;
  record.levels = 2, record.ends = {500, 600, 700, 0}, record.header_bytes = 400;
  record.raw_bytes = 9, record.codec = "tq:k4v4", record.expires_ms = 5, record.priority = -3;
  Write("record", "record", Numbered(0, record.Serialize()));
  Write("record", "resealed", Numbered(1, record.Serialize()));
  store::ObjectName name{};
  name.part = {0, 1, 0, 1};
  Write("record", "name", Numbered(2, name.Encode()));
  Write("record", "shared", Numbered(3, store::redis::StoredRecord{7, {}, record}.Serialize({}, {})));
  store::redis::Seal seal("0123456789abcdef");
  store::redis::StoredRecord sealed{7, std::vector<store::redis::Seal::Code>(2), record};
  Write("record", "shared_sealed", Numbered(4, sealed.Serialize(seal, {})));
}

void IdentityFiles() {
  std::string test = Sha256().Update("test").Finish().Hex();  // the token that the fuzzer shows
  std::string client =
      absl::StrCat(R"({"name": "a", "role": "client", "tenant": "a", "token_sha256": ")", test, "\"}\n");
  std::string other = R"({"name": "b", "role": "delegate", "certificate": ["b.example", "c.example"]})";
  Write("identities", "client", absl::StrCat("# people\n\n", client, other, "\n"));
  Write("identities", "admin",
        absl::StrCat(R"({"name": "o", "role": "admin", "token_sha256": [")", test, "\", \"",
                     std::string(64, '0'), "\"]}"));
  Write("identities", "twice", absl::StrCat(client, client));
}

v1::PutRequest Data(uint32_t block, uint64_t offset, Bytes bytes) {
  v1::PutRequest request;
  request.mutable_data()->set_block(block), request.mutable_data()->set_offset(offset);
  request.mutable_data()->set_data(std::string(AsString(bytes)));
  return request;
}

std::string Put(const Chain& chain, const std::string& encode, uint64_t ttl_ms = 60'000) {
  v1::PutRequest announce;
  v1::Namespace* ns = announce.mutable_announce()->mutable_namespace_();
  store::ToProto({"", chain.layout.Fingerprint()}, ns);
  const auto& bytes = encode.empty() ? chain.objects : chain.raw;
  for (size_t i = 0; i < bytes.size(); ++i)
    store::ToProto(chain.identities[i], bytes[i].size(), announce.mutable_announce()->add_blocks());
  announce.mutable_announce()->set_encode(encode);
  announce.mutable_announce()->set_ttl_ms(ttl_ms), announce.mutable_announce()->set_priority(1);
  std::string out = Entry(2, announce);
  for (uint32_t i = 0; i < bytes.size(); ++i) {
    out += Entry(2, Data(i, 0, Bytes(bytes[i]).first(100)));
    out += Entry(2, Data(i, 100, Bytes(bytes[i]).subspan(100)));
  }
  return out;
}

// A block's second layer, raw, then all of it as codes.
std::string PutPartAndWhole(const Chain& chain) {
  const Part second{1, 2, 0, 1};
  const uint64_t bytes = store::RawFormBytes(chain.layout, second, chain.layout.dtype);
  v1::PutRequest announce;
  store::ToProto({"", chain.layout.Fingerprint()}, announce.mutable_announce()->mutable_namespace_());
  store::ToProto(second, announce.mutable_announce()->mutable_part());
  store::ToProto(chain.identities[0], bytes, announce.mutable_announce()->add_blocks());
  announce.mutable_announce()->set_encode("raw");
  return Entry(2, announce) + Entry(2, Data(0, 0, Bytes(chain.raw[0]).last(bytes))) + kNextStream +
         Put(chain, "");
}

template <typename Request>
Request AboutKeys(const Chain& chain) {
  Request request;
  store::ToProto({"", chain.layout.Fingerprint()}, request.mutable_namespace_());
  for (const BlockIdentity& identity : chain.identities)
    request.add_keys(std::string(identity.key.AsString()));
  return request;
}

v1::GetRequest GetAll(const Chain& chain, v1::GetRequest::Order order, bool decode) {
  v1::GetRequest request;
  store::ToProto({"", chain.layout.Fingerprint()}, request.mutable_namespace_());
  for (const BlockIdentity& identity : chain.identities) store::ToProto(identity, 0, request.add_blocks());
  request.set_order(order);
  store::ToProto(Part::Whole(chain.layout), request.mutable_part());
  if (decode) request.mutable_decode()->set_dtype(v1::F16);
  request.set_max_bits(3);
  return request;
}
std::string Get(const Chain& chain, v1::GetRequest::Order order, bool decode) {
  return Entry(3, GetAll(chain, order, decode));
}

// The blocks' bytes side by side in shared memory, and read back into the room behind them.
std::string PutAndGetInArena(const Chain& chain) {
  v1::PutRequest announce;
  announce.mutable_announce()->set_arena("a");
  store::ToProto({"", chain.layout.Fingerprint()}, announce.mutable_announce()->mutable_namespace_());
  std::string fills, chunks;
  uint64_t offset = 0;
  for (uint32_t i = 0; i < chain.objects.size(); ++i) {
    const std::vector<uint8_t>& object = chain.objects[i];
    store::ToProto(chain.identities[i], object.size(), announce.mutable_announce()->add_blocks());
    std::string at = {static_cast<char>(offset & 255), static_cast<char>(offset >> 8)};
    fills += Entry(11, at + std::string(AsString(object)));
    v1::PutRequest chunk = Data(i, 0, {});
    chunk.mutable_data()->mutable_arena_range()->set_offset(offset);
    chunk.mutable_data()->mutable_arena_range()->set_length(object.size());
    chunks += Entry(2, chunk);
    offset += object.size();
  }
  v1::GetRequest get = GetAll(chain, v1::GetRequest::BY_LAYER, false);
  get.set_arena("a");
  for (uint64_t length : {100, 10'000}) {
    v1::ArenaRange* range = get.add_arena_ranges();
    range->set_offset(offset), range->set_length(length);
    offset += length;
  }
  return fills + Entry(2, announce) + chunks + Entry(3, get);
}

void KvCalls() {
  Chain chain = MakeChain(Layouts()[0], "tq:k4v4", 2);
  v1::RegisterLayoutRequest layout;
  store::ToProto(chain.layout, layout.mutable_layout());
  std::string registered = Entry(0, layout);
  auto lookup = AboutKeys<v1::LookupRequest>(chain);
  lookup.set_lease_ms(1000), lookup.set_all(true);
  store::ToProto(Part::Whole(chain.layout), lookup.mutable_part());
  auto remove = AboutKeys<v1::DeleteRequest>(chain);
  remove.set_force(true);
  auto prefetch = AboutKeys<v1::PrefetchRequest>(chain);
  prefetch.set_tier(v1::HOST);
  v1::WatchRequest watch;
  store::ToProto({"", chain.layout.Fingerprint()}, watch.mutable_namespace_());
  v1::AttachArenaRequest arena;
  arena.mutable_namespace_()->set_tenant("a"), arena.set_bytes(1 << 16);

  std::string put = Put(chain, "");
  Write("kv", "put_lookup_get",
        registered + put + Entry(1, lookup) + Get(chain, v1::GetRequest::BY_BLOCK, false));
  Write("kv", "put_raw_get_layers",
        registered + Put(chain, "tq:k4v2") + Get(chain, v1::GetRequest::BY_LAYER, false) +
            Get(chain, v1::GetRequest::BY_LAYER, true));
  Write("kv", "put_get_levels", registered + put + Get(chain, v1::GetRequest::BY_LEVEL, false));
  Write("kv", "keys",
        registered + put + Entry(5, AboutKeys<v1::PinRequest>(chain)) +
            Entry(7, AboutKeys<v1::TouchRequest>(chain)) + Entry(8, prefetch) +
            Entry(6, AboutKeys<v1::UnpinRequest>(chain)) + Entry(4, remove));
  watch.mutable_namespace_()->clear_fingerprint(), watch.set_from_sequence(1);
  Write("kv", "watch", registered + put + Entry(9, watch));
  Write("kv", "arena", registered + Entry(10, arena));
  const std::string second = {12, 2, 0, static_cast<char>(1000 & 255), static_cast<char>(1000 >> 8)};
  const std::string short_lived = Put(chain, "", /*ttl_ms=*/500),
                    get = Get(chain, v1::GetRequest::BY_BLOCK, false);
  Write("kv", "expired_put_again", registered + short_lived + second + get + short_lived + get);
  Write("kv", "expired_while_pinned",
        registered + short_lived + Entry(5, AboutKeys<v1::PinRequest>(chain)) + second + get + short_lived +
            get + Entry(6, AboutKeys<v1::UnpinRequest>(chain)) + get + short_lived + get);
  Chain other = MakeChain(Layouts()[1], "tq:k2v2", 1);
  v1::RegisterLayoutRequest other_layout;
  store::ToProto(other.layout, other_layout.mutable_layout());
  auto remove_other = AboutKeys<v1::DeleteRequest>(other);
  Write("kv", "parts",
        Entry(0, other_layout) + PutPartAndWhole(other) + Get(other, v1::GetRequest::BY_LAYER, true) +
            Entry(4, remove_other));
  const std::string corrupt = {13, 4, 0, 0, 1, 50, 0}, no_memory = {13, 4, 0, 1, 1, 0, 0};
  Write("kv", "corrupt_and_put_again", registered + put + corrupt + get + put + get);
  Write("kv", "no_memory", registered + no_memory + put + kNextStream + put + get);
  Write("kv", "put_get_in_arena", registered + PutAndGetInArena(chain));
}

void CodecCalls() {
  for (size_t l = 0; l < 3; ++l) {
    Chain chain = MakeChain(Layouts()[l], l == 1 ? "tq_prod:k3v3" : "tq:k4v4", 1);
    v1::EncodeRequest start, data;
    store::ToProto(chain.layout, start.mutable_start()->mutable_layout());
    start.mutable_start()->set_codec("tq:k4v4,effort=1");
    start.mutable_start()->set_dtype(store::ToProto(chain.layout.dtype));
    data.mutable_data()->set_data(std::string(AsString(chain.raw[0]))), data.mutable_data()->set_last(true);
    Write("codec", absl::StrCat("encode", l), Entry(0, start) + Entry(0, data));
    v1::DecodeRequest decode, object;
    store::ToProto(chain.layout, decode.mutable_start()->mutable_layout());
    decode.mutable_start()->set_max_bits(3);
    object.mutable_data()->set_data(std::string(AsString(chain.objects[0]))),
        object.mutable_data()->set_last(true);
    Write("codec", absl::StrCat("decode", l), Entry(1, decode) + Entry(1, object));
    v1::DescribeRequest describe;
    store::ToProto(chain.layout, describe.mutable_layout());
    describe.set_codec("tq:k3v4");
    Write("codec", absl::StrCat("describe", l), Entry(2, describe));
  }
}

void AdminCalls() {
  v1::Quota quota;
  quota.set_tenant("a"), quota.set_bytes(1 << 20);
  v1::GetQuotaRequest asked;
  asked.set_tenant("a");
  v1::DeleteTenantRequest tenant;
  tenant.set_tenant("a");
  v1::VerifyRequest verify;
  verify.set_tier(v1::HOST), verify.set_bytes_per_second(1 << 20);
  v1::InjectFaultRequest fault;
  fault.set_point("corrupt_byte"), fault.set_count(2);
  v1::DrainRequest drain;
  drain.set_deadline_ms(10);
  verify.set_tier(v1::TIER_NONE);
  Write("admin", "corrupt",
        Entry(5, fault) + Entry(4, verify) + Entry(0, v1::StatsRequest()) + Entry(3, tenant));
  verify.set_tier(v1::HOST);
  Write("admin", "all",
        Entry(0, v1::StatsRequest()) + Entry(2, quota) + Entry(1, asked) + Entry(3, tenant) +
            Entry(4, verify) + Entry(5, fault) + Entry(6, drain) + Entry(0, v1::StatsRequest()));
}

}  // namespace
}  // namespace quire::fuzz

int main(int argc, char** argv) {
  if (argc != 2) return std::cerr << "usage: make_corpus FOLDER\n", 2;
  quire::fuzz::root = argv[1];
  quire::fuzz::Objects();
  quire::fuzz::KeysAndRecords();
  quire::fuzz::IdentityFiles();
  quire::fuzz::KvCalls();
  quire::fuzz::CodecCalls();
  quire::fuzz::AdminCalls();
  return 0;
}
