#include "services/store/arena/segment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::string Reason(int error) {
  char text[128];
  return strerror_r(error, text, sizeof text);
}

absl::Status NoMemory(uint64_t bytes, int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot have ", bytes, " bytes of shared memory: ", Reason(error)));
}

}  // namespace

absl::StatusOr<SharedSegment> SharedSegment::MapAll(UniqueFd fd, uint64_t bytes) {
  // Populated: a first use in the middle of a copy would cost a fault every page.
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (base == MAP_FAILED) return NoMemory(bytes, errno);
  return SharedSegment(std::move(fd), static_cast<uint8_t*>(base), bytes);
}

absl::StatusOr<SharedSegment> SharedSegment::Create(uint64_t bytes) {
  UniqueFd fd(memfd_create("quire-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.ok()) return NoMemory(bytes, errno);
  // Allocated now: later, a page that is not to be had would be a signal instead of a status.
  if (int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)); error != 0)
    return NoMemory(bytes, error);
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return NoMemory(bytes, errno);
  return MapAll(std::move(fd), bytes);
}

absl::StatusOr<SharedSegment> SharedSegment::Map(UniqueFd fd, uint64_t bytes) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0 || static_cast<uint64_t>(status.st_size) != bytes || bytes == 0)
    return absl::DataLossError(
        absl::StrCat("the store's shared memory has not the ", bytes, " bytes it said"));
  if (int seals = fcntl(fd.get(), F_GET_SEALS); seals < 0 || (seals & kSeals) != kSeals)
    return absl::DataLossError("the store's shared memory is not sealed");
  return MapAll(std::move(fd), bytes);
}

SharedSegment::~SharedSegment() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

absl::Status CheckRange(uint64_t offset, uint64_t length, uint64_t bytes) {
  if (offset <= bytes && length <= bytes - offset) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("range of ", length, " bytes at ", offset, " is not within the arena's ", bytes));
}

}  // namespace quire::store
