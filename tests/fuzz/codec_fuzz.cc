// Every request of quire.v1.Codec. What Encode gives is an object that reads back, what Decode gives has the
// raw form's size, and neither leaves anything behind.
#include <cmath>
#include <map>
#include <string>

#include "core/block/object.h"
#include "quire/v1/codec.grpc.pb.h"
#include "services/store/engine/raw_form.h"
#include "services/store/wire/convert.h"
#include "tests/fuzz/served.h"

namespace quire::fuzz {
namespace {

using Stub = v1::Codec::Stub;
using DataOut = Answer<v1::CodecData>;

// Blocks of what came back, each whole.
std::vector<std::string> BlocksOf(const DataOut& answer) {
  std::vector<std::string> blocks;
  std::string bytes;
  for (const v1::CodecData& data : answer.responses) {
    QUIRE_FUZZ_CHECK(data.block() == blocks.size());
    bytes += data.data();
    if (!data.last()) continue;
    blocks.push_back(std::move(bytes));
    bytes.clear();
  }
  return blocks;
}

template <typename Request>
size_t EndedBlocks(const std::vector<Request>& requests) {
  return static_cast<size_t>(std::count_if(requests.begin(), requests.end(), [](const Request& request) {
    return request.has_data() && request.data().last();
  }));
}

Layout LayoutOf(const v1::Layout& message) {
  absl::StatusOr<Layout> layout = store::FromProto(message);
  QUIRE_FUZZ_CHECK(layout.ok());
  return *layout;
}
Part PartOf(const v1::Part& message, const Layout& layout) {
  Part part = store::FromProto(message);
  return part == Part{} ? Part::Whole(layout) : part;
}
uint64_t RawBytes(const Layout& layout, const Part& part, v1::DType dtype) {
  return store::RawFormBytes(layout, part, *store::FromProto(dtype));
}

void Decode(Stub& stub, const std::vector<v1::DecodeRequest>& requests) {
  DataOut answer = Both(stub, &Stub::Decode, requests);
  std::vector<std::string> blocks = BlocksOf(answer);
  QUIRE_FUZZ_CHECK(blocks.size() <= EndedBlocks(requests));
  if (blocks.empty()) return;
  const v1::DecodeStart& start = requests.front().start();
  Layout layout = LayoutOf(start.layout());
  uint64_t bytes = RawBytes(layout, PartOf(start.part(), layout), start.dtype());
  for (const std::string& block : blocks) QUIRE_FUZZ_CHECK(block.size() == bytes);
}

void Encode(Stub& stub, const std::vector<v1::EncodeRequest>& requests) {
  DataOut answer = Both(stub, &Stub::Encode, requests);
  std::vector<std::string> blocks = BlocksOf(answer);
  QUIRE_FUZZ_CHECK(blocks.size() <= EndedBlocks(requests));
  QUIRE_FUZZ_CHECK(!answer.ok() || blocks.size() == EndedBlocks(requests));
  if (blocks.empty()) return;
  const v1::EncodeStart& start = requests.front().start();
  Layout layout = LayoutOf(start.layout());
  Part part = PartOf(start.part(), layout);
  auto codec = *BlockCodec::Create(layout, part);
  std::vector<v1::DecodeRequest> back(1);
  *back[0].mutable_start()->mutable_layout() = start.layout();
  *back[0].mutable_start()->mutable_part() = start.part();
  back[0].mutable_start()->set_dtype(start.dtype());
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    BlockIdentity identity;
    identity.index = start.first_block() + i;
    absl::StatusOr<BlockReader> reader = BlockReader::Open(codec, identity, AsBytes(blocks[i]));
    QUIRE_FUZZ_CHECK(reader.ok() && reader->Verify().ok());
    v1::CodecData* data = back.emplace_back().mutable_data();
    data->set_block(i), data->set_data(blocks[i]), data->set_last(true);
  }
  DataOut decoded = Both(stub, &Stub::Decode, back);
  QUIRE_FUZZ_CHECK(decoded.ok() && BlocksOf(decoded).size() == blocks.size());
}

void Describe(Stub& stub, v1::DescribeRequest request) {
  Answer<v1::DescribeResponse> answer = Unary(stub, &Stub::Describe, request);
  if (!answer.ok()) return;
  const v1::DescribeResponse& response = answer.response();
  QUIRE_FUZZ_CHECK(response.fingerprint() == LayoutOf(request.layout()).Fingerprint().AsString());
  uint64_t bytes = response.header_bytes();
  for (int i = 0; i < response.object_bytes_size(); ++i) {
    QUIRE_FUZZ_CHECK(response.object_bytes(i) >= bytes);
    bytes = response.object_bytes(i);
    QUIRE_FUZZ_CHECK(std::isfinite(response.k_bits(i)) && std::isfinite(response.v_bits(i)));
  }
  request.set_codec(response.codec());
  Answer<v1::DescribeResponse> again = Unary(stub, &Stub::Describe, request);
  QUIRE_FUZZ_CHECK(again.ok() && again.response().SerializeAsString() == response.SerializeAsString());
}

void Call(Stub& stub, int call, std::span<const Entry> entries) {
  if (call == 0) return Encode(stub, AllParsed<v1::EncodeRequest>(entries));
  if (call == 1) return Decode(stub, AllParsed<v1::DecodeRequest>(entries));
  for (const Entry& entry : entries) Describe(stub, Parsed<v1::DescribeRequest>(entry.bytes));
}

}  // namespace

const google::protobuf::Message* RequestOf(int call) {
  if (call == 0) return &v1::EncodeRequest::default_instance();
  if (call == 1) return &v1::DecodeRequest::default_instance();
  return &v1::DescribeRequest::default_instance();
}
int Calls() { return 3; }

}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire::fuzz;
  Served served;
  const Held before = served.held();
  quire::v1::Codec::Stub stub(served.channel());
  ByCall(Entries({data, size}, Calls()),
         [&](int call, std::span<const Entry> entries) { Call(stub, call, entries); });
  QUIRE_FUZZ_CHECK(served.held() == before);
  return 0;
}
