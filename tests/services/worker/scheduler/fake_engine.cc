#include "tests/services/worker/scheduler/fake_engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "tests/core/model/gguf_builder.h"

namespace quire::worker {
namespace {

constexpr uint32_t kDim = 16;  // the smallest head

void AppendUtf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else {
    out->push_back(static_cast<char>(0xC0 | (c >> 6)));
    out->push_back(static_cast<char>(0x80 | (c & 63)));
  }
}

// GPT-2 writes bytes that are not printable as code points from 256 on.
std::string ByteSymbol(uint32_t byte) {
  auto printable = [](uint32_t b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  uint32_t c = byte;
  if (!printable(byte)) {
    c = 256;
    for (uint32_t b = 0; b < byte; ++b) c += !printable(b);
  }
  std::string out;
  AppendUtf8(c, &out);
  return out;
}

// Splits a token over two channels, exact in bf16.
void WriteToken(uint32_t token, float* k) {
  std::fill(k, k + kDim, 0.0f);
  k[0] = static_cast<float>(token & 15);
  k[1] = static_cast<float>(token >> 4);
}
uint32_t ReadToken(const float* k) {
  return static_cast<uint32_t>(k[0]) + (static_cast<uint32_t>(k[1]) << 4);
}

uint32_t LetterOf(std::span<const uint32_t> history) {
  uint64_t hash = Xxh3({reinterpret_cast<const uint8_t*>(history.data()), history.size_bytes()});
  return static_cast<uint32_t>('a' + hash % 26);
}

}  // namespace

std::shared_ptr<const Tokenizer> ByteTokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    std::vector<std::string> tokens;
    std::vector<int32_t> types(256, 1);
    for (uint32_t b = 0; b < 256; ++b) tokens.push_back(ByteSymbol(b));
    for (const char* special : {"<|end|>", "<|turn|>"}) {
      tokens.push_back(special);
      types.push_back(3);
    }
    GgufBuilder b;
    b.String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", "gpt-2");
    b.Strings("tokenizer.ggml.tokens", tokens)
        .Strings("tokenizer.ggml.merges", {})
        .I32s("tokenizer.ggml.token_type", types);
    b.U32("tokenizer.ggml.eos_token_id", kEnd);
    static const std::vector<uint8_t> bytes = b.Build();
    auto file = GgufFile::Parse(bytes);
    if (!file.ok()) std::fprintf(stderr, "%s\n", std::string(file.status().message()).c_str());
    auto made = Tokenizer::FromGguf(**file);
    if (!made.ok()) std::fprintf(stderr, "%s\n", std::string(made.status().message()).c_str());
    return *made;
  }();
  return tokenizer;
}

std::shared_ptr<const ChatTemplate> TurnTemplate() {
  return *ChatTemplate::Parse(
      "{% for m in messages %}{% if m['role'] == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
      "<|turn|>{{ m['role'] }}:{{ m['content'] }}{% endfor %}{% if tools %}[{{ tools[0]['name'] }}]{% endif "
      "%}"
      "{% if style %}({{ style }}){% endif %}{% if add_generation_prompt %}<|turn|>assistant:{% endif %}",
      "", "<|end|>");
}

std::vector<uint32_t> ByteTokens(std::string_view text) { return {text.begin(), text.end()}; }

BlockIdentity FakeSequence::NextIdentity(std::span<const uint32_t> tokens) const {
  Digest parent = blocks_.empty() ? root_ : blocks_.back().identity.key;
  return {parent, BlockKey(parent, tokens), static_cast<uint32_t>(blocks_.size())};
}

absl::Status FakeSequence::Restore(std::span<const uint32_t> tokens,
                                   std::shared_ptr<const std::vector<uint8_t>> object) {
  BlockIdentity identity = NextIdentity(tokens);
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(codec_, identity, *object));
  QUIRE_RETURN_IF_ERROR(reader.Verify());
  std::vector<float> k(kBlockTokens * kDim), v(kBlockTokens * kDim);
  MutableLayerView out{{k.data(), DType::kF32, kDim, kDim}, {v.data(), DType::kF32, kDim, kDim}};
  QUIRE_RETURN_IF_ERROR(reader.DecodeLayer(0, reader.levels(), out));
  for (uint32_t t = 0; t < kBlockTokens; ++t) tokens_.push_back(ReadToken(&k[t * kDim]));
  blocks_.push_back({identity, std::move(object)});
  ++restored;
  return absl::OkStatus();
}

