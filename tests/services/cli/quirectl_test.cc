// quirectl, run in this process against a real server.
#include "services/cli/quirectl.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "gmock/gmock.h"
#include "services/cli/files.h"
#include "services/cli/inspect.h"
#include "services/cli/layout_file.h"
#include "tests/services/cli/run.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class QuirectlTest : public testing::Test {
 protected:
  QuirectlTest() : chain_(store::SampleLayout(), 3, "tq:k5v4"), served_(store::SmallStore()) {
    char name[] = "/tmp/quirectl_test.XXXXXX";
    folder_ = mkdtemp(name);
    layout_ = folder_ + "/layout.json";
    std::ofstream(layout_) << R"({"model_digest": ")" << chain_.layout.model_digest.Hex()
                           << R"(", "uniform": {"layers": 2, "kv_heads": 2, "head_dim": 64}})";
    for (size_t i = 0; i < 3; ++i) {
      files_.push_back(folder_ + "/block" + std::to_string(i));
      EXPECT_TRUE(WriteFile(files_.back(), chain_.objects[i]).ok());
    }
  }
  ~QuirectlTest() override { std::filesystem::remove_all(folder_); }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--store", served_.address()});
    Ran ran = RunQuirectl(std::move(arguments));
    out_ = ran.out, err_ = ran.err;
    return ran.code;
  }
  std::string Key(size_t i) { return chain_.identities[i].key.Hex(); }

  store::SampleChain chain_;
  store::ServedStore served_;
  std::string folder_, layout_, out_, err_;
  std::vector<std::string> files_;
};

