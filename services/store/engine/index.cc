#include "services/store/engine/index.h"

#include <algorithm>
#include <mutex>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {

const StoredObjectPtr* BlockIndex::Node::Covering(const Part& part, std::optional<Tier> tier) const {
  const StoredObjectPtr* best = nullptr;
  auto rank = [](const StoredObject& object) { return std::pair(object.tier, object.record.bytes()); };
  for (const StoredObjectPtr& object : copies) {
    if (tier && object->tier != *tier) continue;
    if (object->part.Covers(part) && (best == nullptr || rank(*object) < rank(**best))) best = &object;
  }
  return best;
}

bool BlockIndex::Node::Expired(int64_t now_unix_ms, int64_t now_ms) const {
  if (copies.empty() || pins > 0 || leased_until.load(std::memory_order_relaxed) > now_ms) return false;
  return std::all_of(copies.begin(), copies.end(), [&](const StoredObjectPtr& copy) {
    return copy->record.expires_ms != 0 && copy->record.expires_ms <= now_unix_ms;
  });
}

bool BlockIndex::Node::HasCopyBelow(size_t slot) const {
  return std::any_of(copies.begin(), copies.end(),
                     [&](const StoredObjectPtr& copy) { return SlotOf(copy->tier) > slot; });
}

BlockIndex::Node* BlockIndex::Shard::FindOrAdd(const BlockName& name) {
  auto [it, added] = nodes.try_emplace(name);
  if (added) {
    it->second = std::make_unique<Node>();
    it->second->name = name;
  }
  return it->second.get();
}

TierEntry* BlockIndex::EntryOf(Node* node, size_t slot) {
  std::unique_ptr<TierEntry>& entry = node->entries[slot];
  if (entry == nullptr) {
    entry = std::make_unique<TierEntry>();
    for (EvictionEntry* e : {&entry->evict, &entry->degrade}) {
      e->name = &node->name;
      e->usage = &node->usage;
      e->priority = node->copies.empty() ? 0 : node->copies.front()->record.priority;
    }
  }
  return entry.get();
}

TierLedger::Standing BlockIndex::StandingIn(const Node& node, size_t slot) const {
  TierLedger::Standing standing;
  uint32_t most = 0;
  for (const StoredObjectPtr& copy : node.copies) {
    if (SlotOf(copy->tier) != slot) continue;
    standing.bytes += copy->charged;
    ++standing.objects;
    most = std::max(most, copy->record.levels);
  }
  if (standing.bytes == 0 || node.pins > 0) return standing;
  bool below = node.HasCopyBelow(slot);
  bool above = std::any_of(node.copies.begin(), node.copies.end(),
                           [&](const StoredObjectPtr& copy) { return SlotOf(copy->tier) < slot; });
  standing.evictable = node.children == 0 || below || above;
  standing.degradable = !below && most > options_.floor_levels(node.name.tenant);
  return standing;
}

void BlockIndex::UpdateLedgers(Node* node) {
  for (size_t slot = 0; slot < kTiers; ++slot) {
    TierLedger* ledger = options_.ledgers[slot];
    if (ledger == nullptr) continue;
    TierLedger::Standing standing = StandingIn(*node, slot);
    if (standing.bytes == 0 && node->entries[slot] == nullptr) continue;
    ledger->Update(EntryOf(node, slot), node->name.tenant, standing);
    if (standing.bytes == 0) node->entries[slot].reset();
  }
  uint64_t stored = 0;
  for (const StoredObjectPtr& copy : node->copies) stored = std::max(stored, copy->record.bytes());
  if (stored != node->stored_bytes) {
    options_.stored(node->name.tenant,
                    static_cast<int64_t>(stored) - static_cast<int64_t>(node->stored_bytes));
    node->stored_bytes = stored;
  }
}

