// Coded blocks on host and device for attention: a few blocks, each coded with several codecs, and raw rows,
// with the forms that a launch needs of them.
#pragma once

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/attention.h"
#include "cuda/block_batch.h"
#include "tests/cuda/device_blocks.h"

namespace quire::cuda {

class AttentionPool {
 public:
  static constexpr uint64_t kPoolSeed = 20240917;
  static constexpr int kMaxLevels = 3;

  template <typename T>
  static T Value(absl::StatusOr<T> value) {
    if (!value.ok()) {
      std::cerr << value.status() << "\n";
      std::abort();
    }
    return *std::move(value);
  }
  static void Ok(const absl::Status& status) {
    if (status.ok()) return;
    std::cerr << status << "\n";
    std::abort();
  }

  // `layers` equal layers; each of `blocks` blocks coded with each of `specs`, block 0 as the first of a
  // sequence. Codec `raw` gives the pages their own raw form.
  AttentionPool(uint32_t layers, uint32_t heads, uint32_t dim, uint32_t blocks,
                const std::vector<std::string>& specs)
      : layout_(Layout::Uniform(Digest(), layers, heads, dim)), blocks_(blocks), specs_(specs) {
    layout_.rotation_seed = kPoolSeed;
    part_ = Part::Whole(layout_);
    codec_ = Value(BlockCodec::Create(layout_, part_));
    for (const std::string& text : specs)
      shapes_.push_back(Value(BlockShape::Create(layout_, part_, Value(CodecSpec::Parse(text)))));
    for (uint32_t b = 0; b < blocks; ++b) {
      raw_.push_back(MakeTensors(layout_, {}));
      FillRandom(layout_, 100 + b, 1, &raw_.back());
      for (const BlockShape& shape : shapes_) {
        objects_.emplace_back();
        Ok(codec_->Encode(shape.spec(), Identity(b), ViewsOf<LayerView>(raw_.back(), raw_.back().host.data()),
                          &objects_.back()));
      }
    }
    MakeForms();
  }

  static BlockIdentity Identity(uint32_t block) {
    BlockIdentity identity;
    identity.key.bytes[0] = static_cast<uint8_t>(block + 1);
    identity.index = block;
    return identity;
  }

  const Layout& layout() const { return layout_; }
  const BlockCodec& codec() const { return *codec_; }
  const BlockShape& shape(uint32_t spec) const { return shapes_[spec]; }
  uint32_t blocks() const { return blocks_; }
  const AttentionForms& forms() const { return *forms_; }
  const std::vector<uint8_t>& object(uint32_t block, uint32_t spec) const {
    return objects_[block * specs_.size() + spec];
  }
  const BlockTensors& raw(uint32_t block) const { return raw_[block]; }
  // Levels that a page of this spec can have here; 0: it is raw.
  int levels(uint32_t spec) const {
    return specs_[spec] == "raw" ? 0 : std::min(shapes_[spec].map(false).levels(), kMaxLevels);
  }

  // Forms, by spec: other blocks with 1…3 levels, first blocks likewise, sinks. Then raw tensors.
  uint16_t CodedFormOf(uint32_t spec, bool first, int levels) const {
    return static_cast<uint16_t>(7 * spec + (first ? 3 : 0) + std::max(levels, 1) - 1);
  }
  uint16_t SinkFormOf(uint32_t spec) const { return static_cast<uint16_t>(7 * spec + 6); }
  uint16_t RawFormOf() const { return static_cast<uint16_t>(7 * specs_.size()); }

  // Uploads objects and raw tensors.
  void ToDevice(const Stream& stream) {
    for (const auto& object : objects_) device_.push_back(Upload(stream, object.data(), object.size()));
    for (const auto& tensors : raw_)
      device_raw_.push_back(Upload(stream, tensors.host.data(), tensors.host.size()));
    Ok(stream.Synchronize());
  }
  const uint8_t* DeviceObject(uint32_t block, uint32_t spec) const {
    return device_[block * specs_.size() + spec].data();
  }
  const uint8_t* DeviceRaw(uint32_t block) const { return device_raw_[block].data(); }

  // Decoded to float by the CPU codec.
  BlockTensors Decoded(uint32_t block, uint32_t spec, int levels) const {
    BlockTensors out = MakeTensors(layout_, {DType::kF32});
    auto reader = Value(BlockReader::Open(codec_, Identity(block), Bytes(object(block, spec))));
    auto views = ViewsOf<MutableLayerView>(out, out.host.data());
    for (uint32_t l = 0; l < layout_.layers.size(); ++l)
      Ok(reader.DecodeLayer(l, std::max(levels, 1), views[l]));
    return out;
  }

 private:
  static DeviceBuffer Upload(const Stream& stream, const uint8_t* data, size_t bytes) {
    DeviceBuffer buffer = Value(DeviceBuffer::Allocate(bytes));
    Ok(CopyToDevice(stream.ref(), data, bytes, buffer.data()));
    return buffer;
  }

  void MakeForms() {
    std::vector<std::vector<AttentionForm>> all;
    uint32_t dim = layout_.layers[0].key_dim();
    for (uint32_t l = 0; l < layout_.layers.size(); ++l) {
      std::vector<AttentionForm>& forms = all.emplace_back();
      for (uint32_t s = 0; s < shapes_.size(); ++s) {
        for (bool first : {false, true}) {
          const SliceMap& map = shapes_[s].map(first);
          for (int levels = 1; levels <= 3; ++levels)
            forms.push_back(CodedOrRaw(s, map, l, std::min(levels, map.levels())));
        }
        forms.push_back(this->levels(s) == 0 ? forms.back()
                                             : Value(SinkForm(shapes_[s].map(true), layout_.layers[l], l)));
      }
      const auto& streams = raw_[0].streams[l];
      forms.push_back(Value(RawForm(dim, static_cast<uint32_t>(streams[0].offset),
                                    static_cast<uint32_t>(streams[1].offset),
                                    static_cast<uint32_t>(2 * streams[0].head_stride),
                                    static_cast<uint32_t>(2 * streams[0].token_stride))));
    }
    forms_all_ = std::move(all);
  }
  AttentionForm CodedOrRaw(uint32_t spec, const SliceMap& map, uint32_t l, int levels) const {
    const LayerLayout& layer = layout_.layers[l];
    if (this->levels(spec) > 0) return Value(CodedForm(map, layer, shapes_[spec].codecs()[l], l, levels));
    Extent slice = map.slice(0, l, 0);
    auto offset = static_cast<uint32_t>(slice.offset), length = static_cast<uint32_t>(slice.length);
    return Value(RawForm(layer.key_dim(), offset, offset + length / 2, length, 2 * layer.key_dim()));
  }

 public:
  // Needs a device, as ToDevice does.
  void FormsToDevice() {
    forms_ = std::make_unique<AttentionForms>(Value(AttentionForms::Create(forms_all_)));
  }

 private:
  Layout layout_;
  Part part_;
  uint32_t blocks_;
  std::vector<std::string> specs_;
  std::shared_ptr<const BlockCodec> codec_;
  std::vector<BlockShape> shapes_;
  std::vector<BlockTensors> raw_;
  std::vector<std::vector<uint8_t>> objects_;  // [block][spec]
  std::vector<std::vector<AttentionForm>> forms_all_;
  std::unique_ptr<AttentionForms> forms_;
  std::vector<DeviceBuffer> device_, device_raw_;
};

}  // namespace quire::cuda
