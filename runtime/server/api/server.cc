#include "runtime/server/api/server.h"

#include <algorithm>
#include <iterator>
#include <random>

#include "fmt/format.h"
#include "runtime/server/api/json_writer.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::server {
namespace {

constexpr size_t kMaxEnded = 4096;   // summaries that wait for their exchange's end
constexpr double kOverloaded = 0.9;  // share of the queue

HttpResponse JsonResponse(std::string body, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

HttpResponse StatusResponse(int status, std::string_view word) {
  std::string body;
  JsonWriter(&body).Begin('{').Member("status", word).End('}');
  return JsonResponse(std::move(body), status);
}

void AddIgnored(const std::vector<std::string>& ignored, HttpResponse* response) {
  if (!ignored.empty()) response->headers.emplace_back("x-ignored-fields", fmt::format("{}", fmt::join(ignored, ",")));
}

// --- Bodies of the small routes ---

struct TokenizeRequest {
  std::optional<std::string> model, content, prompt;
  std::optional<bool> add_special, add_special_tokens, parse_special, with_pieces;
};
using T = TokenizeRequest;
constexpr Field<T> kTokenizeFields[] = {
    {"model", StringField<T>{&T::model}},
    {"content", StringField<T>{&T::content}},
    {"prompt", StringField<T>{&T::prompt}},
    {"add_special", BoolField<T>{&T::add_special}},
    {"add_special_tokens", BoolField<T>{&T::add_special_tokens}},
    {"parse_special", BoolField<T>{&T::parse_special}},
    {"with_pieces", BoolField<T>{&T::with_pieces}},
};

struct DetokenizeRequest {
  std::optional<std::string> model;
  std::vector<int32_t> tokens;
  bool has_tokens = false;
};
using D = DetokenizeRequest;
Refusal ReadTokens(const Json& value, const std::string& path, FieldReader& reader, D* to) {
  to->has_tokens = true;
  if (!value.IsArray()) return WrongType(path, value, "an array of token ids");
  if (static_cast<int64_t>(value.items().size()) > reader.limits.max_detokenize)
    return MakeError(
        ErrorKind::kInvalidValue,
        fmt::format("{}: has {} ids, the limit is {}", path, value.items().size(), reader.limits.max_detokenize), path);
  for (size_t i = 0; i < value.items().size(); ++i)
    if (Refusal refusal = ReadTokenId(value.items()[i], ItemPath(path, i), reader, &to->tokens.emplace_back()))
      return refusal;
  return std::nullopt;
}
constexpr Field<D> kDetokenizeFields[] = {
    {"model", StringField<D>{&D::model}},
    {"tokens", ShapeField<D>{ReadTokens}},
};

// --- Paths of OpenAI that are known and not built ---

struct StubRow {
  const char *method, *path;
};
constexpr StubRow kStubs[] = {
    {"POST", "/v1/responses"},   {"POST", "/v1/responses/*"},   {"GET", "/v1/responses/*"},
    {"POST", "/v1/embeddings"},  {"POST", "/v1/audio/*"},       {"POST", "/v1/images/*"},
    {"POST", "/v1/moderations"}, {"POST", "/v1/rerank"},        {"POST", "/v1/score"},
    {"POST", "/v1/files"},       {"GET", "/v1/files"},          {"POST", "/v1/batches"},
    {"GET", "/v1/batches"},      {"POST", "/v1/fine_tuning/*"}, {"GET", "/v1/fine_tuning/*"},
    {"POST", "/v1/assistants"},  {"POST", "/v1/threads"},       {"POST", "/v1/threads/*"},
    {"POST", "/completion"},     {"POST", "/completions"},      {"GET", "/props"},
    {"GET", "/slots"},
};

}  // namespace

StatusOr<std::unique_ptr<ApiServer>> ApiServer::Make(ApiOptions options, Timer* timer, Log* log) {
  if (options.served_names.empty()) return InvalidArgumentError("--served-model-name: want at least one name");
  QWEN_ASSIGN_OR_RETURN(Json kwargs, ParseJson(options.chat_template_kwargs, "--chat-template-kwargs"));
  if (!kwargs.IsObject()) return InvalidArgumentError("--chat-template-kwargs: want an object");
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(options), timer, log));
}

