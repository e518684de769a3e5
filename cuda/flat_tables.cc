#include <algorithm>
#include <cstring>

#include "core/codec/tq_prod.h"
#include "cuda/flat_kernels.h"

namespace quire::cuda {

std::vector<uint8_t> MakeProjectionTable(uint32_t dim, uint64_t seed) {
  Projection projection(dim, seed);
  ProjectionTable table{};
  const Codebook& book = Codebook::Get(dim, 1);
  std::copy(book.float_thresholds().begin(), book.float_thresholds().end(), table.one_bit.thresholds);
  table.one_bit.centroids[1][0] = book.table(1)[0];
  table.kappa = projection.kappa();
  std::vector<uint8_t> bytes(sizeof(table) + size_t{dim} * dim * sizeof(float));
  std::memcpy(bytes.data(), &table, sizeof(table));
  std::memcpy(bytes.data() + sizeof(table), projection.row(0), bytes.size() - sizeof(table));
  return bytes;
}

}  // namespace quire::cuda
