#include "services/worker/eval/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

using Json = nlohmann::ordered_json;

absl::Status FileError(const std::string& path, const char* what) {
  return absl::UnavailableError(absl::StrCat(path, ": ", what, ": ", std::strerror(errno)));
}

Json ErrorsToJson(const std::vector<StreamError>& errors) {
  Json json = Json::array();
  for (const StreamError& e : errors) json.push_back({e.energy, e.error});
  return json;
}

std::vector<StreamError> ErrorsFromJson(const Json& json) {
  std::vector<StreamError> errors;
  for (const Json& e : json) errors.push_back({e.at(0).get<double>(), e.at(1).get<double>()});
  return errors;
}

std::string Line(const Digest& model, const MeasurementKey& key, const TextFidelity& fidelity) {
  std::string same;
  for (const bool top : fidelity.same_top) same += top ? '1' : '0';
  const Json json = {{"model", model.Hex()},
                     {"text", key.text.Hex()},
                     {"codec", key.codec},
                     {"prefix", key.prefix},
                     {"score", key.score},
                     {"object_bytes", fidelity.object_bytes},
                     {"same_top", same},
                     {"k_error", ErrorsToJson(fidelity.k_error)},
                     {"v_error", ErrorsToJson(fidelity.v_error)},
                     {"kl", fidelity.kl},
                     {"nll_difference", fidelity.nll_difference}};
  return json.dump() + "\n";
}

struct Entry {
  std::string model;
  MeasurementKey key;
  TextFidelity fidelity;
};

// Nothing if the line is not a whole measurement.
std::optional<Entry> ParseLine(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  try {
    Entry entry;
    entry.model = json.at("model").get<std::string>();
    const std::optional<Digest> text = Digest::FromHex(json.at("text").get<std::string>());
    if (!text.has_value()) return std::nullopt;
    entry.key = {*text, json.at("codec").get<std::string>(), json.at("prefix").get<uint32_t>(),
                 json.at("score").get<uint32_t>()};
    TextFidelity& f = entry.fidelity;
    f.object_bytes = json.at("object_bytes").get<uint64_t>();
    for (const char top : json.at("same_top").get<std::string>()) f.same_top.push_back(top == '1');
    f.k_error = ErrorsFromJson(json.at("k_error"));
    f.v_error = ErrorsFromJson(json.at("v_error"));
    f.kl = json.at("kl").get<std::vector<double>>();
    f.nll_difference = json.at("nll_difference").get<std::vector<double>>();
    const size_t n = entry.key.score;
    const bool whole = f.kl.size() == n && f.same_top.size() == n && n - f.nll_difference.size() <= 1 &&
                       f.k_error.size() == f.v_error.size();
    return whole ? std::optional(std::move(entry)) : std::nullopt;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Journal::~Journal() {
  if (file_ >= 0) close(file_);
}

Journal::Journal(Journal&& other) noexcept { *this = std::move(other); }

Journal& Journal::operator=(Journal&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(model_, other.model_);
  std::swap(file_, other.file_);
  std::swap(done_, other.done_);
  return *this;
}

absl::StatusOr<Journal> Journal::Open(const std::string& path, const Digest& model) {
  Journal journal;
  journal.path_ = path;
  journal.model_ = model;
  journal.file_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (journal.file_ < 0) return FileError(path, "can't be opened");
  if (flock(journal.file_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": another process is using it"));
  }
  QUIRE_RETURN_IF_ERROR(journal.Load());
  return journal;
}

absl::Status Journal::Load() {
  std::ifstream in(path_, std::ios::binary);
  if (!in.is_open()) return FileError(path_, "can't be read");
  uint64_t good = 0;  // bytes of whole lines
  size_t number = 0, damaged = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (damaged > 0) {
      return absl::DataLossError(
          absl::StrCat(path_, ", line ", damaged, ": not a measurement of quire-eval"));
    }
    std::optional<Entry> entry = in.eof() ? std::nullopt : ParseLine(line);  // eof: the line has no end
    if (!entry.has_value()) {
      damaged = number;
      continue;
    }
    if (entry->model != model_.Hex()) {
      return absl::FailedPreconditionError(
          absl::StrCat(path_, ", line ", number, ": measured on the model with digest ", entry->model,
                       ", this one has ", model_.Hex(), "; name another file"));
    }
    done_[std::move(entry->key)] = std::move(entry->fidelity);
    good += line.size() + 1;
  }
  if (damaged == 1 && number == 1 && !in.bad()) {
    // A first line that is no measurement is more likely somebody else's file than a run that died early.
    std::ifstream again(path_, std::ios::binary);
    std::string start(10, '\0');
    again.read(start.data(), static_cast<std::streamsize>(start.size()));
    const std::string ours = "{\"model\":\"";
    if (ours.compare(0, static_cast<size_t>(again.gcount()), start, 0, static_cast<size_t>(again.gcount())) !=
        0) {
      return absl::DataLossError(absl::StrCat(path_, ": not a file of quire-eval"));
    }
  }
  if (damaged > 0 && ftruncate(file_, static_cast<off_t>(good)) != 0) {
    return FileError(path_, "its damaged last line can't be cut off");
  }
  return absl::OkStatus();
}

const TextFidelity* Journal::Find(const MeasurementKey& key) const {
  const auto found = done_.find(key);
  return found == done_.end() ? nullptr : &found->second;
}

absl::Status Journal::Add(const MeasurementKey& key, TextFidelity fidelity) {
  if (file_ >= 0) {
    const std::string line = Line(model_, key, fidelity);
    const ssize_t written = write(file_, line.data(), line.size());
    if (written != static_cast<ssize_t>(line.size())) return FileError(path_, "can't be written");
  }
  done_[key] = std::move(fidelity);
  return absl::OkStatus();
}

}  // namespace quire::worker
