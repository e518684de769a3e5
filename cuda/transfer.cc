#include "cuda/transfer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::cuda {
namespace {

constexpr size_t kAlignment = 256;

size_t RoundUp(size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

// `count` blocks between the host and a slot's chunk, where they stand one after the other, each on
// kAlignment: a run of blocks of one size at one distance within `arena` is one copy. `host(i)` and
// `bytes(i)` are the slices of block i.
template <typename Host, typename BytesOf>
absl::Status CopyBlocks(StreamRef stream, std::span<const uint8_t> arena, size_t count, Host host,
                        BytesOf bytes, uint8_t* device, bool up) {
  auto inside = [&](size_t i) {
    return host(i) >= arena.data() && host(i) + bytes(i) <= arena.data() + arena.size();
  };
  for (size_t i = 0; i < count;) {
    size_t run = 1, width = bytes(i), device_pitch = RoundUp(width);
    ptrdiff_t pitch = i + 1 < count && inside(i) && inside(i + 1) ? host(i + 1) - host(i) : 0;
    auto follows = [&](size_t k) {
      return k < count && inside(k) && bytes(k) == width && host(k) - host(k - 1) == pitch;
    };
    while (pitch >= static_cast<ptrdiff_t>(width) && follows(i + run)) ++run;
    if (run > 1) {
      auto host_pitch = static_cast<size_t>(pitch);
      QUIRE_RETURN_IF_ERROR(up ? CopyRows(stream, host(i), host_pitch, device, device_pitch, width, run)
                               : CopyRows(stream, device, device_pitch, host(i), host_pitch, width, run));
    } else {
      QUIRE_RETURN_IF_ERROR(up ? CopyToDevice(stream, host(i), width, device)
                               : CopyToHost(stream, device, width, host(i)));
    }
    device += run * device_pitch;
    i += run;
  }
  return absl::OkStatus();
}

// Items [first, first + count) that go together.
struct Chunk {
  size_t first = 0, count = 0;
};

}  // namespace

struct Transfer::Impl {
  struct Slot {
    Stream stream;
    Event done;
    TqBatch encode, decode;
    DeviceBuffer codes;
    BlockTasks tasks;
    bool busy = false;
    // Of an offload under way: its items, and where each one's tasks begin.
    Chunk chunk;
    std::vector<size_t> first_tasks;
  };

  std::shared_ptr<const TqCodec> codec;
  BlockShape shape;
  Options options;
  std::vector<Slot> slots;
  Event begin;
  size_t next = 0, device_bytes = 0, pinned_bytes = 0;

  // Bytes of a block's slices in its first `levels` levels.
  size_t SliceBytes(bool first_block, int levels) const {
    const SliceMap& map = shape.map(first_block);
    return map.ObjectBytes(levels) - map.header_bytes();
  }
  // Waits for the slot's last work.
  absl::Status Reclaim(Slot& slot) {
    if (!slot.busy) return absl::OkStatus();
    slot.busy = false;
    return slot.done.Synchronize();
  }

  // How many items from `first` on make one chunk; `bytes_of` says a block's size.
  template <typename BytesOf>
  Chunk NextChunk(size_t first, size_t total, BytesOf bytes_of) const {
    Chunk chunk{first, 0};
    size_t bytes = 0;
    while (first + chunk.count < total && chunk.count < options.chunk_blocks) {
      size_t more = RoundUp(bytes_of(first + chunk.count));
      if (chunk.count > 0 && bytes + more > slots[0].codes.bytes()) break;
      bytes += more;
      ++chunk.count;
    }
    return chunk;
  }

