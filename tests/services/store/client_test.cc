// quire::client::Client: whole prompts of any length, in pieces, cut off and taken up again.
#include "services/store/client/client.h"

#include <atomic>
#include <latch>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::client {
namespace {

using absl::StatusCode;
using store::LocalStore;
using store::PutBlock;
using store::SampleChain;
using store::SampleLayout;
using store::ServedStore;
using store::SmallStore;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<PutBlock> Blocks(const SampleChain& chain) {
  std::vector<PutBlock> blocks;
  for (size_t i = 0; i < chain.objects.size(); ++i) blocks.push_back({chain.identities[i], chain.objects[i]});
  return blocks;
}

Options Quick() {
  Options options;
  options.remote.first_pause = options.remote.longest_pause = std::chrono::milliseconds(1);
  return options;
}

std::unique_ptr<Client> Connected(const std::string& address, const Layout& layout,
                                  const Options& options = Quick()) {
  auto client = Client::Connect(address, layout, options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// One layer's K of all blocks, decoded from whole objects.
std::vector<float> DecodedKeys(const SampleChain& chain, uint32_t layer, size_t blocks, int levels = 0) {
  std::vector<float> all;
  for (size_t b = 0; b < blocks; ++b) {
    BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[b], chain.objects[b]);
    std::vector<float> k(64 * 2 * 64), v(k.size());
    EXPECT_TRUE(reader
                    .DecodeLayer(layer, levels == 0 ? reader.levels() : levels,
                                 {{k.data(), DType::kF32, 2 * 64, 64}, {v.data(), DType::kF32, 2 * 64, 64}})
                    .ok());
    all.insert(all.end(), k.begin(), k.end());
  }
  return all;
}

std::vector<float> FetchedKeys(const Layer& layer) {
  std::vector<float> all;
  for (size_t b = 0; b < layer.blocks.size(); ++b) {
    std::vector<float> k(64 * 2 * 64), v(k.size());
    EXPECT_TRUE(
        layer.Decode(b, {{k.data(), DType::kF32, 2 * 64, 64}, {v.data(), DType::kF32, 2 * 64, 64}}).ok());
    all.insert(all.end(), k.begin(), k.end());
  }
  return all;
}

TEST(Client, ChainsAreThoseOfTheKeyChain) {
  ServedStore served(SmallStore());
  Options options = Quick();
  options.salt = "salt";
  SampleChain chain(SampleLayout(), 3);  // of the same salt
  auto client = Connected(served.address(), chain.layout, options);
  std::mt19937 random(1);
  std::vector<uint32_t> tokens(3 * kBlockTokens + 17);
  for (size_t i = 0; i < 3 * kBlockTokens; ++i) tokens[i] = static_cast<uint32_t>(random() % 1000);
  EXPECT_EQ(client->Chain(tokens), chain.identities);
}

TEST(Client, LayersOfAPrefixComeInOrderAndDecode) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(3), 4, "tq:k5v4");
  auto client = Connected(served.address(), chain.layout);
  std::vector<PutBlock> blocks = Blocks(chain);
  PutReport put = *client->Put(std::span(blocks).first(3), {});
  EXPECT_EQ(put.stored, 3u);
  EXPECT_EQ(put.already, 0u);
  for (uint32_t bits : {0u, 3u}) {
    FetchOptions options;
    options.max_bits = bits;
    uint32_t next = 0;
    auto fetch = client->Fetch(chain.identities, options, [&](const Layer& layer) {
      EXPECT_EQ(layer.number, next++);
      EXPECT_EQ(layer.blocks.size(), 3u);
      EXPECT_EQ(FetchedKeys(layer), DecodedKeys(chain, layer.number, 3, bits == 3 ? 2 : 0));
      return absl::OkStatus();
    });
    EXPECT_EQ(fetch->blocks(), 3u);
    EXPECT_TRUE(fetch->Wait().ok()) << fetch->Wait();
    EXPECT_EQ(next, 3u);
  }
}

