// The order in which policies name victims, and how tenants' shares decide whose they are.
#include <deque>

#include "gmock/gmock.h"
#include "services/store/engine/eviction.h"
#include "services/store/engine/tier_ledger.h"

namespace quire::store {
namespace {

using testing::ElementsAre;

// Blocks by number, with what a policy keeps of each.
class Blocks {
 public:
  struct Block {
    BlockName name;
    Usage usage;
    TierEntry entry;
  };
  Block& at(uint32_t number, uint32_t tenant = 0) {
    for (Block& block : blocks_) {
      if (block.name.key.bytes[0] == number && block.name.tenant == tenant) return block;
    }
    Block& block = blocks_.emplace_back();
    block.name.tenant = tenant;
    block.name.key.bytes[0] = static_cast<uint8_t>(number);
    for (EvictionEntry* e : {&block.entry.evict, &block.entry.degrade}) {
      e->name = &block.name;
      e->usage = &block.usage;
    }
    return block;
  }
  void Use(uint32_t number, uint32_t tenant = 0) {
    at(number, tenant).usage.Touch(clock_.Ticks(1));
    at(number, tenant).usage.CountUse();
  }
  void Add(EvictionPolicy& policy, uint32_t number) {
    at(number).usage.Touch(clock_.Ticks(1));
    policy.Add(&at(number).entry.evict);
  }
  int Pop(EvictionPolicy& policy, int64_t now_ms = 0) {
    std::optional<BlockName> victim = policy.PopVictim(clock_.Ticks(1), now_ms);
    return victim ? victim->key.bytes[0] : -1;
  }
  std::vector<int> PopAll(EvictionPolicy& policy) {
    std::vector<int> out;
    for (int victim = Pop(policy); victim >= 0; victim = Pop(policy)) out.push_back(victim);
    return out;
  }
  UseClock& clock() { return clock_; }

 private:
  UseClock clock_;
  std::deque<Block> blocks_;
};

TEST(EvictionPolicy, LruNamesTheLeastRecentlyUsed) {
  Blocks blocks;
  auto lru = NewEvictionPolicy(PolicyKind::kLru);
  for (uint32_t i = 1; i <= 4; ++i) blocks.Add(*lru, i);
  blocks.Use(1);
  blocks.Use(3);
  EXPECT_THAT(blocks.PopAll(*lru), ElementsAre(2, 4, 1, 3));
}

TEST(EvictionPolicy, LfuNamesTheLeastUsedAndForgetsOldFame) {
  Blocks blocks;
  auto lfu = NewEvictionPolicy(PolicyKind::kLfu);
  for (uint32_t i = 1; i <= 3; ++i) blocks.Add(*lfu, i);
  for (int i = 0; i < 3; ++i) blocks.Use(1);
  blocks.Use(2);
  EXPECT_EQ(blocks.Pop(*lfu), 3);
  EXPECT_EQ(blocks.Pop(*lfu), 2);
  // Newcomers count from the last victim's rank, so three uses of long ago do not outweigh them for ever.
  for (uint32_t i = 4; i <= 40; ++i) {
    blocks.Add(*lfu, i);
    blocks.Use(i);
    blocks.Use(i);
    if (blocks.Pop(*lfu) == 1) return;
  }
  FAIL() << "block 1 was never named";
}

TEST(EvictionPolicy, S3FifoKeepsWhatIsUsedAgainThroughAScan) {
  Blocks blocks;
  auto s3 = NewEvictionPolicy(PolicyKind::kS3Fifo);
  for (uint32_t i = 1; i <= 10; ++i) blocks.Add(*s3, i);
  for (uint32_t i = 1; i <= 5; ++i) blocks.Use(i);
  std::vector<int> victims;
  for (uint32_t i = 100; i < 150; ++i) {  // a scan of blocks used once
    blocks.Add(*s3, i);
    victims.push_back(blocks.Pop(*s3));
  }
  for (int kept = 1; kept <= 5; ++kept)
    EXPECT_EQ(std::count(victims.begin(), victims.end(), kept), 0) << kept;
  // A block that comes back soon after it was evicted is not new.
  blocks.Add(*s3, static_cast<uint32_t>(victims.back()));
  for (uint32_t i = 200; i < 205; ++i) {
    blocks.Add(*s3, i);
    EXPECT_NE(blocks.Pop(*s3), victims.back());
  }
}

TEST(EvictionPolicy, PriorityComesFirstAndParkedBlocksWait) {
  for (PolicyKind kind : {PolicyKind::kLru, PolicyKind::kS3Fifo, PolicyKind::kLfu}) {
    Blocks blocks;
    auto policy = NewEvictionPolicy(kind);
    blocks.at(1).entry.evict.priority = 1;
    blocks.at(3).entry.evict.priority = -1;
    for (uint32_t i = 1; i <= 4; ++i) blocks.Add(*policy, i);
    policy->Park(&blocks.at(2).entry.evict, 100);
    EXPECT_EQ(blocks.Pop(*policy, 99), 3);
    EXPECT_EQ(blocks.Pop(*policy, 99), 4);
    EXPECT_EQ(blocks.Pop(*policy, 100), 2);
    EXPECT_EQ(blocks.Pop(*policy, 100), 1);
    EXPECT_EQ(blocks.Pop(*policy, 100), -1);
  }
}

TEST(EvictionPolicy, NamesOfPolicies) {
  EXPECT_EQ(*ParsePolicyKind("lru"), PolicyKind::kLru);
  EXPECT_EQ(*ParsePolicyKind("s3fifo"), PolicyKind::kS3Fifo);
  EXPECT_EQ(*ParsePolicyKind("lfu"), PolicyKind::kLfu);
  EXPECT_EQ(ParsePolicyKind("fifo").status().code(), absl::StatusCode::kInvalidArgument);
}

// Tenants 1 and 2 in a tier of 100 bytes, blocks of 10.
class Ledger : public testing::Test {
 protected:
  void Add(uint32_t number, uint32_t tenant, bool degradable = false) {
    Blocks::Block& block = blocks_.at(number, tenant);
    block.usage.Touch(blocks_.clock().Ticks(1));
    ledger_.Update(&block.entry, tenant, {10, 1, true, degradable});
  }
  std::optional<TierLedger::Victim> Pop(uint32_t requester) {
    return ledger_.PopVictim(requester, blocks_.clock().Ticks(1), 0);
  }

