#include "tests/fuzz/stored_blocks.h"

#include <algorithm>

#include "services/store/engine/raw_form.h"
#include "services/store/wire/convert.h"
#include "tests/fuzz/input.h"

namespace quire::fuzz {

void StoredBlocks::Register(const v1::RegisterLayoutRequest& request, const std::string& fingerprint) {
  absl::StatusOr<Layout> layout = store::FromProto(request.layout());
  QUIRE_FUZZ_CHECK(layout.ok() && layout->Fingerprint().AsString() == fingerprint);
  layouts_.emplace(fingerprint, *std::move(layout));
}

void StoredBlocks::Add(const v1::Namespace& ns, const v1::BlockAnnounce& announced, std::string object) {
  CheckObject(ns, announced, object);
  Block& block = blocks_[NameOf(ns, announced.key())];
  if (block.parent != announced.parent() || block.index != announced.index()) {
    // What was stored under the key before is gone, or this would have been refused.
    block = {announced.parent(), announced.index(), {}};
  }
  auto same = [&](const Object& other) { return *other == object; };
  if (std::none_of(block.objects.begin(), block.objects.end(), same))
    block.objects.push_back(std::make_shared<const std::string>(std::move(object)));
}

std::vector<StoredBlocks::Object> StoredBlocks::Objects(const v1::Namespace& ns,
                                                        const v1::BlockAnnounce& announced) const {
  const Block* block = Find(ns, announced.key());
  if (block == nullptr || block->parent != announced.parent() || block->index != announced.index()) return {};
  return block->objects;
}

uint64_t StoredBlocks::LargestObject(const v1::Namespace& ns, const std::string& key) const {
  uint64_t largest = 0;
  if (const Block* block = Find(ns, key); block != nullptr) {
    for (const Object& object : block->objects) largest = std::max<uint64_t>(largest, object->size());
  }
  return largest;
}

void StoredBlocks::CheckObject(const v1::Namespace& ns, const v1::BlockAnnounce& block,
                               const std::string& object) const {
  absl::StatusOr<BlockHeader> header = ParseHeader(AsBytes(object));
  QUIRE_FUZZ_CHECK(header.ok());
  QUIRE_FUZZ_CHECK(header->identity.key.AsString() == block.key());
  QUIRE_FUZZ_CHECK(header->identity.parent.AsString() == block.parent());
  QUIRE_FUZZ_CHECK(header->identity.index == block.index());
  absl::StatusOr<std::shared_ptr<const BlockCodec>> codec = BlockCodec::Create(LayoutOf(ns), header->part);
  QUIRE_FUZZ_CHECK(codec.ok());
  absl::StatusOr<BlockReader> reader = BlockReader::Open(*codec, header->identity, AsBytes(object));
  QUIRE_FUZZ_CHECK(reader.ok() && reader->Verify().ok());
}

uint64_t StoredBlocks::RawBytes(const v1::Namespace& ns, const v1::Part& message, v1::DType dtype) const {
  Part part = store::FromProto(message);
  if (part == Part{}) part = Part::Whole(LayoutOf(ns));
  return store::RawFormBytes(LayoutOf(ns), part, *store::FromProto(dtype));
}

const StoredBlocks::Block* StoredBlocks::Find(const v1::Namespace& ns, const std::string& key) const {
  auto block = blocks_.find(NameOf(ns, key));
  return block == blocks_.end() ? nullptr : &block->second;
}

const Layout& StoredBlocks::LayoutOf(const v1::Namespace& ns) const {
  auto layout = layouts_.find(ns.fingerprint());
  QUIRE_FUZZ_CHECK(layout != layouts_.end());
  return layout->second;
}

}  // namespace quire::fuzz
