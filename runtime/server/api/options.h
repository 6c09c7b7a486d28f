// What the operator decides about the API. Defaults are those of the command line (serving design, 1.4).
#ifndef QWEN_RUNTIME_SERVER_API_OPTIONS_H_
#define QWEN_RUNTIME_SERVER_API_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/request.h"
#include "runtime/server/api/fields.h"
#include "runtime/text/text_model.h"

namespace qwen::server {

enum class ReasoningParser : uint8_t { kAuto, kQwen3, kNone };
enum class ReasoningField : uint8_t { kReasoningContent, kReasoning, kBoth };

/// Sampling of requests that do not say. What is absent comes from the plan, or is the neutral value.
struct SamplingDefaults {
  bool from_plan = true;
  std::optional<double> temperature, top_p, min_p, presence_penalty, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
};

struct ApiOptions {
  std::vector<std::string> served_names = {"model"};  // the first is reported, all are accepted; "*" accepts any
  std::string api_prefix;                             // in front of every path: "" or "/prefix"
  RequestLimits limits;                               // vocab_used is the tokenizer's
  bool strict_fields = false;
  bool refuse_overflow = false;               // a prompt that leaves no room for max_tokens is refused, not clamped
  std::optional<int64_t> max_tokens_default;  // of chats; absent: the rest of the context
  std::optional<int64_t> max_tokens_limit;
  SamplingDefaults sampling;
  bool priorities = false;     // requests may have one
  bool isolate_cache = false;  // cached prefixes are shared within one API key only
  bool trust_request_chat_template = false;
  bool prefill_assistant = false;  // a chat that ends with the assistant is continued
  bool parse_special_in_content = false;
  std::string chat_template_kwargs = "{}";  // an object
  ReasoningParser reasoning_parser = ReasoningParser::kAuto;
  ReasoningField reasoning_field = ReasoningField::kReasoningContent;

  std::chrono::milliseconds queue_timeout{300'000};
  std::chrono::milliseconds request_timeout{0};  // 0: none
  std::chrono::milliseconds watchdog{60'000};    // an engine with work that is silent for longer is dead
  int64_t max_queue = 256;                       // of the engine's queue: from 90% on the server is overloaded
  std::string sse_ping = ": ping\n\n";

  bool metrics = true;
  std::vector<std::string> metrics_aliases;  // "vllm", "llamacpp"
  std::string version = "0", commit = "unknown";
  int plan_abi = 0;
};

/// A model that can answer.
struct ServedModel {
  text::TextModel text;
  engine::RequestQueue* queue = nullptr;  // outlives the server
  int64_t max_model_len = 0;
  std::vector<int32_t> eos_ids;                  // of the generation config and of the tokenizer, below its size
  int64_t vocab = 0, parameters = 0, bytes = 0;  // what /v1/models tells
  int64_t created = 0;                           // seconds since 1970
  std::string root, plan_digest;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_OPTIONS_H_