  absl::Status RestoreChunk(Slot& slot, std::span<const RestoreItem> items, Path path);
  absl::Status OffloadChunk(Slot& slot, std::span<const OffloadItem> items, Path path);
  absl::Status FinishOffload(Slot& slot, const OnOffloaded& done);
};

Transfer::Transfer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Transfer::Transfer(Transfer&&) noexcept = default;
Transfer& Transfer::operator=(Transfer&&) noexcept = default;

Transfer::~Transfer() {
  if (impl_ == nullptr) return;
  for (Impl::Slot& slot : impl_->slots) (void)impl_->Reclaim(slot);
}

absl::StatusOr<Transfer> Transfer::Create(std::shared_ptr<const TqCodec> codec, const BlockShape& shape,
                                          const Options& options) {
  if (options.slots < 2 || options.slots > 16)
    return absl::InvalidArgumentError(absl::StrCat("transfer: 2 to 16 slots, not ", options.slots));
  if (options.chunk_blocks < 1) return absl::InvalidArgumentError("transfer: a chunk has at least one block");
  QUIRE_ASSIGN_OR_RETURN(Event begin, Event::Create());
  auto impl = std::make_unique<Impl>(Impl{std::move(codec), shape, options, {}, std::move(begin)});
  size_t largest = std::max(impl->SliceBytes(true, shape.map(true).levels()),
                            impl->SliceBytes(false, shape.map(false).levels()));
  size_t chunk = std::max(RoundUp(options.chunk_bytes), RoundUp(largest));
  TqBatch::Limits limits = shape.TasksPerBlock();
  limits.tasks *= options.chunk_blocks;
  limits.reports *= options.chunk_blocks;
  limits.rows *= options.chunk_blocks;
  for (int i = 0; i < options.slots; ++i) {
    QUIRE_ASSIGN_OR_RETURN(Stream stream, Stream::Create());
    QUIRE_ASSIGN_OR_RETURN(Event done, Event::Create());
    QUIRE_ASSIGN_OR_RETURN(TqBatch encode, TqBatch::Create(impl->codec, TqBatch::Direction::kEncode, limits));
    QUIRE_ASSIGN_OR_RETURN(TqBatch decode, TqBatch::Create(impl->codec, TqBatch::Direction::kDecode, limits));
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer codes, DeviceBuffer::Allocate(chunk));
    size_t lists = encode.memory_bytes() + decode.memory_bytes();
    impl->device_bytes += chunk + lists;
    impl->pinned_bytes += lists;
    impl->slots.push_back({std::move(stream),
                           std::move(done),
                           std::move(encode),
                           std::move(decode),
                           std::move(codes),
                           {},
                           false,
                           {},
                           {}});
  }
  return Transfer(std::move(impl));
}

size_t Transfer::device_bytes() const { return impl_->device_bytes; }
size_t Transfer::pinned_bytes() const { return impl_->pinned_bytes; }

absl::Status Transfer::Impl::RestoreChunk(Slot& slot, std::span<const RestoreItem> items, Path path) {
  slot.tasks.Clear();
  uint8_t* at = slot.codes.data();
  if (path == Path::kCopy) {
    auto host = [&](size_t i) {
      return const_cast<uint8_t*>(items[i].object) + shape.map(items[i].first_block).header_bytes();
    };
    auto bytes = [&](size_t i) { return SliceBytes(items[i].first_block, items[i].levels); };
    QUIRE_RETURN_IF_ERROR(CopyBlocks(slot.stream.ref(), options.arena, items.size(), host, bytes, at, true));
  }
  for (const RestoreItem& item : items) {
    const uint8_t* object = item.object;
    if (path == Path::kCopy) {
      object = at - shape.map(item.first_block).header_bytes();
      at += RoundUp(SliceBytes(item.first_block, item.levels));
    }
    QUIRE_RETURN_IF_ERROR(slot.tasks.AddDecode(shape, item.first_block, item.levels, object, item.layers));
  }
  QUIRE_RETURN_IF_ERROR(slot.decode.Set(slot.tasks.tasks, slot.tasks.rows, CodecSpec()));
  return slot.decode.Run(slot.stream.ref());
}

absl::Status Transfer::Restore(std::span<const RestoreItem> items, Path path, StreamRef stream) {
  Impl& impl = *impl_;
  for (const RestoreItem& item : items) {
    int most = impl.shape.map(item.first_block).levels();
    if (item.levels < 1 || item.levels > most)
      return absl::InvalidArgumentError(absl::StrCat("transfer: 1 to ", most, " levels, not ", item.levels));
  }
  QUIRE_RETURN_IF_ERROR(impl.begin.Record(stream));
  for (size_t first = 0; first < items.size();) {
    Chunk chunk = impl.NextChunk(first, items.size(), [&](size_t i) {
      return path == Path::kZeroCopy ? 0 : impl.SliceBytes(items[i].first_block, items[i].levels);
    });
    Impl::Slot& slot = impl.slots[impl.next++ % impl.slots.size()];
    QUIRE_RETURN_IF_ERROR(impl.Reclaim(slot));
    QUIRE_RETURN_IF_ERROR(impl.begin.WaitOn(slot.stream.ref()));
    slot.busy = true;
    absl::Status status = impl.RestoreChunk(slot, items.subspan(chunk.first, chunk.count), path);
    QUIRE_RETURN_IF_ERROR(slot.done.Record(slot.stream.ref()));
    QUIRE_RETURN_IF_ERROR(status);
    first += chunk.count;
  }
  for (Impl::Slot& slot : impl.slots) {
    if (slot.busy) QUIRE_RETURN_IF_ERROR(slot.done.WaitOn(stream));
  }
  return absl::OkStatus();
}

