// Valid bodies damaged at random: the parsers and, through HTTP, the gateway never crash and always say 200
// or 4xx.
#include <gtest/gtest.h>

#include <random>

#include "gateway/openai/requests.h"
#include "gateway/openai/to_proto.h"
#include "tests/gateway/fixture.h"

namespace quire::gateway::test {
namespace {

const std::vector<std::string>& ChatBodies() {
  static const std::vector<std::string> bodies = {
      R"({"model":"stub","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi é 𝄞"}]})",
      R"({"model":"stub","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b\n\u00e9"}]}],
          "temperature":0.7,"top_p":0.9,"top_k":40,"min_p":0.05,"seed":42,"max_tokens":12,"stop":["a","b"],"n":1,
          "logit_bias":{"5":-100,"7":1.5},"logprobs":true,"top_logprobs":3,"user":"u","stream":false,"cache_salt":"s"})",
      R"({"stream":true,"stream_options":{"include_usage":true},"model":"stub","messages":[{"role":"assistant","content":null},
          {"role":"user","name":"n","content":"x"}],"response_format":{"type":"text"},"quire":{"cache":"bypass"}})",
  };
  return bodies;
}

const std::vector<std::string>& CompletionBodies() {
  static const std::vector<std::string> bodies = {
      R"({"model":"stub","prompt":"Once upon a time","max_tokens":5,"echo":false,"best_of":1,"logprobs":2,"stop":"\n"})",
      R"({"model":"stub","prompt":[1,2,3,4],"presence_penalty":-1.5,"frequency_penalty":1e0,"repetition_penalty":1.1})",
      R"({"model":"stub","prompt":["one"],"stop_token_ids":[1,2],"ignore_eos":true,"suffix":null})",
  };
  return bodies;
}

// One to four small damages: a bit, a byte, a copy, a cut, or a token of JSON in a wrong place.
std::string Damage(std::string body, std::mt19937& random) {
  static const std::vector<std::string> pieces = {"null",
                                                  "true",
                                                  "-1",
                                                  "1e999",
                                                  "18446744073709551616",
                                                  "\"\"",
                                                  "[]",
                                                  "{}",
                                                  "[[",
                                                  "\"",
                                                  "\\ud800",
                                                  "\xFF",
                                                  "\xC3",
                                                  ",",
                                                  ":",
                                                  "}",
                                                  "]",
                                                  "{\"a\":",
                                                  std::string(1, '\0')};
  auto below = [&](size_t n) { return static_cast<size_t>(random() % std::max<size_t>(n, 1)); };
  for (size_t rounds = 1 + below(4); rounds > 0 && !body.empty(); --rounds) {
    const size_t at = below(body.size());
    switch (below(6)) {
      case 0:
        body[at] = static_cast<char>(body[at] ^ (1 << below(8)));
        break;
      case 1:
        body[at] = static_cast<char>(random());
        break;
      case 2:
        body.insert(at, body.substr(below(body.size()), below(40)));
        break;
      case 3:
        body.erase(at, 1 + below(30));
        break;
      case 4:
        body.insert(at, pieces[below(pieces.size())]);
        break;
      default: {  // a whole value becomes another
        size_t colon = body.find(':', at);
        if (colon == std::string::npos) break;
        size_t end = body.find_first_of(",}]", colon);
        body.replace(colon + 1, (end == std::string::npos ? body.size() : end) - colon - 1,
                     pieces[below(pieces.size())]);
      }
    }
  }
  return body;
}

void CheckProblem(const Problem& problem, const std::string& body) {
  if (!problem) return;
  EXPECT_TRUE(problem->status >= 400 && problem->status < 500) << body;
  EXPECT_FALSE(nlohmann::json::parse(ErrorBody(*problem), nullptr, false).is_discarded()) << body;
}

TEST(Mutation, ParsersSayYesOrNo) {
  std::mt19937 random(20240607);
  int accepted = 0;
  const ModelLimits limits{.context_tokens = 64, .vocabulary = 1000, .has_chat_template = true};
  for (int i = 0; i < 30'000; ++i) {
    const std::string chat = Damage(ChatBodies()[i % ChatBodies().size()], random);
    const std::string completion = Damage(CompletionBodies()[i % CompletionBodies().size()], random);
    ChatRequest one;
    CompletionRequest two;
    v1::GenerateRequest out;
    Problem problem = ReadChatRequest(chat, &one);
    if (!problem) problem = ToGenerate(one, limits, &out);
    accepted += !problem;
    CheckProblem(problem, chat);
    problem = ReadCompletionRequest(completion, &two);
    out.Clear();
    if (!problem) problem = ToGenerate(two, limits, &out);
    CheckProblem(problem, completion);
  }
  EXPECT_GT(accepted, 100);  // the damage is not so bad that only the JSON parser is tested
  EXPECT_LT(accepted, 29'000);
}

using MutationTest = GatewayTest;

TEST_F(MutationTest, TheGatewaySays200Or4xx) {
  std::mt19937 random(7);
  Client client(port());
  int ok = 0;
  for (int i = 0; i < 600; ++i) {
    const bool chat = i % 2 == 0;
    std::string body = chat ? Damage(ChatBodies()[i % 3], random) : Damage(CompletionBodies()[i % 3], random);
    if (body.empty()) continue;
    Reply reply = client.Request("POST", chat ? kChatPath : kCompletionPath, body);
    ASSERT_TRUE(reply.status == 200 || (reply.status >= 400 && reply.status < 500)) << reply.status << "\n"
                                                                                    << body;
    ASSERT_TRUE(reply.complete);
    ok += reply.status == 200;
  }
  EXPECT_GT(ok, 5);
}

}  // namespace
}  // namespace quire::gateway::test