absl::Status FakeSequence::Append(std::span<const uint32_t> tokens, bool encodable) {
  for (uint32_t token : tokens) {
    tokens_.push_back(token);
    if (tokens_.size() % kBlockTokens != 0) continue;
    std::span<const uint32_t> block = std::span(tokens_).last(kBlockTokens);
    SealedBlock sealed{NextIdentity(block), nullptr};
    if (encodable) {
      std::vector<float> k(kBlockTokens * kDim);
      for (uint32_t t = 0; t < kBlockTokens; ++t) WriteToken(block[t], &k[t * kDim]);
      LayerView view{{k.data(), DType::kF32, kDim, kDim}, {k.data(), DType::kF32, kDim, kDim}};
      auto object = std::make_shared<std::vector<uint8_t>>();
      QUIRE_ASSIGN_OR_RETURN(CodecSpec raw, CodecSpec::Parse("raw"));
      QUIRE_RETURN_IF_ERROR(codec_->Encode(raw, sealed.identity, std::span(&view, 1), object.get()));
      sealed.object = std::move(object);
    }
    blocks_.push_back(std::move(sealed));
  }
  return absl::OkStatus();
}

FakeEngine::FakeEngine(uint32_t context, uint64_t rotation_seed)
    : next(LetterOf), tokenizer_(ByteTokenizer()), chat_template_(TurnTemplate()) {
  Sha256 digest;
  digest.Update("fake model");
  Layout layout = Layout::Uniform(digest.Finish(), /*layers=*/1, /*kv_heads=*/1, kDim);
  layout.rotation_seed = rotation_seed;
  codec_ = *BlockCodec::Create(layout, Part::Whole(layout));
  info_.name = "fake";
  info_.architecture = "none";
  info_.model_digest = layout.model_digest;
  info_.fingerprint = layout.Fingerprint();
  info_.context = context;
  info_.vocabulary = kFakeVocabulary;
  info_.eos_tokens = {kEnd};
}

absl::StatusOr<std::vector<float>> FakeEngine::Forward(Sequence& sequence, std::span<const uint32_t> tokens) {
  auto& fake = static_cast<FakeSequence&>(sequence);
  Call call{fake.tokens_.empty() ? tokens[0] : fake.tokens_[0], fake.length(),
            static_cast<uint32_t>(tokens.size())};
  if (before) QUIRE_RETURN_IF_ERROR(before(call));
  QUIRE_RETURN_IF_ERROR(fake.Append(tokens, encodable));
  {
    std::lock_guard lock(mutex_);
    calls_.push_back(call);
  }
  // Every token may be drawn at temperature 1, the chosen one most likely.
  std::vector<float> logits(kFakeVocabulary, -20.0f);
  for (uint32_t token = 'a'; token <= 'z'; ++token)
    logits[token] = static_cast<float>((token * 7) % 5) * 0.3f;
  logits[next(fake.tokens_)] = 4.0f;
  return logits;
}

std::vector<FakeEngine::Call> FakeEngine::calls() const {
  std::lock_guard lock(mutex_);
  return calls_;
}

uint64_t FakeEngine::computed_tokens() const {
  uint64_t sum = 0;
  for (const Call& call : calls()) sum += call.count;
  return sum;
}

FakeEngine::Next Writes(std::vector<uint32_t> tokens, size_t prompt_tokens) {
  tokens.push_back(kEnd);
  return [tokens = std::move(tokens), prompt_tokens](std::span<const uint32_t> history) {
    return tokens[std::min(history.size() - prompt_tokens, tokens.size() - 1)];
  };
}

void Gate::Open() {
  std::lock_guard lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

void Gate::Wait() {
  std::unique_lock lock(mutex_);
  ++arrivals_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return open_; });
}

void Gate::WaitForArrivals(int count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return arrivals_ >= count; });
}

}  // namespace quire::worker