ApiServer::ApiServer(ApiOptions options, Timer* timer, Log* log)
    : options_(std::move(options)),
      timer_(*timer),
      log_(log),
      environment_{options_, metrics_, timer_, [this](const std::string& id, const GenerationSummary& summary) {
                     if (!log_) return;
                     std::lock_guard lock(mutex_);
                     if (ended_.size() >= kMaxEnded) ended_.pop_front();
                     ended_.emplace_back(id, summary);
                   }} {}

// --- State ---

ApiServer::ModelPtr ApiServer::model() const {
  std::lock_guard lock(mutex_);
  return model_;
}

void ApiServer::SetReady(ServedModel model) {
  {
    std::lock_guard lock(mutex_);
    model_ = std::make_shared<const ServedModel>(std::move(model));
  }
  State loading = State::kLoading;
  state_.compare_exchange_strong(loading, State::kReady);
}
void ApiServer::SetDraining() { state_ = State::kDraining; }
void ApiServer::SetFailed() { state_ = State::kFailed; }

bool ApiServer::EngineAlive(const engine::EngineStats& stats) const {
  if (stats.failed) return false;
  return stats.running + stats.waiting == 0 || timer_.Now() - stats.heartbeat < options_.watchdog;
}

Refusal ApiServer::CheckState(ModelPtr* model, bool new_work) const {
  switch (state()) {
    case State::kLoading:
      return MakeError(ErrorKind::kModelLoading, "Loading model");
    case State::kFailed:
      return MakeError(ErrorKind::kEngineFailed, "the model could not be loaded");
    case State::kDraining:
      if (new_work) return MakeError(ErrorKind::kShuttingDown, "the server is shutting down");
      break;
    case State::kReady:
      break;
  }
  *model = this->model();
  if (!*model) return MakeError(ErrorKind::kModelLoading, "Loading model");
  return std::nullopt;
}

HttpResponse ApiServer::Livez() const {
  const ModelPtr model = this->model();
  if (model && !EngineAlive(model->queue->Stats())) return StatusResponse(503, "failed");
  return state() == State::kFailed ? StatusResponse(503, "failed") : StatusResponse(200, "ok");
}

HttpResponse ApiServer::Readyz() const {
  const char* word = nullptr;
  const ModelPtr model = this->model();
  if (state() == State::kFailed) {
    word = "failed";
  } else if (state() == State::kDraining) {
    word = "draining";
  } else if (!model) {
    word = "loading";
  } else {
    const engine::EngineStats stats = model->queue->Stats();
    if (!EngineAlive(stats)) {
      word = "failed";
    } else if (stats.waiting >= kOverloaded * static_cast<double>(options_.max_queue)) {
      word = "overloaded";
    }
  }
  if (!word) return StatusResponse(200, "ok");
  std::string body;
  JsonWriter(&body).Begin('{').Member("status", word).Member("progress", model ? 1.0 : progress_.load()).End('}');
  return JsonResponse(std::move(body), 503);
}

HttpResponse ApiServer::Health() const {
  ModelPtr model;
  if (Refusal refusal = CheckState(&model, true)) return ErrorResponse(*refusal, "");
  if (!EngineAlive(model->queue->Stats()))
    return ErrorResponse(MakeError(ErrorKind::kEngineFailed, "the engine has failed"), "");
  return StatusResponse(200, "ok");
}

// --- Requests ---

RequestLimits ApiServer::LimitsOf(const ServedModel& model) const {
  RequestLimits limits = options_.limits;
  limits.vocab_used = model.text.tokenizer() ? model.text.tokenizer()->vocab_size() : 0;
  return limits;
}

Refusal ApiServer::CheckModelName(const std::optional<std::string>& name) const {
  const auto& names = options_.served_names;
  if (!name || std::find(names.begin(), names.end(), *name) != names.end() ||
      std::find(names.begin(), names.end(), "*") != names.end())
    return std::nullopt;
  return MakeError(ErrorKind::kModelNotFound,
                   fmt::format("model {} is not served here, want {}", QuoteUser(*name), fmt::join(names, ", ")),
                   "model");
}

