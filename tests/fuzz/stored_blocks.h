// What the puts of one input have stored, byte for byte: nothing else may be found, and nothing else may come
// back.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/block/object.h"
#include "quire/v1/kv_store.pb.h"

namespace quire::fuzz {

class StoredBlocks {
 public:
  using Object = std::shared_ptr<const std::string>;  // as it was committed, all of its levels

  void Register(const v1::RegisterLayoutRequest& request, const std::string& fingerprint);
  // A block of which a put said that it is stored, whole, with the identity announced for it: aborts if it is
  // not.
  void Add(const v1::Namespace& ns, const v1::BlockAnnounce& announced, std::string object);

  // Nobody ever stored it: it must be missing. Blocks may go; so what is here need not be stored any more.
  bool Knows(const v1::Namespace& ns, const std::string& key) const { return Find(ns, key) != nullptr; }
  // What was stored under the key with this parent and index.
  std::vector<Object> Objects(const v1::Namespace& ns, const v1::BlockAnnounce& block) const;
  uint64_t LargestObject(const v1::Namespace& ns, const std::string& key) const;
  // How many of the keys are known, each counted once; as often as it is there.
  template <typename Keys>
  uint32_t CountOnce(const v1::Namespace& ns, const Keys& keys) const {
    return Count(ns, std::set<std::string>(keys.begin(), keys.end()));
  }
  template <typename Keys>
  uint32_t Count(const v1::Namespace& ns, const Keys& keys) const {
    uint32_t known = 0;
    for (const std::string& key : keys) known += Knows(ns, key) ? 1 : 0;
    return known;
  }
  void Remove(const v1::Namespace& ns, const std::string& key) { blocks_.erase(NameOf(ns, key)); }

  // Aborts unless `object` is one of this layout and identity that ends where a level ends, every slice as
  // its checksum says.
  void CheckObject(const v1::Namespace& ns, const v1::BlockAnnounce& block, const std::string& object) const;
  // Bytes of the raw form of a part (all zero: the whole) of a known layout.
  uint64_t RawBytes(const v1::Namespace& ns, const v1::Part& part, v1::DType dtype) const;

 private:
  using Name = std::tuple<std::string, std::string, std::string>;  // tenant, fingerprint, key
  struct Block {
    std::string parent;
    uint32_t index = 0;
    std::vector<Object> objects;
  };
  static Name NameOf(const v1::Namespace& ns, const std::string& key) {
    return {ns.tenant(), ns.fingerprint(), key};
  }
  const Block* Find(const v1::Namespace& ns, const std::string& key) const;
  const Layout& LayoutOf(const v1::Namespace& ns) const;

  std::map<Name, Block> blocks_;
  std::map<std::string, Layout> layouts_;  // by fingerprint
};

}  // namespace quire::fuzz
