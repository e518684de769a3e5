#include "services/store/engine/layouts.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/slice_map.h"

namespace quire::store {

absl::StatusOr<Part> KnownLayout::Resolve(const Part& part) const {
  if (part == Part{}) return Part::Whole(layout);
  QUIRE_RETURN_IF_ERROR(part.Validate(layout));
  return part;
}

absl::StatusOr<std::shared_ptr<const BlockCodec>> KnownLayout::Codec(const Part& part) const {
  {
    std::shared_lock lock(mu_);
    if (auto it = codecs_.find(part); it != codecs_.end()) return it->second;
  }
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, BlockCodec::Create(layout, part));
  std::lock_guard lock(mu_);
  if (codecs_.size() >= kCachedCodecs) codecs_.clear();  // whoever uses one holds it
  return codecs_.try_emplace(part, std::move(codec)).first->second;
}

absl::StatusOr<uint32_t> LayoutRegistry::NumberLocked(const Digest& fingerprint) {
  if (auto it = numbers_.find(fingerprint); it != numbers_.end()) return it->second;
  if (layouts_.size() >= kMaxLayouts) {
    return absl::ResourceExhaustedError(absl::StrCat("the store knows ", kMaxLayouts, " layouts, its limit"));
  }
  uint32_t number = static_cast<uint32_t>(layouts_.size());
  numbers_.emplace(fingerprint, number);
  layouts_.emplace_back();
  return number;
}

absl::StatusOr<std::shared_ptr<const KnownLayout>> LayoutRegistry::Register(const Layout& layout) {
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  std::lock_guard lock(mu_);
  QUIRE_ASSIGN_OR_RETURN(uint32_t number, NumberLocked(layout.Fingerprint()));
  if (layouts_[number] == nullptr) {
    layouts_[number] = std::make_shared<const KnownLayout>(number, layout);
    ++registered_;
  }
  return layouts_[number];
}

absl::StatusOr<uint32_t> LayoutRegistry::NumberOf(const Digest& fingerprint) {
  std::lock_guard lock(mu_);
  return NumberLocked(fingerprint);
}

std::shared_ptr<const KnownLayout> LayoutRegistry::ByNumber(uint32_t number) const {
  std::shared_lock lock(mu_);
  return number < layouts_.size() ? layouts_[number] : nullptr;
}

absl::StatusOr<std::shared_ptr<const KnownLayout>> LayoutRegistry::Find(const Digest& fingerprint) const {
  std::shared_lock lock(mu_);
  auto it = numbers_.find(fingerprint);
  if (it == numbers_.end() || layouts_[it->second] == nullptr) {
    return absl::NotFoundError(absl::StrCat("layout with fingerprint ", fingerprint.Hex().substr(0, 16),
                                            "… is not known: call RegisterLayout first"));
  }
  return layouts_[it->second];
}

uint64_t LayoutRegistry::size() const {
  std::shared_lock lock(mu_);
  return registered_;
}

absl::StatusOr<ObjectSizes> PossibleObjectSizes(const Layout& layout, const Part& part) {
  ObjectSizes sizes;
  for (LayerCodec codec :
       {LayerCodec{CodecId::kRaw, 0, 0}, LayerCodec{CodecId::kFp8, 0, 0}, LayerCodec{CodecId::kTq, 2, 2},
        LayerCodec{CodecId::kTq, 8, 8}, LayerCodec{CodecId::kTqProd, 8, 8}}) {
    std::vector<LayerCodec> codecs(part.layers(), codec);
    for (uint32_t l = 0; l < part.layers(); ++l) {
      if (layout.layers[part.layer_begin + l].latent()) codecs[l].v_bits = 0;
    }
    QUIRE_ASSIGN_OR_RETURN(SliceMap with_sinks, SliceMap::Create(layout, part, codecs, kMaxSinkTokens));
    sizes.most = std::max(sizes.most, with_sinks.ObjectBytes(with_sinks.levels()));
    if (codec.k_bits == 2) sizes.least = with_sinks.header_bytes();
  }
  // Codecs may be mixed by layer; a header of four levels on raw layers is the only way to be larger than
  // each alone.
  sizes.most += sizes.most / 16 + 4096;
  return sizes;
}

}  // namespace quire::store
