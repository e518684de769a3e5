// quota, delete-tenant, drain, verify and watch: running a store.
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/commands.h"
#include "services/cli/layout_file.h"
#include "services/cli/session.h"
#include "services/store/client/event_stream.h"

namespace quire::cli {

using nlohmann::ordered_json;

absl::StatusOr<int> Quota(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::AdminClient> admin, ConnectAdmin(arguments));
  QUIRE_ASSIGN_OR_RETURN(uint64_t bytes, arguments.quota_bytes
                                             ? admin->SetQuota(arguments.tenant, *arguments.quota_bytes)
                                             : admin->Quota(arguments.tenant));
  if (arguments.json) {
    PrintJson({{"tenant", arguments.tenant}, {"bytes", bytes}}, out);
  } else if (bytes == 0) {
    out << "no limit\n";
  } else {
    out << bytes << " bytes (" << SizeText(static_cast<double>(bytes)) << ")\n";
  }
  return kDone;
}

absl::StatusOr<int> DeleteTenant(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::AdminClient> admin, ConnectAdmin(arguments));
  QUIRE_ASSIGN_OR_RETURN(uint64_t blocks, admin->DeleteTenant(arguments.tenant));
  if (arguments.json) {
    PrintJson({{"tenant", arguments.tenant}, {"blocks", blocks}}, out);
  } else {
    out << "deleted " << blocks << " blocks\n";
  }
  return kDone;
}

absl::StatusOr<int> Drain(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::AdminClient> admin, ConnectAdmin(arguments));
  QUIRE_RETURN_IF_ERROR(admin->Drain(std::chrono::seconds(arguments.drain_seconds)));
  if (arguments.json) {
    PrintJson({{"drained", true}}, out);
  } else {
    out << "drained\n";
  }
  return kDone;
}

absl::StatusOr<int> Verify(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(store::Tier tier, ParseTier(arguments.tier));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::AdminClient> admin, ConnectAdmin(arguments));
  auto show = [&](const store::VerifyProgress& p) {
    if (arguments.terminal && !arguments.json) {
      out << absl::StrFormat("\r%5.1f %%  %d blocks, %s, %d failed\x1b[K", 100 * p.progress, p.blocks,
                             SizeText(static_cast<double>(p.bytes)), p.failures);
      out.flush();
    }
    return true;
  };
  absl::StatusOr<store::VerifyProgress> done = admin->Verify(tier, arguments.bytes_per_second, show);
  if (arguments.terminal && !arguments.json) out << "\r\x1b[K";
  QUIRE_RETURN_IF_ERROR(done.status());
  if (arguments.json) {
    PrintJson({{"blocks", done->blocks}, {"bytes", done->bytes}, {"failures", done->failures}}, out);
  } else {
    out << absl::StrFormat("verified %d blocks, %s; %d failed and were dropped\n", done->blocks,
                           SizeText(static_cast<double>(done->bytes)), done->failures);
  }
  return done->failures == 0 ? kDone : kMissing;
}

absl::StatusOr<int> Watch(const Arguments& arguments, std::ostream& out) {
  store::WatchOptions options;
  options.tenant = arguments.tenant;
  options.from_sequence = arguments.from_sequence;
  if (!arguments.layout.empty()) {
    QUIRE_ASSIGN_OR_RETURN(Layout layout, ReadLayoutFile(arguments.layout));
    options.fingerprint = layout.Fingerprint();
  }
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         runtime::NewChannel(arguments.store, arguments.channel));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::EventStream> stream,
                         store::EventStream::Open(channel, options));
  for (uint64_t seen = 0; arguments.count == 0 || seen < arguments.count; ++seen) {
    QUIRE_ASSIGN_OR_RETURN(store::WatchedEvent event, stream->Next());
    if (arguments.json) {
      out << ordered_json{{"sequence", event.sequence},
                          {"run", event.run},
                          {"kind", Name(event.kind)},
                          {"key", event.key.Hex()},
                          {"tier", TierName(event.tier)},
                          {"levels", event.levels},
                          {"fingerprint", event.fingerprint.Hex()}}
                 .dump()
          << "\n";
    } else {
      out << absl::StrFormat("%12d  %-8s  %s  %-5s  %d levels\n", event.sequence, Name(event.kind),
                             event.key.Hex(), TierName(event.tier), event.levels);
    }
    out.flush();
  }
  return kDone;
}

}  // namespace quire::cli
