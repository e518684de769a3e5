// JSON written straight into a string: what streams send for each token.
#pragma once

#include <string>
#include <string_view>

namespace quire::gateway {

// With its quotes. Bytes that are not UTF-8 become U+FFFD, so the result is always valid JSON.
void AppendJsonString(std::string_view text, std::string* out);
// The shortest text that reads back as the same float; what JSON cannot say (infinity, NaN) becomes −9999, as
// OpenAI has it.
void AppendJsonFloat(float value, std::string* out);

}  // namespace quire::gateway
