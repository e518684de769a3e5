// How a request's fields are declared: one line each with its name, type and limits. A table of them is the
// only place that knows what an endpoint accepts; reading walks it.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/openai/error.h"

namespace quire::gateway {

// Readers of one value. param names it in errors ("messages[0].role"). Numbers are never taken from strings
// or booleans, integers never from decimals.
Problem ReadString(const nlohmann::json& value, const std::string& param, size_t max_bytes, std::string* out);
Problem ReadBool(const nlohmann::json& value, const std::string& param, bool* out);
Problem ReadInteger(const nlohmann::json& value, const std::string& param, int64_t min, int64_t max,
                    int64_t* out);
Problem ReadNumber(const nlohmann::json& value, const std::string& param, double min, double max,
                   double* out);
// value is an array of at most max_length elements.
Problem ExpectArray(const nlohmann::json& value, const std::string& param, std::string_view of,
                    size_t max_length);
Problem ReadTokens(const nlohmann::json& value, const std::string& param, size_t max_length,
                   std::vector<uint32_t>* out);

ApiError WrongType(const nlohmann::json& value, const std::string& param, std::string_view expected);
ApiError Missing(const std::string& param);
ApiError Unsupported(const std::string& param);
ApiError UnsupportedValue(const std::string& param, std::string_view value, std::string_view supported);

template <typename T>
struct Field {
  std::string name;
  std::function<Problem(const nlohmann::json&, const std::string& param, T*)> read;
  bool required = false;
};

// Reads the members of an object that `fields` names; others are ignored, and null means absent. prefix: the
// object's own name, or "".
template <typename T>
Problem ReadObject(const nlohmann::json& object, const std::string& prefix,
                   const std::vector<Field<T>>& fields, T* out) {
  for (const Field<T>& field : fields) {
    std::string param = prefix.empty() ? field.name : prefix + "." + field.name;
    auto it = object.find(field.name);
    if (it == object.end() || (it->is_null() && !field.required)) {
      if (field.required) return Missing(param);
      continue;
    }
    if (Problem problem = field.read(*it, param, out)) return problem;
  }
  return std::nullopt;
}

// Declarations of common kinds of field. Member is any member of T that the value can be assigned to.
template <typename T, typename Member>
Field<T> StringField(std::string name, Member T::*member, size_t max_bytes) {
  return {std::move(name), [=](const nlohmann::json& value, const std::string& param, T* out) -> Problem {
            std::string text;
            if (Problem problem = ReadString(value, param, max_bytes, &text)) return problem;
            out->*member = std::move(text);
            return std::nullopt;
          }};
}

template <typename T, typename Member>
Field<T> BoolField(std::string name, Member T::*member) {
  return {std::move(name), [=](const nlohmann::json& value, const std::string& param, T* out) -> Problem {
            bool flag = false;
            if (Problem problem = ReadBool(value, param, &flag)) return problem;
            out->*member = flag;
            return std::nullopt;
          }};
}

template <typename T, typename Member>
Field<T> IntegerField(std::string name, Member T::*member, int64_t min, int64_t max) {
  return {std::move(name), [=](const nlohmann::json& value, const std::string& param, T* out) -> Problem {
            int64_t number = 0;
            if (Problem problem = ReadInteger(value, param, min, max, &number)) return problem;
            out->*member = static_cast<uint32_t>(number);
            return std::nullopt;
          }};
}

template <typename T, typename Member>
Field<T> NumberField(std::string name, Member T::*member, double min, double max) {
  return {std::move(name), [=](const nlohmann::json& value, const std::string& param, T* out) -> Problem {
            double number = 0;
            if (Problem problem = ReadNumber(value, param, min, max, &number)) return problem;
            out->*member = static_cast<float>(number);
            return std::nullopt;
          }};
}

template <typename T>
Field<T> Required(Field<T> field) {
  field.required = true;
  return field;
}

}  // namespace quire::gateway
