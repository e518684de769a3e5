// The fields that both endpoints take.
#pragma once

#include <string>
#include <vector>

#include "gateway/openai/fields.h"
#include "gateway/openai/requests.h"

namespace quire::gateway {

using Value = nlohmann::json;

const std::vector<Field<SharedRequest>>& SharedFields();
// Rules between fields.
Problem CheckShared(const Value& body, const SharedRequest& request);
// Choices a request: 1, whatever name the field has.
Problem ReadOneChoice(const Value& value, const std::string& param);

}  // namespace quire::gateway
