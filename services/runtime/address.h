// Which addresses stay on this machine.
#pragma once

#include <string>

namespace quire::runtime {

// Whether a gRPC address (host:port, dns:…, ipv4:…, ipv6:…, unix:…, unix-abstract:…), to listen on or to
// connect to, can only be reached from this machine: a Unix socket, 127.0.0.0/8, [::1] or "localhost". What
// cannot be told is not.
bool IsLocalAddress(const std::string& address);

}  // namespace quire::runtime