uint64_t ApiServer::RandomSeed() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

void ApiServer::Generate(Endpoint endpoint, const ModelPtr& model, const HttpRequest& http,
                         const Responders& responder) {
  auto refuse = [&](const ApiError& error) { responder->Reply(ErrorResponse(error, http.id)); };
  GenerationRequest request;
  if (Refusal refusal = ReadGenerationRequest(http.body, endpoint, LimitsOf(*model), options_.strict_fields, &request))
    return refuse(*refusal);
  if (Refusal refusal = CheckModelName(request.model)) return refuse(*refusal);
  if (request.priority && !options_.priorities) {
    request.ignored.push_back("priority");
    ++request.ignored_count;
  }
  metrics_.ignored_fields_total.Add(request.ignored_count);
  const Timer::TimePoint begin = timer_.Now();
  std::vector<Prompt> prompts;
  if (Refusal refusal = MakePrompts(*model, options_, request, &prompts)) return refuse(*refusal);
  metrics_.template_render_seconds.Observe(std::chrono::duration<double>(timer_.Now() - begin).count());
  // Prompts say all that the messages did, in a tenth of the memory.
  request.messages = request.kwargs = nullptr;
  request.body = Json();
  request.text_prompts = {};
  request.id_prompts = {};
  const uint64_t seed = request.seed             ? static_cast<uint64_t>(*request.seed)
                        : options_.sampling.seed ? *options_.sampling.seed
                                                 : RandomSeed();
  Generation::Start(environment_, model, std::move(request), std::move(prompts), seed, http, responder);
}

void ApiServer::Chat(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  Generate(kChat, model, http, responder);
}
void ApiServer::Completions(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  Generate(kText, model, http, responder);
}

void ApiServer::ApplyTemplate(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  auto refuse = [&](const ApiError& error) { responder->Reply(ErrorResponse(error, http.id)); };
  GenerationRequest request;
  if (Refusal refusal = ReadGenerationRequest(http.body, kChat, LimitsOf(*model), options_.strict_fields, &request))
    return refuse(*refusal);
  text::Rendered rendered;
  if (Refusal refusal = RenderChat(*model, options_, request, &rendered)) return refuse(*refusal);
  std::string body;
  JsonWriter(&body).Begin('{').Member("prompt", rendered.text).End('}');
  HttpResponse response = JsonResponse(std::move(body));
  AddIgnored(request.ignored, &response);
  responder->Reply(std::move(response));
}

void ApiServer::Tokenize(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  auto refuse = [&](const ApiError& error) { responder->Reply(ErrorResponse(error, http.id)); };
  const text::Tokenizer& tokenizer = *model->text.tokenizer();
  const RequestLimits limits = LimitsOf(*model);
  Json body;
  if (Refusal refusal = ParseBody(http.body, limits, &body)) return refuse(*refusal);
  std::vector<int32_t> ids;
  std::vector<std::string> ignored;
  bool counted = true, pieces = false;
  if (body.Find("messages")) {
    GenerationRequest request;
    if (Refusal refusal = ReadGenerationRequest(http.body, kChat, limits, options_.strict_fields, &request))
      return refuse(*refusal);
    if (Refusal refusal = CheckModelName(request.model)) return refuse(*refusal);
    text::Rendered rendered;
    if (Refusal refusal = RenderChat(*model, options_, request, &rendered)) return refuse(*refusal);
    ids = EncodeChat(tokenizer, options_, rendered);
    ignored = std::move(request.ignored);
  } else {
    TokenizeRequest request;
    FieldReader reader{limits, options_.strict_fields};
    if (Refusal refusal = ReadFields<T>(body, "", kTokenizeFields, reader, &request)) return refuse(*refusal);
    if (Refusal refusal = CheckModelName(request.model)) return refuse(*refusal);
    if (!request.content && !request.prompt)
      return refuse(MakeError(ErrorKind::kMissingParameter, "content: is missing", "content"));
    counted = !request.content;
    pieces = request.with_pieces.value_or(false);
    ids = tokenizer.Encode(request.content ? *request.content : *request.prompt,
                           {.parse_special = request.parse_special.value_or(true)});
    ignored = std::move(reader.ignored);
  }
  std::string out;
  JsonWriter json(&out);
  json.Begin('{');
  if (counted) json.Member("count", ids.size()).Member("max_model_len", model->max_model_len);
  json.Key("tokens").Begin('[');
  for (int32_t id : ids) {
    if (!pieces) {
      json.Value(id);
      continue;
    }
    const std::string_view bytes = tokenizer.Bytes(id);
    json.Begin('{').Member("id", id).Key("piece");
    if (text::CheckUtf8(bytes).ok()) {
      json.Value(bytes);
    } else {
      json.Begin('[');
      for (char byte : bytes) json.Value(static_cast<int>(static_cast<uint8_t>(byte)));
      json.End(']');
    }
    json.End('}');
  }
  json.End(']').End('}');
  HttpResponse response = JsonResponse(std::move(out));
  AddIgnored(ignored, &response);
  responder->Reply(std::move(response));
}

