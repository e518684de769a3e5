// KvStore.Get in its orders and forms.
#include <cmath>
#include <map>

#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/limits.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using grpc::StatusCode;

// What a Get brought, by block.
struct Came {
  std::map<uint64_t, uint8_t> bytes;  // by offset: shows gaps and overlaps
  uint64_t total = 0;
  uint32_t levels = 0;
  std::vector<int32_t> layers;  // in the order of the chunks
};

class GetStreamTest : public testing::Test {
 protected:
  explicit GetStreamTest(StoreServicesOptions services = {}, LocalStoreOptions store = SmallStore(64 << 20))
      : served_(store, services) {
    stub_ = v1::KvStore::NewStub(served_.NewChannel());
  }
  v1::GetRequest Request(const SampleChain& chain) {
    v1::GetRequest request;
    ToProto(chain.ns(), request.mutable_namespace_());
    for (const BlockIdentity& block : chain.identities) ToProto(block, 0, request.add_blocks());
    return request;
  }
  grpc::Status Get(const v1::GetRequest& request) {
    came_.clear();
    misses_.clear();
    order_.clear();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    auto stream = stub_->Get(&context, request);
    for (v1::GetResponse response; stream->Read(&response);) {
      if (response.has_miss()) {
        misses_[response.miss().block()] = response.miss().code();
        continue;
      }
      const v1::BlockData& data = response.data();
      EXPECT_LE(data.data().size(), kChunkBytes);
      EXPECT_FALSE(data.data().empty());
      Came& came = came_[data.block()];
      for (size_t i = 0; i < data.data().size(); ++i) {
        EXPECT_TRUE(came.bytes.emplace(data.offset() + i, static_cast<uint8_t>(data.data()[i])).second)
            << "sent twice";
      }
      came.total = data.object_bytes();
      came.levels = data.levels();
      came.layers.push_back(data.layer());
      order_.push_back({data.block(), data.layer(), data.offset()});
    }
    return stream->Finish();
  }
  // All of [0, total), in one piece.
  static std::vector<uint8_t> Whole(const Came& came) {
    std::vector<uint8_t> bytes;
    for (auto [offset, byte] : came.bytes) {
      EXPECT_EQ(offset, bytes.size()) << "a gap";
      bytes.push_back(byte);
    }
    EXPECT_EQ(bytes.size(), came.total);
    return bytes;
  }

  struct Chunk {
    uint32_t block;
    int32_t layer;
    uint64_t offset;
  };
  ServedStore served_;
  std::unique_ptr<v1::KvStore::Stub> stub_;
  std::map<uint32_t, Came> came_;
  std::map<uint32_t, int32_t> misses_;
  std::vector<Chunk> order_;
};

TEST_F(GetStreamTest, EveryOrderGivesTheSameBytes) {
  SampleChain chain(SampleLayout(3), 3, "tq:k4v3,layers=1:k8v8");
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  for (auto order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER, v1::GetRequest::BY_LEVEL}) {
    v1::GetRequest request = Request(chain);
    request.set_order(order);
    ASSERT_TRUE(Get(request).ok());
    ASSERT_EQ(came_.size(), 3u);
    for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(Whole(came_[i]), chain.objects[i]) << "order " << order;
  }
}

// Bytes are verified as they are sent: those that turn out wrong behind good ones of the same block end it.
class WrongBytes : public GetStreamTest {
 protected:
  WrongBytes() : GetStreamTest({}, WithFaults()) {}
  static LocalStoreOptions WithFaults() {
    LocalStoreOptions options = SmallStore(64 << 20);
    options.enable_faults = true;
    return options;
  }
};

TEST_F(WrongBytes, BehindGoodOnesAreNeverSent) {
  SampleChain chain(SampleLayout(3), 2);
  for (auto order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER, v1::GetRequest::BY_LEVEL}) {
    ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
    BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[0], chain.objects[0]);
    const Extent wrong = reader.slices().layer(1, 2);  // level 1 of the last layer
    ASSERT_TRUE(
        served_.engine().InjectFault("corrupt_byte", 1, wrong.offset - reader.slices().level(0).offset).ok());
    v1::GetRequest request = Request(chain);
    request.set_order(order);
    ASSERT_TRUE(Get(request).ok());
    EXPECT_EQ(misses_, (std::map<uint32_t, int32_t>{{0, static_cast<int32_t>(StatusCode::DATA_LOSS)}}));
    for (auto [offset, byte] : came_[0].bytes) EXPECT_TRUE(offset < wrong.offset || offset >= wrong.end());
    EXPECT_EQ(Whole(came_[1]), chain.objects[1]) << "order " << order;
    EXPECT_EQ(StoredPrefix(served_.engine(), chain), 0u);  // dropped
  }
}

TEST_F(WrongBytes, AreNotDecoded) {
  SampleChain chain(SampleLayout(3), 1);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  ASSERT_TRUE(served_.engine().InjectFault("corrupt_byte", 1, 0).ok());
  v1::GetRequest request = Request(chain);
  request.mutable_decode()->set_dtype(v1::DType::F32);
  ASSERT_TRUE(Get(request).ok());
  EXPECT_EQ(misses_.count(0), 1u);
  EXPECT_TRUE(came_.empty());
}

