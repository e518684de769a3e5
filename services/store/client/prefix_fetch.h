// The longest stored prefix of a prompt, fetched in the background: Lookup with a lease, then Get layer by
// layer, every layer handed to a callback as soon as all of its blocks are there.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "services/store/client/layer_stream.h"
#include "services/store/client/remote_store.h"

namespace quire::client {

struct FetchOptions {
  uint32_t max_bits = 0;                   // fetch at most the levels that hold this many bits; 0: all
  float max_relative_error = 0;            // fetch the fewest levels at most this far off; 0: not used
  uint32_t max_blocks = UINT32_MAX;        // of the prefix
  std::chrono::milliseconds timeout{0};    // of the whole; 0: the store client's stream timeout
  std::chrono::milliseconds lease{5'000};  // from the lookup until the Get holds its blocks
};

// One layer of all blocks of the prefix, verified.
struct Layer {
  uint32_t number = 0;  // within the part asked for
  // One a block. Their bytes are whole for this layer and those before; valid as long as the PrefixFetch.
  std::vector<const BlockReader*> blocks;
  std::vector<uint32_t> reader_layers;  // the layer's number in each reader, whose part may be a larger one

  // Decodes a block's K and V of this layer (over the heads of the reader's part), as
  // BlockReader::DecodeLayer.
  absl::Status Decode(size_t block, const MutableLayerView& out) const {
    return blocks[block]->DecodeLayer(reader_layers[block], blocks[block]->levels(), out);
  }
};
// Called on the fetch's thread, layer after layer. A status that is not OK ends the fetch and is its result.
using OnLayer = std::function<absl::Status(const Layer& layer)>;

// Thread-safe.
class PrefixFetch {
 public:
  // Destroying it cancels what is not done and waits for a callback that runs.
  ~PrefixFetch();

  // How many leading blocks of the chain come: 0 if none is stored or the store cannot be asked (Wait tells).
  // Waits until that is known.
  uint32_t blocks() const;
  // Waits until the last layer was handed out; OK also for a prefix of 0 blocks. Not OK: what was handed out
  // must not be used without the rest. DATA_LOSS names a block whose bytes came wrong.
  absl::Status Wait() const;
  bool done() const;
  // Ends it soon: CANCELLED, unless it is done.
  void Cancel();

 private:
  friend class Client;
  PrefixFetch() = default;
  // `part`: all zero for the whole layout.
  static std::unique_ptr<PrefixFetch> Start(std::shared_ptr<store::RemoteStore> remote,
                                            const store::Namespace& ns, const Part& part,
                                            std::vector<BlockIdentity> chain, const FetchOptions& options,
                                            OnLayer on_layer);
  struct Work;
  absl::Status Run(const Work& work);
  // Opens the streams, of up to 4096 blocks each, and keeps them; those behind a miss are dropped.
  absl::Status Open(const Work& work);
  absl::Status HandOut(const Work& work);
  void Announce(uint32_t blocks);
  bool cancelled() const;

  mutable std::mutex mu_;  // guards all below but the thread
  mutable std::condition_variable changed_;
  std::optional<uint32_t> blocks_;
  std::optional<absl::Status> result_;
  bool cancelled_ = false;
  std::vector<std::unique_ptr<store::LayerStream>> streams_;  // only the thread changes it, and then with mu_
  std::thread thread_;
};

}  // namespace quire::client
