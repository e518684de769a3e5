// The Codec and StoreAdmin services over the wire, and the metrics of a server.
#include "gmock/gmock.h"
#include "quire/v1/codec.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/store/api/limits.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class CodecServiceTest : public testing::Test {
 protected:
  CodecServiceTest() : served_(SmallStore()), codec_(v1::Codec::NewStub(served_.NewChannel())) {}

  struct Outcome {
    grpc::Status status;
    std::vector<std::string> blocks;  // whole ones
  };
  template <typename Request, typename Stream>
  static Outcome Exchange(Stream& stream, const std::vector<Request>& requests) {
    for (const Request& request : requests) {
      if (!stream.Write(request)) break;
    }
    stream.WritesDone();
    Outcome outcome;
    std::string block;
    for (v1::CodecData data; stream.Read(&data);) {
      EXPECT_EQ(data.block(), outcome.blocks.size());
      block += data.data();
      if (data.last()) outcome.blocks.push_back(std::move(block)), block.clear();
    }
    outcome.status = stream.Finish();
    return outcome;
  }
  Outcome Encode(const v1::EncodeStart& start, const std::vector<std::string>& blocks) {
    return Send<v1::EncodeRequest>(start, blocks, [&](auto* context) { return codec_->Encode(context); });
  }
  Outcome Decode(const v1::DecodeStart& start, const std::vector<std::string>& blocks) {
    return Send<v1::DecodeRequest>(start, blocks, [&](auto* context) { return codec_->Decode(context); });
  }
  template <typename Request, typename Start, typename Open>
  Outcome Send(const Start& start, const std::vector<std::string>& blocks, Open open) {
    std::vector<Request> requests(1);
    *requests[0].mutable_start() = start;
    for (uint32_t i = 0; i < blocks.size(); ++i) {
      for (size_t at = 0; at < blocks[i].size(); at += 10'000) {
        v1::CodecData* data = requests.emplace_back().mutable_data();
        data->set_block(i);
        data->set_data(blocks[i].substr(at, 10'000));
        data->set_last(at + 10'000 >= blocks[i].size());
      }
    }
    grpc::ClientContext context;
    auto stream = open(&context);
    return Exchange(*stream, requests);
  }
  v1::EncodeStart StartOf(const SampleChain& chain, const std::string& spec = "tq:k4v4") {
    v1::EncodeStart start;
    ToProto(chain.layout, start.mutable_layout());
    start.set_codec(spec);
    return start;
  }
  static std::vector<std::string> RawOf(const SampleChain& chain) {
    std::vector<std::string> raw;
    for (const auto& block : chain.raw) raw.emplace_back(AsString(block));
    return raw;
  }

  ServedStore served_;
  std::unique_ptr<v1::Codec::Stub> codec_;
};

TEST_F(CodecServiceTest, EncodesAndDecodes) {
  SampleChain chain(SampleLayout(), 3);
  Outcome encoded = Encode(StartOf(chain), RawOf(chain));
  ASSERT_TRUE(encoded.status.ok()) << encoded.status.error_message();
  ASSERT_EQ(encoded.blocks.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(encoded.blocks[i].size(), chain.objects[i].size());
    BlockHeader header = *ParseHeader(AsBytes(encoded.blocks[i]));
    EXPECT_EQ(header.identity.index, i);
    EXPECT_EQ(header.sink_tokens, i == 0 ? kMaxSinkTokens : 0);
  }
  v1::DecodeStart start;
  ToProto(chain.layout, start.mutable_layout());
  start.set_dtype(v1::F32);
  Outcome decoded = Decode(start, encoded.blocks);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status.error_message();
  ASSERT_EQ(decoded.blocks.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_EQ(decoded.blocks[i].size(), 2 * chain.raw[i].size());
    double error = 0, norm = 0;
    for (size_t e = 0; e < chain.raw[i].size() / 2; ++e) {
      float x = LoadElement(DType::kBf16, chain.raw[i].data(), e),
            y = LoadElement(DType::kF32, decoded.blocks[i].data(), e);
      error += (x - y) * (x - y), norm += x * x;
    }
    EXPECT_LT(error / norm, 0.015);
  }
  start.set_max_bits(2);
  EXPECT_NE(Decode(start, encoded.blocks).blocks, decoded.blocks);
  EXPECT_EQ(served_.engine().Stats()->blocks_stored, 0u);
}

TEST_F(CodecServiceTest, CodecsOfOneLevel) {
  for (auto [spec, k_bits, v_bits, limit] : {std::tuple("fp8", 8.25, 8.25, 1.5e-3),
                                             {"tq_prod:k8v6", 8.5, 6.5, 5e-3},
                                             {"tq_prod:k2v4", 2.5, 4.5, 0.4}}) {
    SCOPED_TRACE(spec);
    SampleChain chain(SampleLayout(), 2, spec);
    Outcome encoded = Encode(StartOf(chain, spec), RawOf(chain));
    ASSERT_TRUE(encoded.status.ok()) << encoded.status.error_message();
    v1::DecodeStart start;
    ToProto(chain.layout, start.mutable_layout());
    start.set_dtype(v1::F32);
    Outcome decoded = Decode(start, encoded.blocks);
    ASSERT_TRUE(decoded.status.ok()) << decoded.status.error_message();
    start.set_max_bits(2);
    EXPECT_EQ(Decode(start, encoded.blocks).blocks, decoded.blocks);  // there is nothing to leave out
    ASSERT_EQ(decoded.blocks.size(), 2u);
    for (uint32_t i = 0; i < 2; ++i) {
      double error = 0, norm = 0;
      for (size_t e = 0; e < chain.raw[i].size() / 2; ++e) {
        float x = LoadElement(DType::kBf16, chain.raw[i].data(), e),
              y = LoadElement(DType::kF32, decoded.blocks[i].data(), e);
        error += (x - y) * (x - y), norm += x * x;
      }
      EXPECT_LT(error / norm, limit);
    }
    v1::DescribeRequest request;
    ToProto(chain.layout, request.mutable_layout());
    request.set_codec(spec);
    v1::DescribeResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(codec_->Describe(&context, request, &response).ok());
    EXPECT_EQ(response.codec(), spec);
    ASSERT_EQ(response.object_bytes_size(), 1);
    EXPECT_EQ(response.object_bytes(0), encoded.blocks[1].size());
    EXPECT_EQ(response.k_bits(0), k_bits);
    EXPECT_EQ(response.v_bits(0), v_bits);
  }
}

TEST_F(CodecServiceTest, RefusesBadStreams) {
  SampleChain chain(SampleLayout(), 1);
  auto expect = [](const Outcome& outcome, StatusCode code, const std::string& text) {
    EXPECT_EQ(outcome.status.error_code(), code);
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(text));
    EXPECT_TRUE(outcome.blocks.empty());
  };
  std::string raw = RawOf(chain)[0];
  expect(Encode(StartOf(chain), {raw.substr(2)}), StatusCode::INVALID_ARGUMENT, "the raw form has");
  expect(Encode(StartOf(chain), {raw + "xx"}), StatusCode::INVALID_ARGUMENT, "more than");
  expect(Encode(StartOf(chain, "tq:k9v4"), {raw}), StatusCode::INVALID_ARGUMENT, "");
  expect(Encode(StartOf(chain, "tq:k4v4,layers=7:k2v2"), {raw}), StatusCode::INVALID_ARGUMENT,
         "names layer 7");
  expect(Encode(v1::EncodeStart(), {raw}), StatusCode::INVALID_ARGUMENT, "model_digest");
  std::string infinite = raw;
  infinite[0] = '\x80', infinite[1] = '\x7f';
  expect(Encode(StartOf(chain), {infinite}), StatusCode::INVALID_ARGUMENT, "token 0");

  v1::DecodeStart start;
  ToProto(chain.layout, start.mutable_layout());
  std::string object(AsString(chain.objects[0]));
  object[object.size() / 2] ^= 1;
  expect(Decode(start, {object}), StatusCode::DATA_LOSS, "block 0");
  expect(Decode(start, {object.substr(0, 100)}), StatusCode::DATA_LOSS, "block 0");

  grpc::ClientContext context;
  v1::EncodeRequest begin, data;
  *begin.mutable_start() = StartOf(chain);
  data.mutable_data()->set_data(raw.substr(0, 100));
  auto stream = codec_->Encode(&context);
  expect(Exchange<v1::EncodeRequest>(*stream, {begin, data}), StatusCode::INVALID_ARGUMENT,
         "ended within block 0, after 100");
}

TEST_F(CodecServiceTest, DescribesWhatAnEncodingCosts) {
  SampleChain chain(SampleLayout(), 2, "tq:k4v3");
  v1::DescribeRequest request;
  ToProto(chain.layout, request.mutable_layout());
  request.set_codec("tq:k4v3,effort=1");
  v1::DescribeResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(codec_->Describe(&context, request, &response).ok());
  EXPECT_EQ(response.codec(), "tq:k4v3,effort=1");
  EXPECT_EQ(response.fingerprint(), chain.fingerprint.AsString());
  EXPECT_EQ(response.raw_bytes(), chain.raw[1].size());
  ASSERT_EQ(response.object_bytes_size(), 3);
  EXPECT_EQ(response.object_bytes(2), chain.objects[1].size());
  ASSERT_EQ(response.k_bits_size(), 3);
  // All bits of K and V together are the object without its header.
  double elements = static_cast<double>(chain.raw[1].size()) / 2 / 2;
  EXPECT_NEAR((response.k_bits(2) + response.v_bits(2)) * elements / 8,
              static_cast<double>(response.object_bytes(2) - response.header_bytes()), 1e-6);
  EXPECT_GT(response.k_bits(2), 4);
  EXPECT_LT(response.k_bits(2), 5);
  EXPECT_GT(response.v_bits(2), 3);
  EXPECT_LT(response.v_bits(2), 4);
  EXPECT_LT(response.k_bits(0), response.k_bits(1));
}

TEST_F(CodecServiceTest, AdminTellsStatsAndGuardsFaults) {
  auto admin = v1::StoreAdmin::NewStub(served_.NewChannel());
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  v1::StatsResponse stats;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->Stats(&context, {}, &stats).ok());
  EXPECT_EQ(stats.blocks_stored(), 2u);
  ASSERT_EQ(stats.tiers_size(), 1);
  EXPECT_EQ(stats.tiers(0).tier(), v1::HOST);
  EXPECT_FALSE(stats.version().empty());

  v1::InjectFaultRequest fault;
  fault.set_point("corrupt_byte");
  fault.set_count(1);
  v1::InjectFaultResponse none;
  grpc::ClientContext fault_context;
  EXPECT_EQ(admin->InjectFault(&fault_context, fault, &none).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(runtime::Exposition(served_.registry()),
              HasSubstr("quire_store_rpcs_total{method=\"Stats\"} 1"));
}

TEST(StoreMetrics, AreThereBeforeTheFirstEventAndCountIt) {
  LocalStoreOptions options = SmallStore();
  options.registry = runtime::NewRegistry();
  options.enable_faults = true;
  auto store = *LocalStore::Create(options);
  auto has = [&](const std::string& line) {
    EXPECT_THAT(runtime::Exposition(*options.registry), HasSubstr("\n" + line + "\n"));
  };
  has("quire_store_lookups_total 0");
  has("quire_store_checksum_failures_total 0");
  has("quire_store_put_sessions 0");
  has("quire_store_compression_ratio 0");
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  EXPECT_EQ(StoredPrefix(*store, chain), 3u);
  ASSERT_TRUE(store->InjectFault("corrupt_byte", 1).ok());
  GetAll(*store, chain.ns(), chain.identities);
  has("quire_store_lookups_total 1");
  has("quire_store_hit_tokens_total 192");
  has("quire_store_miss_tokens_total 0");
  has("quire_store_blocks_stored_total 3");
  has("quire_store_checksum_failures_total 1");
  has("quire_store_blocks{tier=\"host\"} 2");
  has("quire_store_raw_bytes " + std::to_string(2 * chain.layout.RawBlockBytes()));
  EXPECT_EQ(store->InjectFault("lightning", 1).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire::store
