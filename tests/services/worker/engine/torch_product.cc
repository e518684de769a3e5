#include "tests/services/worker/engine/torch_product.h"

#include <ATen/ATen.h>

namespace quire::worker {

double SumOfTorchProduct(int n) {
  const at::Tensor ones = at::ones({n, n}, at::kFloat);
  return at::matmul(ones, ones).sum().item<double>();
}

}  // namespace quire::worker
