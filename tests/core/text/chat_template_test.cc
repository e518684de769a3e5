// Golden renderings of the real Jinja2: make_template_golden.py.
#include "core/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/core/text/real_model.h"

namespace quire {
namespace {

using json = nlohmann::ordered_json;
using testing::HasSubstr;

constexpr std::string_view kHi = R"([{"role":"user","content":"Hi"}])";

std::string ReadFile(const std::string& name) {
  std::ifstream file(std::string(QUIRE_TEXT_TESTS) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::shared_ptr<const ChatTemplate> Compile(const std::string& source) {
  auto compiled = ChatTemplate::Parse(source, "<s>", "</s>");
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return *compiled;
}

std::string Render(const std::string& source, std::string_view messages = kHi,
                   std::string_view variables = "") {
  auto text = Compile(source)->Render(messages, true, variables);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

absl::Status RenderStatus(const std::string& source, std::string_view messages = kHi,
                          std::string_view variables = "") {
  return Compile(source)->Render(messages, true, variables).status();
}

class TemplateGolden : public testing::TestWithParam<const char*> {};

TEST_P(TemplateGolden, RendersAsJinja2Does) {
  std::string name = GetParam();
  auto compiled = Compile(name == "model" ? *RealModel().GetString("tokenizer.chat_template")
                                          : ReadFile("templates/" + name + ".jinja"));
  json golden = json::parse(ReadFile("golden/templates.json"));
  int texts = 0;
  for (const json& c : golden["cases"]) {
    if (c["template"] != name) continue;
    SCOPED_TRACE(c["conversation"].get<std::string>() + " / " + c["variables"].get<std::string>());
    std::string conversation = c["conversation"], variables = c["variables"];
    auto text = compiled->Render(golden["conversations"][conversation].dump(), c["prompt"],
                                 golden["variables"][variables].dump());
    if (c.contains("text")) {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, c["text"].get<std::string>());
      ++texts;
    } else if (c["raised"].is_string()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << text.value_or("");
      EXPECT_EQ(std::string(text.status().message()), c["raised"].get<std::string>());
    } else if (name != "thinking") {  // which loops over none: no turns for us, a TypeError in Python
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << text.value_or("");
    }
  }
  EXPECT_GE(texts, 14);
}

INSTANTIATE_TEST_SUITE_P(Templates, TemplateGolden,
                         testing::Values("model", "chatml", "instruct", "thinking", "tools", "turns"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ChatTemplate, FromTheModelTakesItsSpecialTokens) {
  auto real = ChatTemplate::FromGguf(RealModel());
  ASSERT_TRUE(real.ok()) << real.status();
  EXPECT_THAT(*(*real)->Render(kHi, true, ""),
              HasSubstr("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
  GgufBuilder b;
  b.String("tokenizer.chat_template", "{{ bos_token }}|{{ eos_token }}")
      .Strings("tokenizer.ggml.tokens", {"x", "<b>", "<e>"});
  b.U32("tokenizer.ggml.bos_token_id", 1).U32("tokenizer.ggml.eos_token_id", 2);
  std::vector<uint8_t> bytes = b.Build(), none = GgufBuilder().Build();
  EXPECT_EQ(*(*ChatTemplate::FromGguf(**GgufFile::Parse(bytes)))->Render("[]", false, ""), "<b>|<e>");
  EXPECT_EQ(ChatTemplate::FromGguf(**GgufFile::Parse(none)).status().code(), absl::StatusCode::kNotFound);
}

TEST(ChatTemplate, SyntaxErrorsNameTheLine) {
  absl::Status status = ChatTemplate::Parse("one\ntwo {% if %}\nthree", "", "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2"));
}

TEST(ChatTemplate, FailuresNameTheLineAndRaisedMessagesStandAlone) {
  absl::Status status = RenderStatus("\n\n{{ messages.x.y }}");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 3"));
  EXPECT_EQ(RenderStatus("{{ raise_exception('No: ' ~ messages[0].content) }}").message(), "No: Hi");
  EXPECT_EQ(RenderStatus("{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{% for x in messages "
                         "%}{{ m() }}{% endfor %}")
                .message(),
            "deep");
}

TEST(ChatTemplate, WrongInputsAreNamed) {
  for (auto [messages, variables, words] : std::vector<std::array<std::string, 3>>{
           {"{", "", "messages are not JSON"},
           {"{}", "", "messages are not a JSON array"},
           {"[]", "[", "variables are not JSON"},
           {"[]", "[]", "variables are not a JSON object"},
           {"[]", R"({"messages":[]})", "variables may not set 'messages'"},
           {"[\"\xFF\"]", "", "messages is not UTF-8"},
           {std::string(100000, '['), "", "messages are not JSON"}}) {
    absl::Status status = RenderStatus("x", messages, variables);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
}

TEST(ChatTemplate, VariablesReachTheTemplate) {
  EXPECT_EQ(Render("{{ a.b[1] }}{{ bos_token }}", kHi, R"({"a":{"b":[1,"ü"]},"bos_token":"<x>"})"), "ü<x>");
  EXPECT_EQ(Render("{{ tools is none }}{{ documents is none }}{{ other is defined }}"), "TrueTrueFalse");
}

TEST(ChatTemplate, TimeIsLocalTime) {
  auto year = [] {
    char text[8];
    std::time_t now = std::time(nullptr);
    std::tm parts;
    std::strftime(text, sizeof(text), "%Y", localtime_r(&now, &parts));
    return std::string(text);
  };
  std::string before = year(), text = Render("{{ strftime_now('%Y') }}{{ strftime_now('') }}"),
              after = year();
  EXPECT_THAT(text, testing::AnyOf(before, after));
  EXPECT_EQ(
      RenderStatus("{{ strftime_now(format) }}", kHi, json{{"format", std::string(5000, 'x')}}.dump()).code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, EndlessTemplatesEnd) {
  const std::string loops =
      "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}x{% endfor %}{% "
      "endfor %}{% endfor %}";
  EXPECT_EQ(RenderStatus(loops).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RenderStatus("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RenderStatus("{{ 'x' * 100000000000 }}").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChatTemplate::Parse(std::string(100000, '('), "", "").ok(), true);
  EXPECT_EQ(ChatTemplate::Parse("{{ " + std::string(100000, '(') + " }}", "", "").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, LargeConversationsRender) {
  json messages = json::array();
  for (int i = 0; i < 2000; ++i)
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(4096, 'x')}});
  for (std::string name : {"chatml", "instruct", "tools", "thinking", "turns"}) {
    EXPECT_GE(Render(ReadFile("templates/" + name + ".jinja"), messages.dump()).size(), 2000u * 4096) << name;
  }
}

}  // namespace
}  // namespace quire
