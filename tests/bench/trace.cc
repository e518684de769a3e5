#include "tests/bench/trace.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <queue>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace quire::bench {

Trace Trace::Of(std::vector<TraceRequest> requests) {
  Trace trace;
  trace.requests = std::move(requests);
  absl::flat_hash_map<uint32_t, bool> seen;
  for (const TraceRequest& request : trace.requests) {
    trace.accesses += request.ids.size();
    for (uint32_t id : request.ids) seen.try_emplace(id, true);
  }
  trace.distinct = seen.size();
  return trace;
}

absl::StatusOr<Trace> Trace::Read(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("no trace at ", path));
  std::vector<TraceRequest> requests;
  absl::flat_hash_map<uint32_t, int64_t> predecessors;
  for (std::string line; std::getline(file, line);) {
    auto bad = [&](const std::string& why) {
      return absl::InvalidArgumentError(absl::StrCat(path, ", line ", requests.size() + 1, ": ", why));
    };
    nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json["timestamp"].is_number_integer() || !json["hash_ids"].is_array())
      return bad("no object with timestamp and hash_ids");
    TraceRequest request{json["timestamp"], {}};
    int64_t before = -1;
    for (const nlohmann::json& id : json["hash_ids"]) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) return bad("an id that is none");
      auto [known, added] = predecessors.try_emplace(id, before);
      if (!added && known->second != before)
        return bad(absl::StrCat("id ", id.dump(), " has two predecessors"));
      request.ids.push_back(id);
      before = id;
    }
    requests.push_back(std::move(request));
  }
  if (requests.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no request"));
  return Of(std::move(requests));
}

double Trace::RepeatedShare() const {
  return static_cast<double>(accesses - distinct) / static_cast<double>(accesses);
}

uint64_t ClairvoyantHits(const Trace& trace, uint64_t capacity) {
  constexpr uint64_t kNever = UINT64_MAX;
  std::vector<uint32_t> sequence;
  for (const TraceRequest& request : trace.requests)
    sequence.insert(sequence.end(), request.ids.begin(), request.ids.end());
  std::vector<uint64_t> next(sequence.size());
  absl::flat_hash_map<uint32_t, uint64_t> later;
  for (size_t t = sequence.size(); t-- > 0;) {
    auto [it, added] = later.try_emplace(sequence[t], t);
    next[t] = added ? kNever : std::exchange(it->second, t);
  }

  uint64_t hits = 0;
  absl::flat_hash_map<uint32_t, uint64_t> cached;               // id → its next use
  std::priority_queue<std::pair<uint64_t, uint32_t>> farthest;  // with entries that are out of date
  for (size_t t = 0; t < sequence.size(); ++t) {
    uint32_t id = sequence[t];
    auto found = cached.find(id);
    hits += found != cached.end();
    if (next[t] == kNever) {
      if (found != cached.end()) cached.erase(found);
      continue;
    }
    cached[id] = next[t];
    farthest.emplace(next[t], id);
    while (cached.size() > capacity) {
      auto [use, victim] = farthest.top();
      farthest.pop();
      if (auto it = cached.find(victim); it != cached.end() && it->second == use) cached.erase(it);
    }
  }
  return hits;
}

}  // namespace quire::bench