TEST(Client, APartIsFetchedFromALargerOne) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(4), 2, "tq:k4v4");
  ASSERT_TRUE(store::PutChain(served.engine(), chain).ok());
  Options options = Quick();
  options.part = {1, 3, 1, 2};
  auto client = Connected(served.address(), chain.layout, options);
  std::vector<uint32_t> layers;
  auto fetch = client->Fetch(chain.identities, {}, [&](const Layer& layer) {
    layers.push_back(layer.reader_layers[0]);
    std::vector<float> whole = DecodedKeys(chain, layer.reader_layers[0], 1);
    // Only head 1 came; its sinks and slices are whole.
    std::vector<float> both(64 * 2 * 64), values(both.size());
    EXPECT_TRUE(
        layer.Decode(0, {{both.data(), DType::kF32, 2 * 64, 64}, {values.data(), DType::kF32, 2 * 64, 64}})
            .ok());
    for (int t = 0; t < 64; ++t) {
      for (int c = 0; c < 64; ++c) EXPECT_EQ(both[(t * 2 + 1) * 64 + c], whole[(t * 2 + 1) * 64 + c]);
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(fetch->Wait().ok()) << fetch->Wait();
  EXPECT_THAT(layers, ElementsAre(1, 2));
}

TEST(Client, AFetchOfNothingIsEmpty) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(), 2);
  auto client = Connected(served.address(), chain.layout);
  OnLayer never = [](const Layer&) { return absl::InternalError("a layer of nothing"); };
  auto fetch = client->Fetch(chain.identities, {}, never);
  EXPECT_EQ(fetch->blocks(), 0u);
  EXPECT_TRUE(fetch->Wait().ok()) << fetch->Wait();
  EXPECT_TRUE(client->Fetch({}, {}, never)->Wait().ok());
  served.Stop();
  auto gone = client->Fetch(chain.identities, {}, never);
  EXPECT_EQ(gone->blocks(), 0u);
  EXPECT_EQ(gone->Wait().code(), StatusCode::kUnavailable);
}

TEST(Client, AFetchEndsWithItsCallbackOrWhenCancelled) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(8), 4);
  auto client = Connected(served.address(), chain.layout);
  ASSERT_TRUE(client->Put(Blocks(chain), {}).ok());
  auto fetch = client->Fetch(chain.identities, {}, [&](const Layer& layer) {
    return layer.number == 2 ? absl::AbortedError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(fetch->Wait(), absl::AbortedError("enough"));

  std::latch reached(1), go(1);
  std::atomic<int> layers = 0;
  fetch = client->Fetch(chain.identities, {}, [&](const Layer& layer) {
    ++layers;
    if (layer.number == 0) reached.count_down(), go.wait();
    return absl::OkStatus();
  });
  EXPECT_EQ(fetch->blocks(), 4u);  // known while the first layer is in hand
  reached.wait();
  EXPECT_FALSE(fetch->done());
  fetch->Cancel();
  go.count_down();
  EXPECT_EQ(fetch->Wait().code(), StatusCode::kCancelled);
  EXPECT_EQ(layers, 1);
  // Destroyed in the middle: nothing hangs, and the store lets go of what it read.
  client->Fetch(chain.identities, {}, [](const Layer&) { return absl::OkStatus(); }).reset();
  EXPECT_EQ(*client->Delete(chain.identities, true), 4u);
}

// 4 KiB raw: thousands of them are small.
Layout TinyLayout() { return Layout::Uniform(Sha256().Update("tiny").Finish(), 1, 1, 16); }

TEST(Client, MoreBlocksThanOneStreamTakes) {
  ServedStore served(SmallStore(64 << 20));
  SampleChain chain(TinyLayout(), 5000, "raw");
  Options options = Quick();
  options.stream_bytes = 10 << 20;
  auto client = Connected(served.address(), chain.layout, options);
  std::vector<PutBlock> blocks = Blocks(chain);
  ASSERT_TRUE(client->Put(std::span(blocks).first(100), {}).ok());
  PutReport put = *client->Put(blocks, {});
  EXPECT_EQ(put.stored, 4900u);
  EXPECT_EQ(put.already, 100u);
  EXPECT_EQ(served.engine().Stats()->blocks_stored, 5000u);
  EXPECT_EQ(client->Lookup(chain.identities)->prefix_blocks, 5000u);

  size_t came = 0;
  store::GetSink sink;
  sink.on_block = [&](uint32_t block, Bytes object) {
    EXPECT_EQ(block, came++);
    EXPECT_TRUE(std::ranges::equal(object, chain.objects[block]));
    return absl::OkStatus();
  };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  EXPECT_TRUE(client->Get(chain.identities, {}, sink).ok());
  EXPECT_EQ(came, 5000u);

  auto fetch = client->Fetch(chain.identities, {}, [&](const Layer& layer) {
    EXPECT_EQ(layer.blocks.size(), 5000u);
    EXPECT_EQ(layer.blocks[4999]->header().identity, chain.identities[4999]);
    return absl::OkStatus();
  });
  EXPECT_EQ(fetch->blocks(), 5000u);
  EXPECT_TRUE(fetch->Wait().ok()) << fetch->Wait();
  FetchOptions some;
  some.max_blocks = 4500;
  EXPECT_EQ(client->Fetch(chain.identities, some, [](const Layer&) { return absl::OkStatus(); })->blocks(),
            4500u);
  EXPECT_EQ(*client->Touch(chain.identities), 5000u);
}

TEST(Client, ARefusedBlockIsNamedAndHarmsNoneBeforeIt) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(), 4);
  auto client = Connected(served.address(), chain.layout);
  chain.objects[2][chain.objects[2].size() / 2] ^= 1;
  absl::Status status = client->Put(Blocks(chain), {}).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("block 2: "));
  EXPECT_EQ(client->Lookup(chain.identities)->prefix_blocks, 2u);
}

