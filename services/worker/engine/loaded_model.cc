#include "services/worker/engine/loaded_model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <future>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/engine/parallel.h"

namespace quire::worker {
namespace {

absl::StatusOr<LoadedModel> LoadChecked(const LoadOptions& options, const LoadProgress& progress) {
  auto report = [&](const char* step, double fraction) {
    if (progress) progress(step, fraction);
  };
  SetThreads(options.threads);
  report("Opening model", 0);
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const GgufFile> file, GgufFile::Open(options.path));
  QUIRE_ASSIGN_OR_RETURN(DecoderConfig config, DecoderConfig::FromGguf(*file));
  const uint32_t context = options.max_context == 0 ? config.context : options.max_context;
  if (context > config.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_context ", context, " exceeds the model's context of ", config.context));
  }
  LoadedModel loaded;
  QUIRE_ASSIGN_OR_RETURN(loaded.tokenizer, Tokenizer::FromGguf(*file));
  auto chat_template = ChatTemplate::FromGguf(*file);
  if (chat_template.ok()) {
    loaded.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  if (loaded.tokenizer->vocabulary() > config.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("the tokenizer has ", loaded.tokenizer->vocabulary(),
                                                   " tokens, the model ", config.vocabulary));
  }
  report("Checking weights", 0);
  const Digest digest = file->WeightsDigest();
  report("Checking weights", 1);
  const Layout layout = config.KvLayout(digest);
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  QUIRE_ASSIGN_OR_RETURN(loaded.codec, BlockCodec::Create(layout, Part::Whole(layout)));
  const auto load = config.family == ModelFamily::kGemma3 ? LoadGemma3 : LoadLlama;
  QUIRE_ASSIGN_OR_RETURN(loaded.model, load(*file, config, loaded.codec,
                                            [&](double fraction) { report("Reading weights", fraction); }));
  const std::span<const uint32_t> ends = loaded.tokenizer->end_tokens();
  loaded.info = {.name = config.name,
                 .architecture = config.architecture,
                 .model_digest = digest,
                 .fingerprint = loaded.codec->fingerprint(),
                 .context = context,
                 .vocabulary = config.vocabulary,
                 .parameters = file->parameters(),
                 .eos_tokens = {ends.begin(), ends.end()}};
  return loaded;
}

// Runs the sample text and keeps what its queries look like.
absl::Status LearnQueries(uint32_t most, const LoadProgress& progress, LoadedModel& loaded) {
  if (progress) progress("Learning queries", 0);
  QUIRE_ASSIGN_OR_RETURN(
      std::vector<uint32_t> tokens,
      loaded.tokenizer->Encode(kSampleText, /*parse_special=*/false, /*add_special=*/true));
  tokens.resize(std::min<size_t>({tokens.size(), most, loaded.info.context}));
  if (tokens.empty()) return absl::OkStatus();  // a vocabulary without a word of it
  const BlockCodec& codec = *loaded.codec;
  QueryMoments moments(codec.part().layers(), codec.part().heads(),
                       codec.layout().layers.front().streams.front().dim, loaded.info.context);
  const std::unique_ptr<KvSequence> kv =
      loaded.NewSequence(Digest(), CodecSpec(), KvSequence::Mode::kEvaluation);
  loaded.model->ObserveQueries(&moments);
  const absl::Status run = loaded.Run(*kv, tokens, [](const at::Tensor&) {});
  loaded.model->ObserveQueries(nullptr);
  QUIRE_RETURN_IF_ERROR(run);
  QUIRE_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    absl::StatusOr<QueryShapes> shapes = moments.Shapes(codec);
    // A model that makes NaN of the sample is served as it is, with nothing to steer by.
    if (absl::IsInvalidArgument(shapes.status())) return absl::OkStatus();
    QUIRE_RETURN_IF_ERROR(shapes.status());
    loaded.shapes = std::make_shared<const QueryShapes>(*std::move(shapes));
    return absl::OkStatus();
  }));
  if (progress) progress("Learning queries", 1);
  return absl::OkStatus();
}

}  // namespace

absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body) {
  try {
    c10::InferenceMode inference;
    at::init_num_threads();  // the setting is per thread; callers' threads come and go
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("torch: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the engine ran out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("engine: ", error.what()));
  }
}

absl::StatusOr<LoadedModel> LoadedModel::Load(const LoadOptions& options, const LoadProgress& progress) {
  absl::StatusOr<LoadedModel> loaded;
  QUIRE_RETURN_IF_ERROR(CatchTorch([&] {
    loaded = LoadChecked(options, progress);
    return loaded.status();
  }));
  if (options.query_tokens > 0) QUIRE_RETURN_IF_ERROR(LearnQueries(options.query_tokens, progress, *loaded));
  return loaded;
}

std::unique_ptr<KvSequence> LoadedModel::NewSequence(const Digest& root, const CodecSpec& spec,
                                                     KvSequence::Mode mode) const {
  const KvSequence::Limits limits{.context = info.context, .vocabulary = info.vocabulary};
  return std::make_unique<KvSequence>(codec, spec, shapes, root, limits, mode);
}

absl::Status LoadedModel::Run(KvSequence& kv, std::span<const uint32_t> tokens,
                              absl::FunctionRef<void(const at::Tensor&)> visit) const {
  QUIRE_RETURN_IF_ERROR(kv.CheckTokens(tokens));
  return CatchTorch([&]() -> absl::Status {
    for (size_t done = 0; done < tokens.size();) {
      const size_t n = std::min<size_t>(kChunkTokens - kv.length() % kChunkTokens, tokens.size() - done);
      const std::span<const uint32_t> chunk = tokens.subspan(done, n);
      QUIRE_RETURN_IF_ERROR(kv.Reserve(chunk));
      QUIRE_ASSIGN_OR_RETURN(const at::Tensor hidden, model->Forward(chunk, kv));
      QUIRE_RETURN_IF_ERROR(kv.Commit());
      visit(hidden);
      done += n;
    }
    return absl::OkStatus();
  });
}

}  // namespace quire::worker
