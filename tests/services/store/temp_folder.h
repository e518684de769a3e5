// A folder of a test's or benchmark's own, gone with it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace quire::store {

class TempFolder {
 public:
  // Under `parent`, or where temporary files go. Ends the process where none can be made: whoever wants one
  // would write elsewhere.
  explicit TempFolder(const std::string& parent = std::filesystem::temp_directory_path().string()) {
    path_ = (std::filesystem::path(parent) / "quire-test-XXXXXX").string();
    if (mkdtemp(path_.data()) != nullptr) return;
    std::perror(path_.c_str());
    std::abort();
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace quire::store
