// qwenrt chat: a conversation in the terminal.
//
// The template renders the whole history for every turn. What the model has already seen of it stays: the sequence goes
// on where the new prompt and the tokens in it part, or from a snapshot in front of the last reply, as templates drop
// old reasoning.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/signals.h"
#include "runtime/engine/generate.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/text.h"

namespace qwen::qwenrt {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kHelp[] =
    "/think on|off    lets the model reason before it answers, or not\n"
    "/system TEXT     sets the system message and starts over\n"
    "/reset           starts over\n"
    "/save FILE       writes the messages as JSON\n"
    "/stats           tokens and speed of the last reply\n"
    "/exit            ends the chat, as Ctrl-D does; Ctrl-C stops a reply\n";

size_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

class Chat {
 public:
  Chat(const plan::Plan& plan, engine::Engine& engine, const text::TextModel& model, const Flags& flags)
      : plan_(plan),
        engine_(engine),
        tokenizer_(*model.tokenizer()),
        template_(*model.chat_template()),
        flags_(flags) {}

  Status Init(const text::GenerationDefaults& defaults) {
    QWEN_ASSIGN_OR_RETURN(options_.sampling, SamplingOf(defaults, flags_));
    options_.max_tokens = static_cast<int>(flags_.Int("max-tokens"));
    options_.eos_ids = plan_.model.eos_ids;
    system_ = flags_.Text("system");
    return ReadKwargs(flags_).status();
  }

  /// One line of the user's. False: the chat is over.
  StatusOr<bool> Line(const std::string& line) {
    if (!line.starts_with("/")) {
      QWEN_RETURN_IF_ERROR(Turn(line));
      return true;
    }
    const size_t space = std::min(line.find(' '), line.size());
    const std::string command = line.substr(0, space), rest = line.substr(std::min(space + 1, line.size()));
    if (command == "/exit") return false;
    if (command == "/think" && (rest == "on" || rest == "off")) {
      thinking_ = rest == "on";
    } else if (command == "/system") {
      system_ = rest;
      Reset();
    } else if (command == "/reset") {
      Reset();
    } else if (command == "/save" && !rest.empty()) {
      Status saved = WriteFileAtomic(rest, HistoryJson(), /*overwrite=*/false);
      if (!saved.ok()) PrintError("qwenrt", "chat", saved);
    } else if (command == "/stats") {
      fmt::print(stderr, "{}\n", stats_.empty() ? "no reply yet" : stats_);
    } else {
      fmt::print(stderr, "{}", kHelp);
    }
    return true;
  }

 private:
  struct Entry {
    std::string role, content;
  };

  void Reset() {
    history_.clear();
    snapshot_.reset();
    sequence_.reset();
  }

  std::string HistoryJson() const {
    std::string text;
    auto add = [&](const Entry& entry) {
      text += fmt::format("{}{{\"role\": {}, \"content\": {}}}", text.empty() ? "[" : ",\n ", JsonQuote(entry.role),
                          JsonQuote(entry.content));
    };
    if (!system_.empty()) add({"system", system_});
    for (const Entry& entry : history_) add(entry);
    return (text.empty() ? "[" : text) + "]\n";
  }

  StatusOr<std::vector<int32_t>> Prompt() const {
    std::vector<Json> messages;
    if (!system_.empty()) messages.push_back(Message("system", system_));
    for (const Entry& entry : history_) messages.push_back(Message(entry.role, entry.content));
    QWEN_ASSIGN_OR_RETURN(const Json given, ReadKwargs(flags_));
    std::vector<Json::Member> members;
    if (thinking_) members.emplace_back("enable_thinking", Json(*thinking_));
    for (const Json::Member& member : given.members())
      if (!thinking_ || member.first != "enable_thinking") members.emplace_back(member.first, member.second.Clone());
    const Json list(std::move(messages)), kwargs(std::move(members));
    QWEN_ASSIGN_OR_RETURN(const text::Rendered rendered, template_.Render({.messages = list, .kwargs = &kwargs}));
    return text::EncodePrompt(tokenizer_, rendered);
  }

  // Leaves in sequence_ a prefix of `prompt`, as long as there is one; at least one token is left to feed.
  Status Rewind(std::span<const int32_t> prompt) {
    auto reaches = [&](std::span<const int32_t> tokens) {
      return tokens.size() < prompt.size() && CommonPrefix(tokens, prompt) == tokens.size();
    };
    if (sequence_ && !sequence_->poisoned() && reaches(sequence_->tokens())) return {};
    sequence_.reset();
    StatusOr<engine::Sequence> next =
        snapshot_ && reaches(snapshot_->tokens()) ? engine_.Restore(*snapshot_) : engine_.Begin();
    if (!next.ok()) return next.status();
    sequence_ = *std::move(next);
    return {};
  }