void ApiServer::Detokenize(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  auto refuse = [&](const ApiError& error) { responder->Reply(ErrorResponse(error, http.id)); };
  RequestLimits limits = LimitsOf(*model);
  limits.max_json_values = std::max(limits.max_json_values, limits.max_detokenize + 16);
  Json body;
  if (Refusal refusal = ParseBody(http.body, limits, &body)) return refuse(*refusal);
  DetokenizeRequest request;
  FieldReader reader{limits, options_.strict_fields};
  if (Refusal refusal = ReadFields<D>(body, "", kDetokenizeFields, reader, &request)) return refuse(*refusal);
  if (Refusal refusal = CheckModelName(request.model)) return refuse(*refusal);
  if (!request.has_tokens) return refuse(MakeError(ErrorKind::kMissingParameter, "tokens: is missing", "tokens"));
  std::string out;
  JsonWriter(&out)
      .Begin('{')
      .Member(request.model ? "prompt" : "content", model->text.tokenizer()->Decode(request.tokens))
      .End('}');
  HttpResponse response = JsonResponse(std::move(out));
  AddIgnored(reader.ignored, &response);
  responder->Reply(std::move(response));
}

namespace {

void WriteModel(JsonWriter& json, const std::string& name, const ServedModel& model) {
  json.Begin('{').Member("id", name).Member("object", "model").Member("created", model.created);
  json.Member("owned_by", "qwenrt").Member("root", model.root.empty() ? name : model.root).Member("parent", nullptr);
  json.Member("max_model_len", model.max_model_len).Key("meta").Begin('{').Member("n_vocab", model.vocab);
  json.Member("n_ctx_train", model.max_model_len).Member("n_params", model.parameters).Member("size", model.bytes);
  json.End('}').End('}');
}

}  // namespace

void ApiServer::ListModels(const ModelPtr& model, HttpRequest, const Responders& responder) {
  std::string out;
  JsonWriter json(&out);
  json.Begin('{').Member("object", "list").Key("data").Begin('[');
  for (const std::string& name : options_.served_names)
    if (name != "*" || options_.served_names.size() == 1) WriteModel(json, name, *model);
  json.End(']').End('}');
  responder->Reply(JsonResponse(std::move(out)));
}

void ApiServer::OneModel(const ModelPtr& model, HttpRequest http, const Responders& responder) {
  constexpr std::string_view kModels = "/models/";
  const std::string name = http.path.substr(
      std::min(http.path.find(kModels, options_.api_prefix.size()) + kModels.size(), http.path.size()));
  if (Refusal refusal = CheckModelName(name)) {
    refusal->param.clear();
    return responder->Reply(ErrorResponse(*refusal, http.id));
  }
  std::string out;
  JsonWriter json(&out);
  WriteModel(json, name, *model);
  responder->Reply(JsonResponse(std::move(out)));
}

// --- Routes ---