std::optional<BlockName> BlockIndex::Settle(Shard& shard, Node* node) {
  if (node->copies.empty()) node->pins = 0;
  UpdateLedgers(node);
  if (!node->copies.empty() || node->children > 0 || node->writers > 0) return std::nullopt;
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
  if (object == nullptr || node->Expired(mark.now_unix_ms, mark.now_ms)) {
    if (node->writers > 0) state.state = BlockState::kPending;
    return state;
  }
  node->usage.Touch(mark.tick);
  node->usage.CountUse();
  int64_t leased = node->leased_until.load(std::memory_order_relaxed);
  while (leased < mark.leased_until &&
         !node->leased_until.compare_exchange_weak(leased, mark.leased_until, std::memory_order_relaxed)) {
  }
  state.state = BlockState::kHit;
  state.tier = (*object)->tier;
  state.levels = (*object)->record.levels;
  state.codec = (*object)->record.codec;
  state.bytes = (*object)->record.bytes();
  return state;
}

StoredObjectPtr BlockIndex::Open(const BlockName& name, const BlockIdentity& identity, const Part& part,
                                 const Mark& mark) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || !node->is(identity) || node->Expired(mark.now_unix_ms, mark.now_ms)) return nullptr;
  const StoredObjectPtr* object = node->Covering(part);
  if (object == nullptr) return nullptr;
  node->usage.Touch(mark.tick);
  return *object;
}

StoredObjectPtr BlockIndex::Peek(const BlockName& name, const Part& part) const {
  const Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  const StoredObjectPtr* object = node == nullptr ? nullptr : node->Covering(part);
  return object == nullptr ? nullptr : *object;
}

StoredObjectPtr BlockIndex::PeekAny(const BlockName& name) const {
  const Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->copies.empty()) return nullptr;
  return *std::min_element(node->copies.begin(), node->copies.end(),
                           [](const auto& a, const auto& b) { return a->tier < b->tier; });
}

StoredObjectPtr BlockIndex::PeekIn(const BlockName& name, const Part& part, Tier tier) const {
  const Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  const StoredObjectPtr* object = node == nullptr ? nullptr : node->Covering(part, tier);
  return object == nullptr ? nullptr : *object;
}

absl::StatusOr<bool> BlockIndex::Announce(const BlockName& name, const BlockIdentity& identity,
                                          const Part& part, const Mark& mark) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  if (Node* node = shard.Find(name); node != nullptr && node->linked) {
    if (!node->is(identity))
      return absl::InvalidArgumentError("the block is stored with another parent or index");
    if (node->Covering(part) != nullptr && !node->Expired(mark.now_unix_ms, mark.now_ms)) {
      node->usage.Touch(mark.tick);
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
  if (node == nullptr || node->copies.empty()) return absl::NotFoundError("the block is not stored");
  return node->index;
}

absl::Status BlockIndex::HoldParent(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->copies.empty())
    return absl::FailedPreconditionError("the block's parent is not stored");
  ++node->children;
  UpdateLedgers(node);
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

absl::StatusOr<StoredObjectPtr> BlockIndex::Link(const BlockName& name, const BlockIdentity& identity,
                                                 StoredObjectPtr object, uint64_t tick,
                                                 absl::FunctionRef<void()> count, bool* linked_now) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.FindOrAdd(name);
  if (!node->is(identity))
    return absl::InvalidArgumentError("the block is stored with another parent or index");
  const StoredObjectPtr* there = node->Covering(object->part);
  StoredObjectPtr stored = there != nullptr ? *there : object;
  if (there == nullptr) {
    if (!node->linked) {
      node->linked = *linked_now = true;
      node->parent = identity.parent;
      node->index = identity.index;
    }
    count();
    node->copies.push_back(std::move(object));
  }
  node->usage.Touch(tick);
  UpdateLedgers(node);  // it has a copy: it stays
  return stored;
}

absl::StatusOr<StoredObjectPtr> BlockIndex::Insert(const BlockName& name, const BlockIdentity& identity,
                                                   StoredObjectPtr object, uint64_t tick,
                                                   absl::FunctionRef<void()> count) {
  bool linked_now = false;
  absl::StatusOr<StoredObjectPtr> stored = Link(name, identity, std::move(object), tick, count, &linked_now);
  // The hold on the parent becomes this child's, unless it has one already.
  if (!linked_now && identity.index > 0) ReleaseParent(BlockName{name.tenant, name.layout, identity.parent});
  return stored;
}

