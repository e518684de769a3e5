// `quire serve`.
#pragma once

namespace quire {

// argv[0] is "serve". Returns the exit code.
int ServeMain(int argc, char** argv);

}  // namespace quire
