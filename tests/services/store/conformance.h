// What every KvStore must do: the suites that include this run on the local engine and on the gRPC client of
// a real server, with and without an arena.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {

template <typename Backend>
class Conformance : public testing::Test {
 protected:
  void Start(const LocalStoreOptions& options = SmallStore()) {
    backend_ = std::make_unique<Backend>(options);
  }
  void SetUp() override { Start(); }
  KvStore& store() { return backend_->store(); }
  LocalStore& engine() { return backend_->engine(); }

  std::unique_ptr<PutSession> Begin(const SampleChain& chain, std::vector<BlockAnnounce> blocks,
                                    const PutOptions& options = {}) {
    EXPECT_TRUE(store().RegisterLayout(chain.layout).ok());
    auto session = store().BeginPut(chain.ns(), blocks, options);
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : nullptr;
  }
  absl::Status BeginFails(const SampleChain& chain, std::vector<BlockAnnounce> blocks,
                          const PutOptions& options = {}) {
    EXPECT_TRUE(store().RegisterLayout(chain.layout).ok());
    auto session = store().BeginPut(chain.ns(), blocks, options);
    EXPECT_FALSE(session.ok());
    return session.status();
  }
  // Nothing of a failed or abandoned put is left.
  void ExpectUntouched() {
    AwaitNoSessions(engine());
    EXPECT_EQ(UsedBytes(engine()), 0u);
    EXPECT_EQ(store().Stats()->blocks_stored, 0u);
  }

  std::unique_ptr<Backend> backend_;
};

using Backends = testing::Types<LocalBackend, RemoteBackend, ArenaBackend>;
TYPED_TEST_SUITE(Conformance, Backends);

}  // namespace quire::store