TEST_F(GetStreamTest, ByLayerSendsHeadersFirstAndThenLayerByLayer) {
  SampleChain chain(SampleLayout(3), 2);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  v1::GetRequest request = Request(chain);
  request.set_order(v1::GetRequest::BY_LAYER);
  ASSERT_TRUE(Get(request).ok());
  EXPECT_TRUE(std::ranges::is_sorted(order_, {}, &Chunk::layer));
  EXPECT_EQ(order_.front().layer, -1);
  EXPECT_EQ(order_.back().layer, 2);
  // Each header alone is enough to read what comes.
  BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[1], chain.objects[1]);
  for (const Chunk& chunk : order_) {
    EXPECT_TRUE(chunk.layer >= 0 || chunk.offset == 0);
    if (chunk.block == 1 && chunk.layer >= 0) {
      bool within = false;
      for (int level = 0; level < 3; ++level)
        within |= reader.slices().layer(level, static_cast<uint32_t>(chunk.layer)).offset == chunk.offset;
      EXPECT_TRUE(within);
    }
  }
}

TEST_F(GetStreamTest, ByLevelSendsCoarseBeforeFine) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  v1::GetRequest request = Request(chain);
  request.set_order(v1::GetRequest::BY_LEVEL);
  request.set_max_bits(3);
  ASSERT_TRUE(Get(request).ok());
  bool fine = false;
  for (uint32_t i = 0; i < 2; ++i) {
    BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[i], chain.objects[i]);
    EXPECT_EQ(came_[i].levels, 2u);
    EXPECT_EQ(Whole(came_[i]),
              std::vector<uint8_t>(chain.objects[i].begin(),
                                   chain.objects[i].begin() + reader.slices().ObjectBytes(2)));
  }
  for (const Chunk& chunk : order_) {
    BlockReader reader =
        *BlockReader::Open(chain.codec, chain.identities[chunk.block], chain.objects[chunk.block]);
    bool in_level_1 = chunk.offset >= reader.slices().level(1).offset;
    EXPECT_FALSE(fine && !in_level_1);
    fine |= in_level_1;
  }
  EXPECT_TRUE(fine);
}

TEST_F(GetStreamTest, APartBringsOnlyItsLayersAndHeads) {
  SampleChain chain(SampleLayout(3), 1);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[0], chain.objects[0]);
  const SliceMap& slices = reader.slices();
  for (auto order : {v1::GetRequest::BY_LAYER, v1::GetRequest::BY_LEVEL}) {
    v1::GetRequest request = Request(chain);
    request.set_order(order);
    ToProto(Part{1, 2, 1, 2}, request.mutable_part());
    ASSERT_TRUE(Get(request).ok());
    std::map<uint64_t, uint8_t> expected;
    auto add = [&](const Extent& e) {
      for (uint64_t at = e.offset; at < e.end(); ++at) expected[at] = chain.objects[0][at];
    };
    add({0, slices.level(0).offset});
    add(slices.sinks(1));
    for (int level = 0; level < slices.levels(); ++level) add(slices.slice(level, 1, 1));
    EXPECT_EQ(came_[0].bytes, expected);
  }
}

TEST_F(GetStreamTest, DecodesToTensorsOfTheTypeAskedFor) {
  SampleChain chain(SampleLayout(3), 2);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  for (auto order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER}) {
    for (DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
      for (Part part : {Part{0, 3, 0, 2}, Part{1, 3, 1, 2}}) {
        v1::GetRequest request = Request(chain);
        request.set_order(order);
        request.mutable_decode()->set_dtype(ToProto(dtype));
        ToProto(part, request.mutable_part());
        ASSERT_TRUE(Get(request).ok());
        std::vector<uint8_t> got = Whole(came_[1]);
        // Element by element from the reader: [layer][K, V][token][head][d].
        BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[1], chain.objects[1]);
        std::vector<float> k(64 * 2 * 64), v(64 * 2 * 64);
        size_t at = 0, wrong = 0;
        for (uint32_t layer = part.layer_begin; layer < part.layer_end; ++layer) {
          MutableLayerView view{{k.data(), DType::kF32, 128, 64}, {v.data(), DType::kF32, 128, 64}};
          ASSERT_TRUE(reader.DecodeLayer(layer, reader.levels(), view).ok());
          for (const std::vector<float>* stream : {&k, &v}) {
            for (uint32_t token = 0; token < 64; ++token) {
              for (uint32_t head = part.head_begin; head < part.head_end; ++head) {
                for (uint32_t c = 0; c < 64; ++c, ++at) {
                  float expected = (*stream)[token * 128 + head * 64 + c];
                  float seen = LoadElement(dtype, got.data(), at);
                  wrong += std::abs(seen - expected) > std::abs(expected) / 128;
                }
              }
            }
          }
        }
        EXPECT_EQ(at * SizeOf(dtype), got.size());
        EXPECT_EQ(wrong, 0u);
      }
    }
  }
}