absl::StatusOr<StoredObjectPtr> BlockIndex::Adopt(const BlockName& name, const BlockIdentity& identity,
                                                  StoredObjectPtr object, uint64_t tick) {
  BlockName parent{name.tenant, name.layout, identity.parent};
  if (identity.index > 0) {
    Shard& shard = ShardOf(parent);
    std::lock_guard lock(shard.mu);
    Node* node = shard.FindOrAdd(parent);
    ++node->children;
    UpdateLedgers(node);
  }
  return Insert(name, identity, std::move(object), tick, [] {});
}

StoredObjectPtr BlockIndex::AddCopy(const BlockName& name, StoredObjectPtr object) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->Covering(object->part) == nullptr) return nullptr;
  if (const StoredObjectPtr* there = node->Covering(object->part, object->tier)) return *there;
  node->copies.push_back(object);
  UpdateLedgers(node);
  return object;
}

bool BlockIndex::MustStay(Node* node, size_t slot, int64_t now_ms, bool whole) {
  TierEntry* entry = EntryOf(node, slot);
  TierLedger::Standing standing = StandingIn(*node, slot);
  if (node->pins > 0 || !(whole ? node->children == 0 : standing.evictable)) return true;
  if (int64_t until = node->leased_until.load(std::memory_order_relaxed); until > now_ms) {
    options_.ledgers[slot]->Update(entry, node->name.tenant, standing);
    options_.ledgers[slot]->Park(entry, node->name.tenant, until);
    return true;
  }
  bool read = std::any_of(node->copies.begin(), node->copies.end(), [&](const StoredObjectPtr& copy) {
    return (whole || SlotOf(copy->tier) == slot) && copy.use_count() > 1;
  });
  return read;
}

std::vector<StoredObjectPtr> BlockIndex::TakeCopies(const BlockName& name, absl::FunctionRef<bool(Node*)> may,
                                                    std::optional<Tier> tier) {
  std::vector<StoredObjectPtr> out;
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    if (node == nullptr || node->copies.empty() || !may(node)) return out;
    auto taken =
        std::stable_partition(node->copies.begin(), node->copies.end(),
                              [&](const StoredObjectPtr& copy) { return tier && copy->tier != *tier; });
    out.assign(std::make_move_iterator(taken), std::make_move_iterator(node->copies.end()));
    node->copies.erase(taken, node->copies.end());
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
  return out;
}

std::vector<StoredObjectPtr> BlockIndex::Evict(const BlockName& name, Tier tier, int64_t now_ms) {
  return TakeCopies(
      name, [&](Node* node) { return !MustStay(node, SlotOf(tier), now_ms, false); }, tier);
}

std::vector<StoredObjectPtr> BlockIndex::EvictWhole(const BlockName& name, int64_t now_ms) {
  return TakeCopies(
      name, [&](Node* node) { return !MustStay(node, SlotOf(node->copies.front()->tier), now_ms, true); },
      std::nullopt);
}

std::vector<StoredObjectPtr> BlockIndex::Delete(const BlockName& name, bool force, int64_t now_ms) {
  return TakeCopies(
      name,
      [&](Node* node) {
        return force || (node->pins == 0 && node->leased_until.load(std::memory_order_relaxed) <= now_ms);
      },
      std::nullopt);
}

std::vector<StoredObjectPtr> BlockIndex::Degradable(const BlockName& name, Tier tier, int64_t now_ms) {
  std::vector<StoredObjectPtr> out;
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr) return out;
  size_t slot = SlotOf(tier);
  if (!StandingIn(*node, slot).degradable) return out;
  if (int64_t until = node->leased_until.load(std::memory_order_relaxed); until > now_ms) {
    options_.ledgers[slot]->ParkDegrade(EntryOf(node, slot), node->name.tenant, until);
    return out;
  }
  uint32_t floor = options_.floor_levels(name.tenant);
  for (const StoredObjectPtr& copy : node->copies) {
    if (copy->tier == tier && copy->record.levels > floor) out.push_back(copy);
  }
  return out;
}

std::vector<StoredObjectPtr> BlockIndex::OnlyIn(const BlockName& name, Tier tier) const {
  std::vector<StoredObjectPtr> out;
  const Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr) return out;
  for (const StoredObjectPtr& copy : node->copies) {
    if (copy->tier != tier) continue;
    bool below = std::any_of(node->copies.begin(), node->copies.end(), [&](const StoredObjectPtr& other) {
      return other->tier > tier && other->part.Covers(copy->part);
    });
    if (!below) out.push_back(copy);
  }
  return out;
}