TEST(Client, RawKvIsEncodedByTheStore) {
  ServedStore served(SmallStore());
  SampleChain chain(SampleLayout(), 3);
  auto client = Connected(served.address(), chain.layout);
  std::vector<PutBlock> raw;
  for (size_t i = 0; i < 3; ++i) raw.push_back({chain.identities[i], chain.raw[i]});
  store::PutOptions options;
  options.encode = "tq:k4v4";
  EXPECT_EQ(client->Put(raw, options)->stored, 3u);
  EXPECT_EQ(store::GetAll(served.engine(), chain.ns(), chain.identities).objects, chain.objects);
}

// Answers Put and Get by script, to break off where it says.
class Impostor final : public v1::KvStore::Service {
 public:
  explicit Impostor(const SampleChain& chain) : chain_(chain) {}
  // Put: of a call's wanted blocks so many are committed before it ends with UNAVAILABLE. Get: likewise sent.
  std::vector<size_t> puts_hold, gets_hold;
  std::vector<size_t> announced, wanted, asked;  // of each call
  // BY_LAYER: sent to the end. Replaced as a whole, since the handler of a call its client has given up may
  // still be at the one before.
  void SetLayered(std::vector<v1::GetResponse> layered) {
    auto next = std::make_shared<const std::vector<v1::GetResponse>>(std::move(layered));
    std::lock_guard lock(layered_mu_);
    layered_ = std::move(next);
  }
  std::vector<bool> stored = std::vector<bool>(100);

  grpc::Status RegisterLayout(grpc::ServerContext*, const v1::RegisterLayoutRequest*,
                              v1::RegisterLayoutResponse* response) override {
    response->set_fingerprint(std::string(chain_.fingerprint.AsString()));
    return grpc::Status::OK;
  }
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest* request,
                      v1::LookupResponse* response) override {
    const auto keys = static_cast<uint32_t>(request->packed_keys().size() / sizeof(Digest::bytes));
    response->add_blocks()->set_state(v1::BlockState::HIT);
    response->mutable_blocks(0)->set_run(keys);
    response->set_prefix_blocks(keys);
    return grpc::Status::OK;
  }
  grpc::Status Put(grpc::ServerContext*,
                   grpc::ServerReaderWriter<v1::PutResponse, v1::PutRequest>* stream) override {
    v1::PutRequest request;
    stream->Read(&request);
    std::vector<uint64_t> left;
    v1::PutResponse response;
    for (const v1::BlockAnnounce& block : request.announce().blocks()) {
      if (!stored[block.index()]) response.mutable_wanted()->add_blocks(static_cast<uint32_t>(left.size()));
      left.push_back(block.bytes());
    }
    announced.push_back(left.size());
    wanted.push_back(static_cast<size_t>(response.wanted().blocks_size()));
    auto announces = request.announce().blocks();
    size_t hold = puts_hold.size() < announced.size() ? SIZE_MAX : puts_hold[announced.size() - 1];
    stream->Write(response);
    for (size_t committed = 0; committed < hold && stream->Read(&request);) {
      uint32_t block = request.data().block();
      if ((left[block] -= request.data().data().size()) > 0) continue;
      stored[announces[static_cast<int>(block)].index()] = true;
      ++committed;
      response.mutable_result()->set_block(block);
      response.mutable_result()->set_stored_bytes(1);
      stream->Write(response);
    }
    return hold == SIZE_MAX ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAVAILABLE, "breaks off");
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request,
                   grpc::ServerWriter<v1::GetResponse>* writer) override {
    if (request->order() == v1::GetRequest::BY_LAYER) {
      std::shared_ptr<const std::vector<v1::GetResponse>> layered;
      {
        std::lock_guard lock(layered_mu_);
        layered = layered_;
      }
      for (const v1::GetResponse& response : *layered) writer->Write(response);
      return grpc::Status::OK;
    }
    asked.push_back(static_cast<size_t>(request->blocks_size()));
    size_t hold = gets_hold.size() < asked.size() ? SIZE_MAX : gets_hold[asked.size() - 1];
    for (int i = 0; i < request->blocks_size(); ++i) {
      if (static_cast<size_t>(i) == hold) return {grpc::StatusCode::UNAVAILABLE, "breaks off"};
      const auto& object = chain_.objects[request->blocks(i).index()];
      v1::GetResponse response;
      response.mutable_data()->set_block(static_cast<uint32_t>(i));
      response.mutable_data()->set_data(std::string(AsString(object)));
      response.mutable_data()->set_object_bytes(object.size());
      writer->Write(response);
    }
    return grpc::Status::OK;
  }

 private:
  const SampleChain& chain_;
  std::mutex layered_mu_;
  std::shared_ptr<const std::vector<v1::GetResponse>> layered_ =
      std::make_shared<const std::vector<v1::GetResponse>>();
};

