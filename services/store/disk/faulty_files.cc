#include "services/store/disk/faulty_files.h"

#include <rocksdb/file_system.h>

#include <string>
#include <utility>

namespace quire::store {
namespace {

using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class FaultyFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultyFile(std::unique_ptr<FSWritableFile>&& file, std::shared_ptr<FaultPoints> faults)
      : FSWritableFileOwnerWrapper(std::move(file)), faults_(std::move(faults)) {}

  using Verification = rocksdb::DataVerificationInfo;
  IOStatus Append(const Slice& data, const IOOptions& o, IODebugContext* d) override {
    return Append(data, o, Verification(), d);
  }
  IOStatus Append(const Slice& data, const IOOptions& o, const Verification& v, IODebugContext* d) override {
    Tear(data, o, d);
    IOStatus fault = Strike();
    if (fault.ok()) return target()->Append(data, o, v, d);
    if (short_write_) target()->Append(Half(data), o, d).PermitUncheckedError();
    return fault;
  }
  // What comes before a crash amid a write: half of it has reached the file.
  void Tear(const Slice& data, const IOOptions& o, IODebugContext* d) {
    if (!faults_->Take(Fault::kCrashAmidDiskCommit)) return;
    target()->Append(Half(data), o, d).PermitUncheckedError();
    target()->Flush(o, d).PermitUncheckedError();  // out of the file's buffer, where the process has one
    FaultPoints::Crash(Fault::kCrashAmidDiskCommit);
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t at, const IOOptions& o, IODebugContext* d) override {
    return PositionedAppend(data, at, o, Verification(), d);
  }
  // Of direct I/O, which writes whole pages: a short write puts nothing there.
  IOStatus PositionedAppend(const Slice& data, uint64_t at, const IOOptions& o, const Verification& v,
                            IODebugContext* d) override {
    IOStatus fault = Strike();
    return fault.ok() ? target()->PositionedAppend(data, at, o, v, d) : fault;
  }

 private:
  IOStatus Strike() {
    short_write_ = faults_->Take(Fault::kDiskShortWrite);
    if (short_write_) return IOStatus::IOError("injected: short write");
    if (faults_->Take(Fault::kDiskWriteError)) return IOStatus::IOError("injected: write error");
    if (faults_->Take(Fault::kDiskFull)) return IOStatus::NoSpace("injected: no space left on device");
    return IOStatus::OK();
  }
  static Slice Half(const Slice& data) { return {data.data(), data.size() / 2}; }

  const std::shared_ptr<FaultPoints> faults_;
  bool short_write_ = false;  // of the call under way; a file has one writer
};

class FaultyFileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyFileSystem(std::shared_ptr<FaultPoints> faults)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), faults_(std::move(faults)) {}
  const char* Name() const override { return "QuireFaultyFileSystem"; }

  IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                           std::unique_ptr<FSWritableFile>* file, IODebugContext* d) override {
    return Wrap(target()->NewWritableFile(name, options, file, d), file);
  }
  IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                              std::unique_ptr<FSWritableFile>* file, IODebugContext* d) override {
    return Wrap(target()->ReopenWritableFile(name, options, file, d), file);
  }
  IOStatus ReuseWritableFile(const std::string& name, const std::string& old,
                             const rocksdb::FileOptions& options, std::unique_ptr<FSWritableFile>* file,
                             IODebugContext* d) override {
    return Wrap(target()->ReuseWritableFile(name, old, options, file, d), file);
  }

 private:
  IOStatus Wrap(IOStatus status, std::unique_ptr<FSWritableFile>* file) {
    if (status.ok()) *file = std::make_unique<FaultyFile>(std::move(*file), faults_);
    return status;
  }

  const std::shared_ptr<FaultPoints> faults_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> FaultyEnv(std::shared_ptr<FaultPoints> faults) {
  return rocksdb::NewCompositeEnv(std::make_shared<FaultyFileSystem>(std::move(faults)));
}

}  // namespace quire::store
