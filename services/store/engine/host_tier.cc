#include "services/store/engine/host_tier.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

constexpr uint64_t kMinBytes = 1 << 20;
constexpr uint64_t kPage = 4096;

// Memory this process may use at most: the machine's, or less where a control group says so.
uint64_t MemoryLimit() {
  uint64_t limit =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::string text;
    uint64_t value = 0;
    if (file >> text && absl::SimpleAtoi(text, &value)) limit = std::min(limit, value);  // "max" is no number
  }
  return limit;
}

bool Prefault(uint8_t* base, uint64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;  // EINVAL: a kernel before 5.14
#endif
  for (uint64_t at = 0; at < bytes; at += kPage) static_cast<volatile uint8_t*>(base)[at] = 0;
  return true;
}

}  // namespace

absl::StatusOr<std::shared_ptr<HostTier>> HostTier::Create(uint64_t bytes, bool prefault) {
  if (bytes < kMinBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier of ", bytes, " bytes: at least ", kMinBytes, " are needed"));
  }
  uint64_t limit = MemoryLimit();
  if (bytes > limit) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host tier of ", bytes, " bytes cannot be reserved: this machine allows ", limit, " bytes"));
  }
  bytes = bytes / kPage * kPage;
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host tier of ", bytes, " bytes cannot be reserved: ", std::strerror(errno)));
  }
  madvise(base, bytes, MADV_HUGEPAGE);  // advice only: where huge pages are off, small ones serve
  madvise(base, bytes, MADV_DONTDUMP);  // cached conversations do not belong in core files
  if (prefault && !Prefault(static_cast<uint8_t*>(base), bytes)) {
    int error = errno;
    munmap(base, bytes);
    return absl::ResourceExhaustedError(
        absl::StrCat("host tier of ", bytes, " bytes cannot be filled with pages: ", std::strerror(error)));
  }
  return std::shared_ptr<HostTier>(new HostTier(static_cast<uint8_t*>(base), bytes));
}

HostTier::~HostTier() {
  pinned_.reset();
  munmap(base(), capacity_bytes());
}

absl::Status HostTier::PinFor(Device& device) {
  QUIRE_ASSIGN_OR_RETURN(pinned_, device.PinHost({base(), capacity_bytes()}));
  return absl::OkStatus();
}

absl::Status HostTier::CopyIn(Bytes from, uint8_t* to) {
  std::memcpy(to, from.data(), from.size());
  return absl::OkStatus();
}

absl::StatusOr<PinnedBytes> HostTier::View(std::shared_ptr<const uint8_t> held, uint64_t bytes) {
  const uint8_t* data = held.get();
  return PinnedBytes{std::move(held), {data, bytes}};
}

bool HostTier::Move(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  std::memmove(to, from, bytes);
  return true;
}

}  // namespace quire::store
