// Early return on absl::Status, the only control-flow macros of the code base.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define QUIRE_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                  \
    if (absl::Status quire_status_ = (expr); !quire_status_.ok()) return quire_status_; \
  } while (false)

#define QUIRE_CONCAT_INNER_(a, b) a##b
#define QUIRE_CONCAT_(a, b) QUIRE_CONCAT_INNER_(a, b)

// QUIRE_ASSIGN_OR_RETURN(auto x, F()): x = *F(), or return F()'s status.
#define QUIRE_ASSIGN_OR_RETURN(lhs, expr) \
  QUIRE_ASSIGN_OR_RETURN_IMPL_(QUIRE_CONCAT_(quire_status_or_, __LINE__), lhs, expr)
#define QUIRE_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = *std::move(tmp)
