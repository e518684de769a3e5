#include "cuda/tq_fast.h"

namespace quire::cuda {

cudaError_t LaunchFastEncode(const TqLaunch& launch, const FastEncodeTable& table, cudaStream_t stream) {
  switch (launch.dim) {
    case 64:
      return LaunchFastEncodeOf<64>(launch, table, stream);
    case 80:
      return LaunchFastEncodeOf<80>(launch, table, stream);
    case 96:
      return LaunchFastEncodeOf<96>(launch, table, stream);
    case 128:
      return LaunchFastEncodeOf<128>(launch, table, stream);
    case 192:
      return LaunchFastEncodeOf<192>(launch, table, stream);
    case 256:
      return LaunchFastEncodeOf<256>(launch, table, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t LaunchFastDecode(const TqLaunch& launch, const FastDecodeTable& table, cudaStream_t stream) {
  switch (launch.dim) {
    case 64:
      return LaunchFastDecodeOf<64>(launch, table, stream);
    case 80:
      return LaunchFastDecodeOf<80>(launch, table, stream);
    case 96:
      return LaunchFastDecodeOf<96>(launch, table, stream);
    case 128:
      return LaunchFastDecodeOf<128>(launch, table, stream);
    case 192:
      return LaunchFastDecodeOf<192>(launch, table, stream);
    case 256:
      return LaunchFastDecodeOf<256>(launch, table, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace quire::cuda