Handler ApiServer::WithModel(void (ApiServer::*handle)(const ModelPtr&, HttpRequest, const Responders&)) {
  return [this, handle](HttpRequest http, Responders responder) {
    ModelPtr model;
    Refusal refusal = CheckState(&model, http.method == "POST");
    if (!refusal && http.method == "POST" && !model->text.tokenizer())
      refusal = MakeError(ErrorKind::kNotSupported, "the model has no tokenizer");
    if (refusal) {
      metrics_.rejected_total.At("reason=" + LabelValue(refusal->code)).Add();
      responder->Reply(ErrorResponse(*refusal, http.id));
      return;
    }
    (this->*handle)(model, std::move(http), responder);
  };
}

std::vector<Route> ApiServer::Routes() {
  std::vector<Route> routes;
  using Access = Route::Access;
  using Where = Route::Where;
  auto add = [&](const char* method, std::string path, Access access, Where where, Handler handler) {
    routes.push_back({method, options_.api_prefix + path, access, where, std::move(handler)});
  };
  auto whole = [&](HttpResponse (ApiServer::*answer)() const) -> Handler {
    return [this, answer](HttpRequest, Responders responder) { responder->Reply((this->*answer)()); };
  };
  for (const char* prefix : {"/v1", ""}) {
    const std::string p = prefix;
    add("POST", p + "/chat/completions", Access::kKey, Where::kWorker, WithModel(&ApiServer::Chat));
    add("GET", p + "/models", Access::kKey, Where::kWorker, WithModel(&ApiServer::ListModels));
    add("GET", p + "/models/*", Access::kKey, Where::kWorker, WithModel(&ApiServer::OneModel));
    add("GET", p + "/health", Access::kOpen, Where::kIo, whole(&ApiServer::Health));
  }
  add("POST", "/v1/completions", Access::kKey, Where::kWorker, WithModel(&ApiServer::Completions));
  add("POST", "/tokenize", Access::kKey, Where::kWorker, WithModel(&ApiServer::Tokenize));
  add("POST", "/detokenize", Access::kKey, Where::kWorker, WithModel(&ApiServer::Detokenize));
  add("POST", "/apply-template", Access::kKey, Where::kWorker, WithModel(&ApiServer::ApplyTemplate));
  add("GET", "/livez", Access::kOpen, Where::kIo, whole(&ApiServer::Livez));
  add("GET", "/readyz", Access::kOpen, Where::kIo, whole(&ApiServer::Readyz));
  add("GET", "/version", Access::kKey, Where::kIo, [this](HttpRequest, Responders responder) {
    std::string body;
    JsonWriter json(&body);
    json.Begin('{').Member("version", options_.version).Member("commit", options_.commit);
    json.Member("plan_abi", options_.plan_abi).End('}');
    responder->Reply(JsonResponse(std::move(body)));
  });
  if (options_.metrics)
    add("GET", "/metrics", Access::kKey, Where::kWorker, [this](HttpRequest, Responders responder) {
      HttpResponse response;
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = metrics_.Text(options_, model().get());
      responder->Reply(std::move(response));
    });
  for (const StubRow& row : kStubs)
    add(row.method, row.path, Access::kKey, Where::kIo, [](HttpRequest http, Responders responder) {
      responder->Reply(ErrorResponse(
          MakeError(ErrorKind::kNotSupported, fmt::format("{} is not supported", QuoteUser(http.path))), http.id));
    });
  return routes;
}

void ApiServer::Summarise() {
  if (const ModelPtr model = this->model(); model && log_) log_->Summary(model->queue->Stats());
}

void ApiServer::OnAccess(const AccessRecord& record) {
  metrics_.OnAccess(record);
  if (!log_) return;
  std::optional<GenerationSummary> summary;
  {
    std::lock_guard lock(mutex_);
    auto at = std::find_if(ended_.begin(), ended_.end(), [&](const auto& entry) { return entry.first == record.id; });
    if (at != ended_.end()) {
      summary = at->second;
      ended_.erase(at);
    }
  }
  log_->Access(record, summary ? &*summary : nullptr);
}

}  // namespace qwen::server