  Blocks blocks_;
  TierLedger ledger_{LedgerOptions{PolicyKind::kLru, 0.5, 100, 0}};
};

TEST_F(Ledger, WhoHoldsMostOfItsSharePays) {
  for (uint32_t i = 1; i <= 3; ++i) Add(i, 1);
  for (uint32_t i = 1; i <= 5; ++i) Add(i, 2);
  EXPECT_EQ(Pop(1)->name.tenant, 2u);  // whoever asks
  EXPECT_EQ(Pop(2)->name.tenant, 2u);
  ledger_.SetShare(1, 20);  // 30 of 20 is more than 50 of 100
  EXPECT_EQ(Pop(2)->name.tenant, 1u);
}

TEST_F(Ledger, NobodyPaysForWhoHoldsMoreThanThey) {
  Add(1, 1);
  for (uint32_t i = 1; i <= 5; ++i) Add(i, 2);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Pop(2)->name.tenant, 2u);
  EXPECT_FALSE(Pop(2).has_value());  // tenant 2's blocks are all taken; tenant 1's one stays
  EXPECT_EQ(Pop(1)->name.tenant, 1u);
}

TEST_F(Ledger, BitsGoBeforeBlocksUntilOnlyTheHotShareHasAny) {
  for (uint32_t i = 1; i <= 4; ++i) Add(i, 1, /*degradable=*/true);
  for (uint32_t i = 1; i <= 2; ++i) {
    std::optional<TierLedger::Victim> victim = Pop(1);
    EXPECT_EQ(victim->kind, TierLedger::Victim::kDegrade);
    EXPECT_EQ(victim->name.key.bytes[0], i);
    ledger_.Update(&blocks_.at(i, 1).entry, 1, {8, 1, true, false});
  }
  // 20 of 36 bytes could still lose bits, half may keep them.
  EXPECT_EQ(Pop(1)->kind, TierLedger::Victim::kDegrade);
  ledger_.Update(&blocks_.at(3, 1).entry, 1, {8, 1, true, false});
  EXPECT_EQ(Pop(1)->kind, TierLedger::Victim::kEvict);
  EXPECT_EQ(ledger_.used_bytes(1), 34u);
  EXPECT_EQ(ledger_.objects(), 4u);
}

}  // namespace
}  // namespace quire::store
