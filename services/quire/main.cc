// quire: the all-in-one for one machine.
#include <cstdio>
#include <string_view>

#include "services/quire/serve.h"

namespace {

constexpr char kUsage[] =
    "usage: quire serve --model FILE.gguf [flags]\n"
    "\n"
    "  serve      gateway, worker and store in one process; quire serve --help lists its flags\n"
    "  --help     this text\n"
    "  --version  the version\n"
    "\n"
    "The services one by one: quire-store, quire-worker, quire-gateway. Their client: quirectl.\n";

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "serve") return quire::ServeMain(argc - 1, argv + 1);
  if (command == "--version") {
    std::puts("quire " QUIRE_VERSION);
    return 0;
  }
  if (command == "--help" || command == "-h" || command == "help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (!command.empty()) std::fprintf(stderr, "quire: no command '%s'\n\n", argv[1]);
  std::fputs(kUsage, stderr);
  return 2;
}
