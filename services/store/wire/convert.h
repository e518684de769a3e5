// Messages of quire.v1 ↔ the types of services/store/api. Everything that comes in is checked here for form
// (lengths, ranges that a C++ type cannot hold, counts that would cost memory); INVALID_ARGUMENT names the
// field, the limit and the value.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "quire/v1/codec.pb.h"
#include "quire/v1/common.pb.h"
#include "quire/v1/kv_store.pb.h"
#include "quire/v1/store_admin.pb.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

absl::StatusOr<Layout> FromProto(const v1::Layout& message);
void ToProto(const Layout& layout, v1::Layout* message);

absl::StatusOr<DType> FromProto(v1::DType dtype);
v1::DType ToProto(DType dtype);

Part FromProto(const v1::Part& message);
void ToProto(const Part& part, v1::Part* message);

absl::StatusOr<Namespace> FromProto(const v1::Namespace& message);
void ToProto(const Namespace& ns, v1::Namespace* message);

absl::StatusOr<Digest> DigestFromProto(std::string_view what, const std::string& bytes);
template <typename Repeated>
absl::StatusOr<std::vector<Digest>> KeysFromProto(const Repeated& keys) {
  std::vector<Digest> out;
  out.reserve(static_cast<size_t>(keys.size()));
  for (const std::string& bytes : keys) {
    absl::StatusOr<Digest> key = DigestFromProto("key", bytes);
    if (!key.ok()) return key.status();
    out.push_back(*key);
  }
  return out;
}

// Keys that stand one after the other.
absl::StatusOr<std::vector<Digest>> PackedKeys(std::string_view keys);

absl::StatusOr<BlockAnnounce> FromProto(const v1::BlockAnnounce& message);
void ToProto(const BlockIdentity& identity, uint64_t bytes, v1::BlockAnnounce* message);
// Checks the count first. REQUIRES: blocks is a RepeatedPtrField<v1::BlockAnnounce>.
absl::StatusOr<std::vector<BlockAnnounce>> AnnouncesFromProto(
    const google::protobuf::RepeatedPtrField<v1::BlockAnnounce>& blocks);

void ToProto(const BlockState& state, v1::BlockState* message);
BlockState FromProto(const v1::BlockState& message);
// `runs`: one message for consecutive states that are alike.
void ToProto(std::span<const BlockState> states, bool runs,
             google::protobuf::RepeatedPtrField<v1::BlockState>* messages);
// RESOURCE_EXHAUSTED if they stand for more than `most` states.
absl::StatusOr<std::vector<BlockState>> StatesFromProto(
    const google::protobuf::RepeatedPtrField<v1::BlockState>& messages, size_t most);

void ToProto(const StoreStats& stats, v1::StatsResponse* message);
StoreStats FromProto(const v1::StatsResponse& message);

}  // namespace quire::store
