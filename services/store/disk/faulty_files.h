// Files that fail when a fault point says so: below RocksDB, so that what it makes of a failing disk is what
// a real one would make it do.
#pragma once

#include <rocksdb/env.h>

#include <memory>

#include "services/store/tier/faults.h"

namespace quire::store {

// The default file system, whose writes ask disk_write_error, disk_short_write and disk_full. (Reads are
// asked about by the tier, because they may be served from memory.)
std::unique_ptr<rocksdb::Env> FaultyEnv(std::shared_ptr<FaultPoints> faults);

}  // namespace quire::store
