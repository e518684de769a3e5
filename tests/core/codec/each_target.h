// The instruction sets that kernels are compiled for and this machine can run: tests that are parameters of
// one run on each in turn.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hwy/targets.h"

namespace quire {

inline std::vector<int64_t> RunnableTargets() {
  std::vector<int64_t> targets;
  for (int64_t target : {HWY_AVX3, HWY_AVX2, HWY_EMU128}) {
    if (target == HWY_EMU128 || (hwy::SupportedTargets() & target) != 0) targets.push_back(target);
  }
  return targets;
}

inline std::string TargetTestName(const ::testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

class EachTargetTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

}  // namespace quire
