// A Torch matrix product behind a header without Torch: no translation unit sees both gRPC's and Torch's
// headers.
#pragma once

namespace quire::worker {

// Multiplies two n × n matrices of ones and returns the sum of the product's elements: n³.
double SumOfTorchProduct(int n);

}  // namespace quire::worker
