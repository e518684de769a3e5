#include "services/store/engine/index.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {

const StoredObjectPtr* BlockIndex::Node::Covering(const Part& part) const {
  const StoredObjectPtr* best = nullptr;
  for (const StoredObjectPtr& object : parts) {
    if (object->part.Covers(part) && (best == nullptr || object->bytes < (*best)->bytes)) best = &object;
  }
  return best;
}

BlockIndex::Node* BlockIndex::Shard::FindOrAdd(const BlockName& name) {
  auto [it, added] = nodes.try_emplace(name);
  if (added) {
    it->second = std::make_unique<Node>();
    it->second->name = name;
  }
  return it->second.get();
}

std::optional<BlockName> BlockIndex::Settle(Shard& shard, Node* node) {
  if (!node->parts.empty()) {
    if (node->children == 0 && node->pins == 0) policy_->Add(node);
    return std::nullopt;
  }
  policy_->Remove(node);
  if (node->children > 0 || node->writers > 0) return std::nullopt;
  std::optional<BlockName> parent;
  if (node->linked && node->index > 0) parent = BlockName{node->name.tenant, node->name.layout, node->parent};
  shard.nodes.erase(BlockName(node->name));
  return parent;
}

BlockState BlockIndex::Look(const BlockName& name, const Part& part, const Mark& mark) {
  BlockState state;
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr) return state;
  const StoredObjectPtr* object = node->Covering(part);
  if (object == nullptr) {
    if (node->writers > 0) state.state = BlockState::kPending;
    return state;
  }
  EvictionPolicy::Touch(node, mark.tick);
  int64_t leased = node->leased_until.load(std::memory_order_relaxed);
  while (leased < mark.leased_until &&
         !node->leased_until.compare_exchange_weak(leased, mark.leased_until, std::memory_order_relaxed)) {
  }
  state.state = BlockState::kHit;
  state.tier = (*object)->tier;
  state.levels = (*object)->levels;
  state.codec = (*object)->codec;
  state.bytes = (*object)->bytes;
  return state;
}

StoredObjectPtr BlockIndex::Open(const BlockName& name, const BlockIdentity& identity, const Part& part,
                                 uint64_t tick) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || !node->is(identity)) return nullptr;
  const StoredObjectPtr* object = node->Covering(part);
  if (object == nullptr) return nullptr;
  EvictionPolicy::Touch(node, tick);
  return *object;
}

absl::StatusOr<bool> BlockIndex::Announce(const BlockName& name, const BlockIdentity& identity,
                                          const Part& part, uint64_t tick) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  if (Node* node = shard.Find(name); node != nullptr && node->linked) {
    if (!node->is(identity))
      return absl::InvalidArgumentError("the block is stored with another parent or index");
    if (node->Covering(part) != nullptr) {
      EvictionPolicy::Touch(node, tick);
      return false;
    }
  }
  ++shard.FindOrAdd(name)->writers;
  return true;
}

void BlockIndex::Unannounce(const BlockName& name) {
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    --node->writers;  // the writer kept the node
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
}

absl::StatusOr<uint32_t> BlockIndex::StoredIndex(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->parts.empty()) return absl::NotFoundError("the block is not stored");
  return node->index;
}

absl::Status BlockIndex::HoldParent(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->parts.empty())
    return absl::FailedPreconditionError("the block's parent is not stored");
  ++node->children;
  policy_->Remove(node);
  return absl::OkStatus();
}

void BlockIndex::ReleaseParent(const BlockName& name) {
  for (std::optional<BlockName> next = name; next;) {
    Shard& shard = ShardOf(*next);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(*next);
    --node->children;  // the child or hold kept the node
    next = Settle(shard, node);
  }
}

absl::StatusOr<StoredObjectPtr> BlockIndex::Insert(const BlockName& name, const BlockIdentity& identity,
                                                   StoredObjectPtr object, uint64_t tick,
                                                   absl::FunctionRef<void()> count) {
  StoredObjectPtr stored = object;
  bool release = identity.index > 0;  // unless this makes the node its parent's child
  absl::Status status;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.FindOrAdd(name);
    if (!node->is(identity)) {
      status = absl::InvalidArgumentError("the block is stored with another parent or index");
    } else if (const StoredObjectPtr* there = node->Covering(object->part)) {
      stored = *there;
    } else {
      if (!node->linked) {
        node->linked = true;
        node->parent = identity.parent;
        node->index = identity.index;
        release = false;
      }
      count();
      node->parts.push_back(std::move(object));
    }
    EvictionPolicy::Touch(node, tick);
    Settle(shard, node);  // the caller is a writer of this node: it stays
  }
  if (release) ReleaseParent(BlockName{name.tenant, name.layout, identity.parent});
  if (!status.ok()) return status;
  return stored;
}

std::vector<StoredObjectPtr> BlockIndex::Evict(const BlockName& name, int64_t now_ms) {
  std::vector<StoredObjectPtr> out;
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    if (node == nullptr || node->parts.empty() || node->children > 0 || node->pins > 0) return out;
    if (int64_t until = node->leased_until.load(std::memory_order_relaxed); until > now_ms) {
      policy_->Park(node, until);
      return out;
    }
    bool read = std::any_of(node->parts.begin(), node->parts.end(),
                            [](const auto& part) { return part.use_count() > 1; });
    if (read) {
      EvictionPolicy::Touch(node, policy_->Ticks(1));
      policy_->Add(node);
      return out;
    }
    out.assign(std::make_move_iterator(node->parts.begin()), std::make_move_iterator(node->parts.end()));
    node->parts.clear();
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
  return out;
}

std::vector<StoredObjectPtr> BlockIndex::Delete(const BlockName& name, bool force, int64_t now_ms) {
  std::vector<StoredObjectPtr> out;
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    if (node == nullptr || node->parts.empty()) return out;
    if (!force && node->pins > 0) return out;
    if (!force && node->leased_until.load(std::memory_order_relaxed) > now_ms) return out;
    out.assign(std::make_move_iterator(node->parts.begin()), std::make_move_iterator(node->parts.end()));
    node->parts.clear();
    node->pins = 0;
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
  return out;
}

bool BlockIndex::Touch(const BlockName& name, uint64_t tick) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->parts.empty()) return false;
  EvictionPolicy::Touch(node, tick);
  return true;
}

bool BlockIndex::Pin(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->parts.empty() || node->pins == UINT32_MAX) return false;
  ++node->pins;
  policy_->Remove(node);
  return true;
}

bool BlockIndex::Unpin(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->pins == 0) return false;
  --node->pins;
  Settle(shard, node);  // a pinned node has parts: it stays
  return true;
}

bool BlockIndex::Drop(const BlockName& name, const StoredObjectPtr& object) {
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    if (node == nullptr) return false;
    auto it = std::find(node->parts.begin(), node->parts.end(), object);
    if (it == node->parts.end()) return false;
    node->parts.erase(it);
    if (node->parts.empty()) node->pins = 0;
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
  return true;
}

size_t BlockIndex::nodes() const {
  size_t count = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mu);
    count += shard.nodes.size();
  }
  return count;
}

}  // namespace quire::store
