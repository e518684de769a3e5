// The command line of a store's client.
#pragma once

#include <iosfwd>

namespace quire::cli {

// All of quirectl but the process: exit code 0; 1 where something failed (its reason is on `err`); 2 where
// blocks were missing. Mistakes on the command line have CLI11's codes.
// `terminal`: `out` is one, so live views may redraw.
int Quirectl(int argc, const char* const* argv, std::ostream& out, std::ostream& err, bool terminal = false);

}  // namespace quire::cli