absl::Status Transfer::Impl::OffloadChunk(Slot& slot, std::span<const OffloadItem> items, Path path) {
  slot.tasks.Clear();
  slot.first_tasks.clear();
  uint8_t* at = slot.codes.data();
  for (const OffloadItem& item : items) {
    const SliceMap& map = shape.map(item.first_block);
    slot.first_tasks.push_back(slot.tasks.tasks.size());
    uint8_t* object = path == Path::kZeroCopy ? item.object : at - map.header_bytes();
    at += path == Path::kZeroCopy ? 0 : RoundUp(SliceBytes(item.first_block, map.levels()));
    QUIRE_RETURN_IF_ERROR(slot.tasks.AddEncode(shape, item.first_block, item.layers, object));
  }
  QUIRE_RETURN_IF_ERROR(slot.encode.Set(slot.tasks.tasks, slot.tasks.rows, shape.spec()));
  QUIRE_RETURN_IF_ERROR(slot.encode.Run(slot.stream.ref()));
  if (path == Path::kZeroCopy) return absl::OkStatus();
  auto host = [&](size_t i) { return items[i].object + shape.map(items[i].first_block).header_bytes(); };
  auto bytes = [&](size_t i) {
    return SliceBytes(items[i].first_block, shape.map(items[i].first_block).levels());
  };
  return CopyBlocks(slot.stream.ref(), options.arena, items.size(), host, bytes, slot.codes.data(), false);
}

absl::Status Transfer::Impl::FinishOffload(Slot& slot, const OnOffloaded& done) {
  QUIRE_RETURN_IF_ERROR(Reclaim(slot));
  Chunk chunk = std::exchange(slot.chunk, {});
  if (chunk.count == 0) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(slot.encode.CheckReports());
  for (size_t i = 0; i < chunk.count; ++i)
    QUIRE_RETURN_IF_ERROR(done(chunk.first + i, slot.encode, slot.first_tasks[i]));
  return absl::OkStatus();
}

absl::Status Transfer::Offload(std::span<const OffloadItem> items, Path path, StreamRef stream,
                               const OnOffloaded& done) {
  Impl& impl = *impl_;
  QUIRE_RETURN_IF_ERROR(impl.begin.Record(stream));
  absl::Status status;
  for (size_t first = 0; status.ok() && first < items.size();) {
    Impl::Slot& slot = impl.slots[impl.next++ % impl.slots.size()];
    status = impl.FinishOffload(slot, done);
    if (!status.ok()) break;
    Chunk chunk = impl.NextChunk(first, items.size(), [&](size_t i) {
      bool first_block = items[i].first_block;
      return path == Path::kZeroCopy ? 0 : impl.SliceBytes(first_block, impl.shape.map(first_block).levels());
    });
    status = impl.begin.WaitOn(slot.stream.ref());
    if (!status.ok()) break;
    slot.busy = true;
    status = impl.OffloadChunk(slot, items.subspan(chunk.first, chunk.count), path);
    status.Update(slot.done.Record(slot.stream.ref()));
    if (status.ok()) slot.chunk = chunk;
    first += chunk.count;
  }
  // Oldest first, so that `done` comes in order; all of them, so that nothing is under way when this returns.
  for (size_t i = 0; i < impl.slots.size(); ++i) {
    Impl::Slot& slot = impl.slots[(impl.next + i) % impl.slots.size()];
    if (status.ok()) {
      status = impl.FinishOffload(slot, done);
    } else {
      status.Update(impl.Reclaim(slot));
      slot.chunk = {};
    }
  }
  return status;
}

}  // namespace quire::cuda
