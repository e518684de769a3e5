#include <unistd.h>

#include <iostream>

#include "services/cli/quirectl.h"

int main(int argc, char** argv) {
  return quire::cli::Quirectl(argc, argv, std::cout, std::cerr, isatty(STDOUT_FILENO) == 1);
}
