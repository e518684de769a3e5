// One put stream for many whole blocks: bytes go out while results come in, so that no block waits for the
// commit of the one before.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <span>
#include <vector>

#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/client/remote_store.h"

namespace quire::store {

// Announces `blocks` (the request holds the announcement) and sends those that are wanted, through the arena
// if there is one. OK if the stream ended well, whatever became of single blocks; else its status, and
// `outcomes` tell what was committed before.
absl::Status PutWholeBlocks(v1::KvStore::Stub& stub, grpc::ClientContext& context, v1::PutRequest announce,
                            std::span<const PutBlock> blocks, std::shared_ptr<AttachedArena> arena,
                            std::vector<PutOutcome>& outcomes);

}  // namespace quire::store