bool BlockIndex::Replace(const BlockName& name, const StoredObjectPtr& whole, StoredObjectPtr cut,
                         bool unread_by_others, absl::FunctionRef<void()> before_visible) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr) return false;
  auto it = std::find(node->copies.begin(), node->copies.end(), whole);
  if (it == node->copies.end() || (unread_by_others && whole.use_count() > 2)) return false;
  if (!StandingIn(*node, SlotOf(whole->tier)).degradable) return false;  // pinned, or copied, meanwhile
  before_visible();
  *it = std::move(cut);
  UpdateLedgers(node);
  return true;
}

bool BlockIndex::Touch(const BlockName& name, uint64_t tick) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->copies.empty()) return false;
  node->usage.Touch(tick);
  node->usage.CountUse();
  return true;
}

bool BlockIndex::Pin(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->copies.empty() || node->pins == UINT32_MAX) return false;
  ++node->pins;
  UpdateLedgers(node);
  return true;
}

bool BlockIndex::Unpin(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  Node* node = shard.Find(name);
  if (node == nullptr || node->pins == 0) return false;
  --node->pins;
  UpdateLedgers(node);
  return true;
}

void BlockIndex::Reconsider(const BlockName& name) {
  Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  if (Node* node = shard.Find(name)) UpdateLedgers(node);
}

std::vector<StoredObjectPtr> BlockIndex::TakeExpired(const BlockName& name, int64_t now_unix_ms,
                                                     int64_t now_ms) {
  return TakeCopies(
      name, [&](Node* node) { return node->Expired(now_unix_ms, now_ms); }, std::nullopt);
}

bool BlockIndex::Drop(const BlockName& name, const StoredObjectPtr& object) {
  std::optional<BlockName> parent;
  {
    Shard& shard = ShardOf(name);
    std::lock_guard lock(shard.mu);
    Node* node = shard.Find(name);
    if (node == nullptr) return false;
    auto it = std::find(node->copies.begin(), node->copies.end(), object);
    if (it == node->copies.end()) return false;
    node->copies.erase(it);
    parent = Settle(shard, node);
  }
  if (parent) ReleaseParent(*parent);
  return true;
}

void BlockIndex::ForEach(
    std::optional<uint32_t> tenant,
    absl::FunctionRef<void(const BlockName&, const std::vector<StoredObjectPtr>&)> visit) const {
  for (const Shard& shard : shards_) {
    std::vector<std::pair<BlockName, std::vector<StoredObjectPtr>>> blocks;
    {
      std::lock_guard lock(shard.mu);
      for (const auto& [name, node] : shard.nodes) {
        if (node->copies.empty() || (tenant && name.tenant != *tenant)) continue;
        blocks.emplace_back(name, std::vector<StoredObjectPtr>(node->copies.begin(), node->copies.end()));
      }
    }
    for (const auto& [name, copies] : blocks) visit(name, copies);
  }
}

std::vector<BlockName> BlockIndex::NamesAfter(const BlockName& place, size_t most) const {
  auto before = [](const BlockName& a, const BlockName& b) {
    return std::tie(a.key, a.tenant, a.layout) < std::tie(b.key, b.tenant, b.layout);
  };
  std::vector<BlockName> found;  // a heap of the first ones, the last of them in front
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mu);
    for (const auto& [name, node] : shard.nodes) {
      if (node->copies.empty() || !before(place, name)) continue;
      if (found.size() == most) {
        if (!before(name, found.front())) continue;
        std::pop_heap(found.begin(), found.end(), before);
        found.pop_back();
      }
      found.push_back(name);
      std::push_heap(found.begin(), found.end(), before);
    }
  }
  std::sort_heap(found.begin(), found.end(), before);
  return found;
}

std::vector<std::pair<Part, Tier>> BlockIndex::CopiesOf(const BlockName& name) const {
  std::vector<std::pair<Part, Tier>> copies;
  const Shard& shard = ShardOf(name);
  std::lock_guard lock(shard.mu);
  if (const Node* node = shard.Find(name)) {
    for (const StoredObjectPtr& copy : node->copies) copies.emplace_back(copy->part, copy->tier);
  }
  return copies;
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
