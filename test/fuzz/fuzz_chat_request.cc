// Any body of a chat, a completion or the token routes, over the toy tokenizer: refused, or a prompt that an engine
// could take. Whatever a client sends is answered once.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/server/api/server.h"
#include "runtime/text/tokenizer_json.h"

namespace {

using namespace qwen::server;
namespace engine = qwen::engine;

/// Checks what it is given, and ends it at once.
class Queue final : public engine::RequestQueue {
 public:
  qwen::StatusOr<engine::RequestId> Submit(engine::Request r, std::shared_ptr<engine::RequestSink> sink) override {
    auto id_ok = [&](int32_t id) { return id >= 0 && id < r.vocab_used; };
    bool ok = !r.prompt.empty() && r.prompt.size() < 4096 && r.max_tokens >= 0 && r.min_tokens <= r.max_tokens &&
              r.choices >= 1 && r.choices <= 8 && qwen::engine::SamplingOptions{r.sampling}.top_p > 0 &&
              r.repetition_penalty > 0 && r.sampling.top_k >= 0;
    for (int32_t id : r.prompt) ok = ok && id_ok(id);
    for (int32_t id : r.stop_ids) ok = ok && id_ok(id);
    for (const auto& [id, bias] : r.logit_bias) ok = ok && id_ok(id) && bias >= -100 && bias <= 100;
    int32_t last = 0;
    for (int32_t at : r.turn_ends) {
      ok = ok && at > last && at < static_cast<int32_t>(r.prompt.size());
      last = at;
    }
    if (!ok) abort();
    sink->OnPrompt({static_cast<int>(r.prompt.size()), 0, engine::MissReason::kNone},
                   static_cast<int>(r.prompt.size()));
    engine::TokenLogprobs values{-1, {{0, -1}}};
    if (r.prompt_logprobs >= 0) sink->OnPromptLogprobs(std::vector<engine::TokenLogprobs>(r.prompt.size() - 1, values));
    for (int c = 0; c < r.choices; ++c) {
      bool goes_on = true;
      for (int t = 0; t < std::min(r.max_tokens, 3) && goes_on; ++t)
        goes_on = sink->OnToken(c, {t, r.logprobs >= 0 ? &values : nullptr});
      sink->OnFinish(c, goes_on ? engine::FinishReason::kLength : engine::FinishReason::kStop, -1, {});
    }
    return 1;
  }
  void Cancel(engine::RequestId) override {}
  engine::EngineStats Stats() const override { return {}; }
  double PromptRate() const override { return 0; }
};

class Clock final : public Timer {
 public:
  TimePoint Now() const override { return TimePoint() + std::chrono::hours(1); }
  void Run() {
    while (!due_.empty() && due_.begin()->first.first <= Now()) {
      const auto function = std::move(due_.begin()->second);
      due_.erase(due_.begin());
      function();
    }
  }
};

class Answer final : public Responder {
 public:
  void Reply(HttpResponse r) override {
    ++answers;
    if (r.body.empty() || !qwen::ParseJson(r.body, "answer", {.max_values = 1 << 22}).ok()) abort();
  }
  void Stream(HttpResponse, std::shared_ptr<BodySource> s, std::string_view) override {
    ++answers;
    std::string out;
    if (s->Pull(&out) || !out.ends_with("data: [DONE]\n\n")) abort();
  }
  void Wake() override {}
  void OnGone(std::function<void(Gone)>) override {}
  int answers = 0;
};

struct Server {
  Server() {
    const std::string root = QWEN_SOURCE_DIR;
    const std::string json = *qwen::ReadFile(root + "/test/data/tokenizers/toy/tokenizer.json", 1 << 24);
    const std::string chat = *qwen::ReadFile(root + "/test/data/chat_templates/Qwen3.5-4B.jinja", 1 << 20);
    const auto tokenizer = qwen::text::ParseTokenizerJson(json, "toy");
    ServedModel model;
    model.text = *qwen::text::TextModel::Open({tokenizer->Serialize(), chat, ""}, "toy");
    model.queue = &queue;
    model.max_model_len = 4096;
    api = *ApiServer::Make({}, &clock, nullptr);
    api->SetReady(std::move(model));
    for (Route& route : api->Routes())
      if (route.method == "POST" && route.where == Route::Where::kWorker) routes.push_back(std::move(route));
  }
  Queue queue;
  Clock clock;
  std::unique_ptr<ApiServer> api;
  std::vector<Route> routes;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Server server;
  if (size == 0) return 0;
  HttpRequest request;
  request.method = "POST";
  const Route& route = server.routes[data[0] % server.routes.size()];
  request.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto answer = std::make_shared<Answer>();
  route.handler(std::move(request), answer);
  server.clock.Run();
  if (answer->answers != 1) abort();
  return 0;
}