TEST_F(GetStreamTest, SendsTheFewestLevelsThatAreGoodEnough) {
  SampleChain chain(SampleLayout(), 1, "tq:k8v8");
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  BlockHeader header = *ParseHeader(chain.objects[0]);
  v1::GetRequest request = Request(chain);
  float before = 1;
  for (int level = 0; level < 4; ++level) {
    float worst = 0;
    for (const auto& e : header.relative_error[level]) worst = std::max({worst, e[0], e[1]});
    ASSERT_LT(worst, before);
    before = worst;
    request.set_max_relative_error(worst * 1.001f);
    ASSERT_TRUE(Get(request).ok());
    EXPECT_EQ(came_[0].levels, static_cast<uint32_t>(level) + 1);
  }
  request.set_max_relative_error(1e-9f);
  ASSERT_TRUE(Get(request).ok());
  EXPECT_EQ(came_[0].levels, 4u);
}

TEST_F(GetStreamTest, MissingBlocksAreToldOnceAndSendNothing) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  ASSERT_EQ(*served_.engine().Delete(chain.ns(), {{chain.identities[1].key}}, false), 1u);
  for (auto order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER, v1::GetRequest::BY_LEVEL}) {
    v1::GetRequest request = Request(chain);
    request.set_order(order);
    ASSERT_TRUE(Get(request).ok());
    EXPECT_EQ(misses_, (std::map<uint32_t, int32_t>{{1, StatusCode::NOT_FOUND}}));
    EXPECT_EQ(came_.size(), 2u);
    EXPECT_EQ(Whole(came_[2]), chain.objects[2]);
  }
}

TEST_F(GetStreamTest, RefusesWhatItCannotDo) {
  SampleChain chain(SampleLayout(), 1);
  ASSERT_TRUE(PutChain(served_.engine(), chain).ok());
  auto expect_invalid = [&](auto change) {
    v1::GetRequest request = Request(chain);
    change(request);
    EXPECT_EQ(Get(request).error_code(), StatusCode::INVALID_ARGUMENT) << request.ShortDebugString();
    EXPECT_TRUE(came_.empty());
  };
  expect_invalid([](v1::GetRequest& r) { r.set_order(static_cast<v1::GetRequest::Order>(17)); });
  expect_invalid([](v1::GetRequest& r) { r.set_max_relative_error(NAN); });
  expect_invalid([](v1::GetRequest& r) { r.set_max_relative_error(-1); });
  expect_invalid([](v1::GetRequest& r) { r.mutable_decode()->set_dtype(static_cast<v1::DType>(9)); });
  expect_invalid([](v1::GetRequest& r) { r.mutable_decode(), r.set_order(v1::GetRequest::BY_LEVEL); });
  expect_invalid(
      [](v1::GetRequest& r) { r.mutable_part()->set_layer_end(9), r.mutable_part()->set_head_end(1); });
  expect_invalid([](v1::GetRequest& r) { r.mutable_blocks(0)->set_parent("x"); });
  expect_invalid([](v1::GetRequest& r) {
    for (size_t i = 0; i < kMaxBlocks; ++i) *r.add_blocks() = r.blocks(0);
  });
}

// More bytes than the transport buffers: the server has to wait for its reader.
class LongGet : public GetStreamTest {
 protected:
  static constexpr uint32_t kBlocks = 40;  // of half a MiB

  explicit LongGet(StoreServicesOptions services = {})
      : GetStreamTest(services), chain_(SampleLayout(16), kBlocks, "raw") {
    EXPECT_TRUE(PutChain(served_.engine(), chain_).ok());
  }
  void ExpectNothingKept() {
    ASSERT_EQ(*served_.engine().Delete(chain_.ns(), chain_.keys(), true), kBlocks);
    while (UsedBytes(served_.engine()) > 0)
      std::this_thread::yield();  // until the stream has let go of its block
  }
  SampleChain chain_;
};

TEST_F(LongGet, ACancelledReaderIsLetGo) {
  for (auto order : {v1::GetRequest::BY_BLOCK, v1::GetRequest::BY_LAYER}) {
    ASSERT_TRUE(PutChain(served_.engine(), chain_).ok());
    v1::GetRequest request = Request(chain_);
    request.set_order(order);
    grpc::ClientContext context;
    auto stream = stub_->Get(&context, request);
    v1::GetResponse response;
    ASSERT_TRUE(stream->Read(&response));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
    ExpectNothingKept();
  }
}

class ImpatientGet : public LongGet {
 protected:
  ImpatientGet() : LongGet(StoreServicesOptions{.stream_idle_limit = std::chrono::milliseconds(50)}) {}
};

TEST_F(ImpatientGet, AReaderThatDoesNotReadIsEnded) {
  grpc::ClientContext context;
  auto stream = stub_->Get(&context, Request(chain_));
  // This end has not read a byte; the server gives up.
  while (runtime::Exposition(served_.registry()).find("quire_store_rpc_errors_total{method=\"Get\"} 1") ==
         std::string::npos) {
    std::this_thread::yield();
  }
  ExpectNothingKept();
  v1::GetResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

}  // namespace
}  // namespace quire::store
