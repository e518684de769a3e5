// Between the messages of quire.v1.Inference and the scheduler's types.
#pragma once

#include "absl/status/statusor.h"
#include "quire/v1/inference.pb.h"
#include "services/worker/engine/engine.h"
#include "services/worker/scheduler/generation.h"

namespace quire::worker {

// Tokenises the prompt where it comes as text or chat. What Scheduler::Submit checks is not checked here. A
// request without a seed gets a random one.
absl::StatusOr<GenerateSpec> ToSpec(const Engine& engine, const v1::GenerateRequest& request);

// Appends a piece of output to `response`.
void AddOutput(const Tokenizer& tokenizer, const Output& output, v1::GenerateResponse* response);

}  // namespace quire::worker