TEST_F(QuirectlTest, PutsLooksUpGetsAndDeletes) {
  ASSERT_EQ(Run({"put", "--layout", layout_, files_[2], files_[0], files_[1]}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("stored 3 of 3 blocks"));
  ASSERT_EQ(Run({"--json", "put", "--layout", layout_, files_[0]}), 0) << err_;
  EXPECT_EQ(json::parse(out_)["stored"], 0);

  ASSERT_EQ(Run({"lookup", "--json", "--layout", layout_, Key(0), Key(1), Key(2)}), 0) << err_;
  json found = json::parse(out_);
  EXPECT_EQ(found["prefix_tokens"], 192);
  EXPECT_EQ(found["blocks"][1]["codec"], "tq:k5v4");
  EXPECT_EQ(Run({"lookup", "--layout", layout_, Key(0), std::string(64, '0')}), 2);
  EXPECT_THAT(out_, HasSubstr("prefix 1 of 2 blocks"));

  std::string out_folder = folder_ + "/fetched";
  ASSERT_EQ(Run({"get", "--layout", layout_, "--parent", chain_.identities[0].parent.Hex(), "--out",
                 out_folder, Key(0), Key(1)}),
            0)
      << err_;
  EXPECT_EQ(*ReadFile(out_folder + "/" + Key(1) + ".qkv"), chain_.objects[1]);
  EXPECT_EQ(Run({"get", "--layout", layout_, "--parent", Key(0), "--out", out_folder, Key(1)}),
            2);  // index 1 was not told
  ASSERT_EQ(Run({"get", "--layout", layout_, "--parent", Key(0), "--index", "1", "--max-bits", "2", "--out",
                 out_folder, Key(1)}),
            0);
  EXPECT_LT(ReadFile(out_folder + "/" + Key(1) + ".qkv")->size(), chain_.objects[1].size());

  ASSERT_EQ(Run({"delete", "--layout", layout_, Key(2), Key(1)}), 0);
  EXPECT_THAT(out_, HasSubstr("deleted 2 of 2"));
}

TEST_F(QuirectlTest, PinsTouchesAndPrefetches) {
  ASSERT_EQ(Run({"put", "--layout", layout_, files_[0], files_[1], files_[2]}), 0) << err_;
  std::string absent(64, '0');
  ASSERT_EQ(Run({"pin", "--layout", layout_, Key(0), Key(1), absent}), 0) << err_;
  EXPECT_EQ(out_, "pinned 2 of 3 blocks\n");
  ASSERT_EQ(Run({"delete", "--layout", layout_, Key(1)}), 0) << err_;
  EXPECT_EQ(out_, "deleted 0 of 1 blocks\n");
  ASSERT_EQ(Run({"--json", "unpin", "--layout", layout_, Key(0), Key(1)}), 0) << err_;
  EXPECT_EQ(json::parse(out_)["unpinned"], 2);
  ASSERT_EQ(Run({"touch", "--layout", layout_, Key(0), Key(1), Key(2)}), 0) << err_;
  EXPECT_EQ(out_, "touched 3 of 3 blocks\n");
  ASSERT_EQ(Run({"prefetch", "--layout", layout_, "--tier", "host", Key(0)}), 0) << err_;
  EXPECT_EQ(out_, "queued 0 of 1 blocks\n");
  EXPECT_NE(Run({"prefetch", "--layout", layout_, "--tier", "tape", Key(0)}), 0);
}

TEST_F(QuirectlTest, TellsStats) {
  ASSERT_TRUE(store::PutChain(served_.engine(), chain_).ok());
  ASSERT_EQ(Run({"stats", "--json"}), 0) << err_;
  json stats = json::parse(out_);
  EXPECT_EQ(stats["blocks_stored"], 3);
  EXPECT_EQ(stats["tiers"][0]["tier"], "host");
  EXPECT_GT(stats["compression_ratio"], 2.0);
  ASSERT_EQ(Run({"stats"}), 0);
  EXPECT_THAT(out_, HasSubstr("blocks_stored"));
}

TEST_F(QuirectlTest, InspectsObjectsWithoutAStore) {
  served_.Stop();
  std::ostringstream out, err;
  const char* argv[] = {"quirectl", "inspect", "--json", files_[0].c_str()};
  ASSERT_EQ(Quirectl(4, argv, out, err), 0) << err.str();
  json object = json::parse(out.str());
  EXPECT_EQ(object["key"], Key(0));
  EXPECT_EQ(object["levels_present"], 4);
  EXPECT_EQ(object["codecs"][0]["codec"], "tq:k5v4");
  ASSERT_EQ(object["levels"].size(), 4u);
  EXPECT_LT(object["levels"][3]["k_error"], object["levels"][0]["k_error"]);
  EXPECT_EQ(object["levels"][0]["k_error_by_layer"].size(), 2u);

  std::ostringstream text;
  const char* plain[] = {"quirectl", "inspect", files_[0].c_str()};
  ASSERT_EQ(Quirectl(3, plain, text, err), 0);
  EXPECT_THAT(text.str(), HasSubstr("layers 0-1: tq:k5v4"));
  EXPECT_THAT(text.str(), HasSubstr("level 3      present"));
}

TEST_F(QuirectlTest, FailsWithAReason) {
  EXPECT_EQ(Run({"lookup", "--layout", layout_, "abc"}), 1);
  EXPECT_THAT(err_, HasSubstr("key abc is not 64 hex digits"));
  EXPECT_EQ(Run({"lookup", "--layout", folder_ + "/none", Key(0)}), 1);
  EXPECT_THAT(err_, HasSubstr("cannot open"));
  EXPECT_EQ(Run({"inspect", layout_}), 1);
  EXPECT_THAT(err_, HasSubstr(layout_));
  EXPECT_NE(Run({"fly"}), 0);
  EXPECT_NE(Run({}), 0);
  served_.Stop();
  const char* argv[] = {"quirectl", "--store", "127.0.0.1:1", "--timeout", "1", "stats"};
  std::ostringstream out, err;
  EXPECT_EQ(Quirectl(6, argv, out, err), 1);
  EXPECT_THAT(err.str(), HasSubstr("UNAVAILABLE"));
}

TEST(LayoutFile, IsReadOrRefusedByField) {
  auto refuse = [](const std::string& text, const std::string& field) {
    absl::Status status = ParseLayoutJson(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field)) << text;
  };
  const std::string uniform = R"("uniform": {"layers": 2, "kv_heads": 2, "head_dim": 64})";
  refuse("{", "JSON");
  refuse("[]", "JSON");
  refuse("{" + uniform + "}", "model");
  refuse(R"({"model_digest": "ab", )" + uniform + "}", "model_digest");
  refuse(R"({"model": "m"})", "uniform");
  refuse(R"({"model": "m", "dtype": "int8", )" + uniform + "}", "dtype");
  refuse(R"({"model": "m", "dtype": 8, )" + uniform + "}", "dtype");
  refuse(R"({"model": "m", "uniform": {"layers": -1}})", "layers");
  refuse(R"({"model": "m", "uniform": {"layers": 4294967295, "kv_heads": 1, "head_dim": 64}})", "layers");
  refuse(R"({"model": "m", "uniform": {"layers": 2, "kv_heads": 2, "head_dim": 65}})", "dim");
  refuse(R"({"model": "m", "layers": [{"streams": [{"kind": "query"}]}]})", "kind");
  refuse(R"({"model": "m", "layers": [1]})", "layers");

  Layout latent =
      *ParseLayoutJson(R"({"model": "m", "dtype": "f16", "rotation_seed": 7, "rope_state": "base=10000",
      "layers": [{"streams": [{"kind": "latent", "heads": 1, "dim": 576}]}]})");
  EXPECT_EQ(latent.dtype, DType::kF16);
  EXPECT_EQ(latent.rotation_seed, 7u);
  EXPECT_EQ(latent.rope_state, "base=10000");
  EXPECT_TRUE(latent.layers[0].latent());
  EXPECT_EQ(latent.model_digest, Sha256().Update("m").Finish());
}

}  // namespace
}  // namespace quire::cli
