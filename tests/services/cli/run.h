// quirectl, run in the test's process.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "services/cli/quirectl.h"

namespace quire::cli {

struct Ran {
  int code = 0;
  std::string out, err;
};

inline Ran RunQuirectl(std::vector<std::string> arguments, bool terminal = false) {
  arguments.insert(arguments.begin(), "quirectl");
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, err;
  int code = Quirectl(static_cast<int>(argv.size()), argv.data(), out, err, terminal);
  return {code, out.str(), err.str()};
}

}  // namespace quire::cli