  Status Turn(const std::string& line) {
    QWEN_RETURN_IF_ERROR(text::CheckUtf8(line));
    history_.push_back({"user", line});
    StatusOr<std::vector<int32_t>> prompt = Prompt();
    if (!prompt.ok()) {
      history_.pop_back();
      return prompt.status();
    }
    const int64_t room = static_cast<int64_t>(engine_.pools().pages.count()) * plan::kPageTokens;
    if (static_cast<int64_t>(prompt->size()) + 1 > std::min(room, plan_.model.max_model_len)) {
      history_.pop_back();
      return ResourceExhaustedError(fmt::format("the conversation has {} tokens, there is room for {}", prompt->size(),
                                                std::min(room, plan_.model.max_model_len)),
                                    "/reset, or start with a larger --max-model-len");
    }
    QWEN_RETURN_IF_ERROR(Rewind(*prompt));
    const size_t reused = sequence_->tokens().size();

    GracefulStop stop;
    options_.stop = stop.flag();
    const int budget = static_cast<int>(std::min<int64_t>(
        flags_.Int("max-tokens"), std::min(room, plan_.model.max_model_len) - static_cast<int64_t>(prompt->size())));
    options_.max_tokens = std::max(1, budget);
    TextPrinter printer(tokenizer_, /*quiet=*/false);
    const Clock::time_point start = Clock::now();
    Clock::time_point first = start;
    int count = 0;
    // The last rows of the prompt are fed apart: a snapshot in front of the reply is where the next turn may go on.
    std::span<const int32_t> rest = std::span(*prompt).subspan(reused);
    if (rest.size() > 1) {
      StatusOr<int32_t> fed = engine::Feed(engine_, *sequence_, rest.first(rest.size() - 1), {}, stop.flag());
      if (!fed.ok()) return Ended(fed.status(), stop);
      rest = rest.last(1);
    }
    snapshot_ = sequence_->TakeSnapshot();
    options_.on_token = [&](size_t, int32_t token) {
      if (count++ == 0) first = Clock::now();
      if (std::ranges::find(options_.eos_ids, token) == options_.eos_ids.end()) printer.Push(token);
    };
    StatusOr<engine::Generated> reply = engine::Continue(engine_, *sequence_, rest, options_);
    printer.Finish();
    fmt::print("\n");
    if (!reply.ok()) return Ended(reply.status(), stop);
    history_.push_back({"assistant", printer.text()});
    const double prefill = std::chrono::duration<double>(first - start).count();
    const double decode = std::chrono::duration<double>(Clock::now() - first).count();
    stats_ =
        fmt::format("{} tokens ({}), {:.1f} tokens/s; prompt {} tokens, {} of them kept, first token after {:.0f} ms",
                    count, engine::FinishReasonName(reply->reason), count > 1 ? (count - 1) / decode : 0.0,
                    prompt->size(), reused, 1e3 * prefill);
    if (StderrIsTerminal()) fmt::print(stderr, "{}\n", stats_);
    stop.Obeyed();
    return {};
  }

  // A reply that Ctrl-C stopped before its first token is no error; the question is taken back.
  Status Ended(const Status& status, GracefulStop& stop) {
    history_.pop_back();
    if (status.code() != StatusCode::kCancelled) return status;
    stop.Obeyed();
    return {};
  }

  const plan::Plan& plan_;
  engine::Engine& engine_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& template_;
  const Flags& flags_;
  engine::GenerateOptions options_;
  std::string system_, stats_;
  std::optional<bool> thinking_;
  std::vector<Entry> history_;
  std::optional<engine::Sequence> sequence_;
  std::optional<engine::Snapshot> snapshot_;
};

}  // namespace

Status ChatCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_RETURN_IF_ERROR(NeedTokenizer(model).status());
  QWEN_RETURN_IF_ERROR(NeedTemplate(model).status());
  const int64_t tokens =
      std::min(flags.HasValue("max-model-len") ? flags.Int("max-model-len") : int64_t{8192}, plan.model.max_model_len);
  // A second slot for the moment when a snapshot is restored before the old sequence is gone.
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine,
                        LoadEngine(plan, flags, 2 * engine::PagesFor(tokens), /*num_slots=*/2));
  Chat chat(plan, *engine, model, flags);
  QWEN_RETURN_IF_ERROR(chat.Init(model.defaults()));

  const bool interactive = IsTerminal(stdin);
  if (interactive) fmt::print(stderr, "{} ({}); /help lists the commands\n", plan.model.family, flags.Argument(0));
  for (std::string line;;) {
    if (interactive) fmt::print(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    StatusOr<bool> more = chat.Line(line);
    // In a terminal a turn that failed is no reason to lose the conversation; in a script it is.
    if (!more.ok() && !interactive) return more.status();
    if (!more.ok()) PrintError("qwenrt", "chat", more.status());
    if (more.ok() && !*more) break;
  }
  if (interactive) fmt::print(stderr, "\n");
  return {};
}

}  // namespace qwen::qwenrt
