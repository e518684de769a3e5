// Names of gRPC metadata that the store and its clients exchange.
#pragma once

namespace quire::store {

// Initial metadata of a Watch that has begun.
inline constexpr char kWatchBegun[] = "quire-watch-begun";

}  // namespace quire::store