class BrokenOff : public testing::Test {
 protected:
  BrokenOff() : chain_(SampleLayout(2), 6, "tq:k4v4"), impostor_(chain_) {
    server_ = *runtime::Server::Start({}, {&impostor_});
    client_ = Connected(server_->address(), chain_.layout);
  }
  ~BrokenOff() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  SampleChain chain_;
  Impostor impostor_;
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(BrokenOff, APutGoesOnWithWhatIsMissing) {
  impostor_.puts_hold = {2, 1};
  PutReport report = *client_->Put(Blocks(chain_), {});
  EXPECT_EQ(report.stored + report.already, 6u);
  EXPECT_THAT(impostor_.announced, ElementsAre(6, 6, 6));
  EXPECT_THAT(impostor_.wanted, ElementsAre(6, 4, 3));
}

TEST_F(BrokenOff, APutGivesUpAfterItsTries) {
  impostor_.puts_hold = {0, 0, 0, 0, 0};
  EXPECT_EQ(client_->Put(Blocks(chain_), {}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(impostor_.announced.size(), 3u);
}

TEST_F(BrokenOff, AGetGoesOnBehindTheLastBlockThatCame) {
  impostor_.gets_hold = {4, 1};
  std::vector<uint32_t> came;
  store::GetSink sink;
  sink.on_block = [&](uint32_t block, Bytes object) {
    EXPECT_TRUE(std::ranges::equal(object, chain_.objects[block]));
    return came.push_back(block), absl::OkStatus();
  };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  EXPECT_TRUE(client_->Get(chain_.identities, {}, sink).ok());
  EXPECT_THAT(came, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(impostor_.asked, ElementsAre(6, 2, 1));
  // The sink's own UNAVAILABLE is its result, not a reason to go on.
  impostor_.asked.clear(), impostor_.gets_hold.clear();
  sink.on_block = [](uint32_t, Bytes) { return absl::UnavailableError("mine"); };
  EXPECT_EQ(client_->Get(chain_.identities, {}, sink), absl::UnavailableError("mine"));
  EXPECT_EQ(impostor_.asked.size(), 1u);
}

// What a store sends of two blocks in order BY_LAYER.
std::vector<v1::GetResponse> Layered(const SampleChain& chain) {
  std::vector<v1::GetResponse> all;
  auto add = [&](uint32_t block, int32_t layer, Extent extent) {
    v1::BlockData* data = all.emplace_back().mutable_data();
    data->set_block(block), data->set_layer(layer), data->set_offset(extent.offset);
    data->set_data(std::string(AsString(Bytes(chain.objects[block]).subspan(extent.offset, extent.length))));
    data->set_object_bytes(chain.objects[block].size());
  };
  for (uint32_t layer = 0; layer <= 2; ++layer) {
    for (uint32_t b = 0; b < 2; ++b) {
      BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[b], chain.objects[b]);
      if (layer == 0) {
        add(b, -1, {0, reader.slices().header_bytes()});
        continue;
      }
      for (int level = 0; level < reader.levels(); ++level)
        add(b, static_cast<int32_t>(layer - 1), reader.slices().layer(level, layer - 1));
    }
  }
  return all;
}

TEST_F(BrokenOff, WrongLayersAreRefused) {
  std::vector<BlockIdentity> two(chain_.identities.begin(), chain_.identities.begin() + 2);
  auto run = [&](const std::function<void(std::vector<v1::GetResponse>&)>& forge) {
    std::vector<v1::GetResponse> layered = Layered(chain_);
    forge(layered);
    impostor_.SetLayered(std::move(layered));
    uint32_t layers = 0;
    auto fetch = client_->Fetch(two, {}, [&](const Layer&) { return ++layers, absl::OkStatus(); });
    absl::Status status = fetch->Wait();
    return std::tuple(status.code(), layers, fetch->blocks());
  };
  using All = std::vector<v1::GetResponse>;
  auto flip = [](v1::GetResponse& response) { (*response.mutable_data()->mutable_data())[20] ^= 1; };
  EXPECT_EQ(run([](All&) {}), std::tuple(StatusCode::kOk, 2u, 2u));
  EXPECT_EQ(run([&](All& all) { flip(all.back()); }), std::tuple(StatusCode::kDataLoss, 1u, 2u));
  EXPECT_EQ(run([&](All& all) { flip(all[0]); }), std::tuple(StatusCode::kDataLoss, 0u, 0u));
  EXPECT_EQ(run([](All& all) { all.pop_back(); }), std::tuple(StatusCode::kInternal, 1u, 2u));
  EXPECT_EQ(run([](All& all) { all.clear(); }), std::tuple(StatusCode::kInternal, 0u, 0u));
  EXPECT_EQ(run([](All& all) { std::swap(all[2], all[3]); }), std::tuple(StatusCode::kInternal, 0u, 2u));
  EXPECT_EQ(run([](All& all) { all[0].mutable_data()->set_object_bytes(UINT64_MAX); }),
            std::tuple(StatusCode::kDataLoss, 0u, 0u));
  EXPECT_EQ(run([](All& all) { all[0].mutable_data()->set_data("short"); }),
            std::tuple(StatusCode::kDataLoss, 0u, 0u));
  EXPECT_EQ(run([](All& all) { all[1].mutable_data()->set_block(7); }),
            std::tuple(StatusCode::kInternal, 0u, 0u));
  EXPECT_EQ(run([](All& all) { *all[3].mutable_data()->mutable_data() += "more"; }),
            std::tuple(StatusCode::kInternal, 0u, 2u));
  // The store found wrong bytes behind those it has sent.
  EXPECT_EQ(run([](All& all) {
              v1::GetResponse miss;
              miss.mutable_miss()->set_block(0), miss.mutable_miss()->set_code(15);
              all.insert(all.end() - 1, miss);
            }),
            std::tuple(StatusCode::kDataLoss, 1u, 2u));
  // A block that vanished between lookup and get cuts the prefix; what comes of those behind it is passed
  // over.
  EXPECT_EQ(run([](All& all) {
              v1::GetResponse miss;
              miss.mutable_miss()->set_block(1), miss.mutable_miss()->set_code(5);
              all.insert(all.begin(), miss);
            }),
            std::tuple(StatusCode::kOk, 2u, 1u));
  EXPECT_EQ(run([](All& all) {
              v1::GetResponse miss;
              miss.mutable_miss()->set_code(5);
              all.insert(all.begin(), miss);
            }),
            std::tuple(StatusCode::kOk, 0u, 0u));
}

TEST(ClientOptions, AreChecked) {
  Options options;
  options.stream_blocks = store::kMaxBlocks + 1;
  EXPECT_EQ(Client::Connect("127.0.0.1:1", SampleLayout(), options).status().code(),
            StatusCode::kInvalidArgument);
  options = {};
  options.part = {0, 9, 0, 1};
  EXPECT_EQ(Client::Connect("127.0.0.1:1", SampleLayout(), options).status().code(),
            StatusCode::kInvalidArgument);
  options = Quick();
  EXPECT_EQ(Client::Connect("127.0.0.1:1", SampleLayout(), options).status().code(),
            StatusCode::kUnavailable);
}

}  // namespace
}  // namespace quire::client
