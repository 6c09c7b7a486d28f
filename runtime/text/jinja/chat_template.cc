#include "runtime/text/jinja/chat_template.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/text/jinja/code_points.h"

namespace qwen::text {
namespace {

constexpr std::string_view kThinkOpens = "<think>", kThinkCloses = "</think>";

// Variables and functions that kwargs must not replace (serving design, 14.2); neither names that begin with `_`.
constexpr std::string_view kReservedNames[] = {
    "messages",     "tools", "documents", "add_generation_prompt", "namespace", "range", "raise_exception",
    "strftime_now", "loop",  "self",
};

struct RoleRow {
  std::string_view name, becomes;
};
constexpr RoleRow kRoles[] = {
    {"system", "system"},       {"developer", "system"}, {"user", "user"},
    {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"},
};

constexpr size_t kMaxArgumentValues = 100'000;  // JSON values in one string
constexpr std::string_view kSystemSeparator = "\n\n";

// Two characters that stand after the last message while it is rendered. The first keeps the template's trim away from
// the message's own white space; a trim after it takes the second, which tells that the template does not keep any.
constexpr std::string_view kCutMark = "x ";

using Members = std::vector<std::pair<Text, Value>>;

Text Key(std::string_view key) { return std::make_shared<MarkedText>(std::string(key), Origin::kValue); }

Value* FindMember(Members* members, std::string_view key) {
  for (auto& [name, value] : *members)
    if (name->bytes() == key) return &value;
  return nullptr;
}

void SetMember(Members* members, std::string_view key, Value value) {
  if (Value* old = FindMember(members, key)) {
    *old = std::move(value);
  } else {
    members->emplace_back(Key(key), std::move(value));
  }
}

std::string Item(const std::string& where, size_t i) { return where + "[" + std::to_string(i) + "]"; }

/// At most 80 characters of what a user wrote, escaped.
std::string Quote(std::string_view text) {
  size_t end = 0;
  for (int i = 0; i < 80 && end < text.size(); ++i) end += DecodeUtf8(text, end).length;
  return JsonQuote(text.substr(0, end)) + (end < text.size() ? "..." : "");
}

/// The messages of one request, in the form of one template.
class Messages {
 public:
  Messages(const TemplateTraits& traits, Meter* meter) : traits_(traits), meter_(meter) {}

  Status Read(const Json& messages) {
    if (!messages.IsArray()) return Wrong("messages", "is ", messages.KindName(), ", want an array");
    for (size_t i = 0; i < messages.items().size(); ++i) {
      const std::string where = Item("messages", i);
      const Json& message = messages.items()[i];
      if (!message.IsObject()) return Wrong(where, "is ", message.KindName(), ", want an object");
      // Places first, so that members stay in the order of the request; then the rules; the rest as it came.
      list_.emplace_back();
      for (const Json::Member& member : message.members()) list_.back().emplace_back(Key(member.first), Value());
      for (auto rule :
           {&Messages::ReadRole, &Messages::ReadContent, &Messages::ReadReasoning, &Messages::ReadToolCalls})
        QWEN_RETURN_IF_ERROR((this->*rule)(message, where));
      for (size_t k = 0; k < message.members().size(); ++k)
        if (Value& place = list_.back()[k].second; place.Is<Undefined>())
          place = FromJson(message.members()[k].second, meter_);
      if (!meter_->ok()) return meter_->status();  // what follows takes every value for what it was read as
    }
    const size_t count = list_.size();
    if (count >= 2 && Role(count - 1) == "assistant" && Role(count - 2) == "assistant")
      return Wrong(Item("messages", count - 1), "is a second assistant message in a row at the end");
    JoinSystem();
    return {};
  }

  /// Puts the cut mark after the last message.
  Status MarkEnd() {
    if (list_.empty() || Role(list_.size() - 1) != "assistant")
      return Wrong("continue_final_message", "the last message is not the assistant's");
    const std::string where = Item("messages", joined_ + list_.size() - 1) + ".content";
    Value* content = FindMember(&list_.back(), "content");
    auto mark = [](Value* text) {
      MarkedText marked = *text->text();
      marked.Append(kCutMark, Origin::kCut);
      *text = MakeText(std::move(marked));
    };
    if (content && content->text()) {
      mark(content);
      return {};
    }
    const Sequence* parts = content ? content->sequence() : nullptr;
    if (!parts || parts->items.empty()) return Wrong(where, "there is nothing to continue");
    std::vector<Value> copy = parts->items;
    Members last = copy.back().dict()->members;
    mark(FindMember(&last, "text"));
    copy.back() = MakeDict(std::move(last), meter_);
    *content = MakeSequence(Sequence::Flavor::kList, std::move(copy), meter_);
    return {};
  }

  Value Take() {
    std::vector<Value> items;
    for (Members& members : list_) items.push_back(MakeDict(std::move(members), meter_));
    return MakeSequence(Sequence::Flavor::kList, std::move(items), meter_);
  }

 private:
  template <class... Parts>
  static Status Wrong(const std::string& where, Parts... parts) {
    return InvalidArgumentError((where + ": " + ... + parts));
  }

  const std::string& Role(size_t i) { return FindMember(&list_[i], "role")->text()->bytes(); }
  void Set(std::string_view key, Value value) { SetMember(&list_.back(), key, std::move(value)); }

  // --- Rules ---

  Status ReadRole(const Json& message, const std::string& where) {
    const Json* role = message.Find("role");
    if (!role || !role->IsString())
      return Wrong(where + ".role", "is ", role ? role->KindName() : "missing", ", want a string");
    const auto* row = std::find_if(std::begin(kRoles), std::end(kRoles),
                                   [&](const RoleRow& r) { return r.name == role->AsString(); });
    if (row == std::end(kRoles))
      return Wrong(where + ".role", Quote(role->AsString()),
                   " is none of system, developer, user, assistant, tool, function");
    Set("role", MakeText(std::string(row->becomes)));
    return {};
  }

  Status ReadContent(const Json& message, const std::string& where) {
    const Json* content = message.Find("content");
    if (!content || content->IsNull()) {
      Set("content", traits_.takes_null_content ? Value(None{}) : MakeText(std::string()));
      return {};
    }
    if (content->IsString()) {
      Set("content", FromJson(*content, meter_));
      return {};
    }
    if (!content->IsArray())
      return Wrong(where + ".content", "is ", content->KindName(), ", want a string or an array of parts");
    std::string joined;
    for (size_t i = 0; i < content->items().size(); ++i) {
      const Json& part = content->items()[i];
      const std::string part_where = Item(where + ".content", i);
      const Json *type = part.Find("type"), *text = part.Find("text");
      if (type && (!type->IsString() || type->AsString() != "text"))
        return Wrong(part_where, "is a part of type ", type->IsString() ? Quote(type->AsString()) : type->KindName(),
                     ", only \"text\" is supported");
      if (!text || !text->IsString()) return Wrong(part_where + ".text", "want a string");
      joined += text->AsString();
    }
    if (!meter_->Grow(0, joined.size())) return meter_->status();
    Set("content", traits_.takes_content_parts ? FromJson(*content, meter_) : MakeText(std::move(joined)));
    return {};
  }

  Status ReadReasoning(const Json& message, const std::string&) {
    const Json *reasoning = message.Find("reasoning"), *content = message.Find("reasoning_content");
    if (reasoning && reasoning->IsString() && (!content || content->IsNull()) && Role(list_.size() - 1) == "assistant")
      Set("reasoning_content", FromJson(*reasoning, meter_));
    return {};
  }

  Status ReadToolCalls(const Json& message, const std::string& message_where) {
    const Json* calls = message.Find("tool_calls");
    if (!calls || calls->IsNull()) return {};
    const std::string where = message_where + ".tool_calls";
    if (!calls->IsArray()) return Wrong(where, "is ", calls->KindName(), ", want an array");
    std::vector<Value> items;
    for (size_t i = 0; i < calls->items().size(); ++i) {
      // Both forms are about: {"type": "function", "function": {...}} and what is inside alone.
      const Json &call = calls->items()[i], *function = call.Find("function");
      if (!function) {
        QWEN_ASSIGN_OR_RETURN(items.emplace_back(), WithArguments(call, Item(where, i)));
        continue;
      }
      Members members;
      for (const auto& [key, value] : call.members()) {
        members.emplace_back(Key(key), Value());
        if (&value == function) {
          QWEN_ASSIGN_OR_RETURN(members.back().second, WithArguments(value, Item(where, i) + ".function"));
        } else {
          members.back().second = FromJson(value, meter_);
        }
      }
      items.push_back(MakeDict(std::move(members), meter_));
    }
    Set("tool_calls", MakeSequence(Sequence::Flavor::kList, std::move(items), meter_));
    return {};
  }

  /// `call` with its `arguments` as an object.
  StatusOr<Value> WithArguments(const Json& call, const std::string& where) {
    if (!call.IsObject()) return Wrong(where, "is ", call.KindName(), ", want an object");
    const Value value = FromJson(call, meter_);
    const Json* arguments = call.Find("arguments");
    if (!arguments || arguments->IsObject() || !value.dict()) return value;
    const std::string arguments_where = where + ".arguments";
    if (!arguments->IsString())
      return Wrong(arguments_where, "is ", arguments->KindName(), ", want an object or its JSON in a string");
    JsonLimits limits;
    limits.max_values = kMaxArgumentValues;
    StatusOr<Json> parsed = ParseJson(arguments->AsString(), arguments_where, limits);
    if (!parsed.ok()) return InvalidArgumentError(parsed.status().message());
    if (!parsed->IsObject())
      return Wrong(arguments_where, Quote(arguments->AsString()), " is ", parsed->KindName(), ", want a JSON object");
    Members members = value.dict()->members;
    SetMember(&members, "arguments", FromJson(*parsed, meter_));
    return MakeDict(std::move(members), meter_);
  }

  /// Several system messages at the beginning become one.
  void JoinSystem() {
    size_t count = 0;
    while (count < list_.size() && Role(count) == "system") ++count;
    if (count < 2) return;
    MarkedText joined;
    for (size_t i = 0; i < count; ++i) {
      const Value* content = FindMember(&list_[i], "content");
      if (i > 0) joined.Append(kSystemSeparator, Origin::kValue);
      if (const MarkedText* text = content->text()) joined.Append(*text);
      if (const Sequence* parts = content->sequence())
        for (const Value& part : parts->items) joined.Append(*part.dict()->Find("text")->text());
    }
    SetMember(&list_[0], "content", MakeText(std::move(joined)));
    list_.erase(list_.begin() + 1, list_.begin() + static_cast<std::ptrdiff_t>(count));
    joined_ = count - 1;
  }

  const TemplateTraits& traits_;
  Meter* const meter_;
  std::vector<Members> list_;
  size_t joined_ = 0;  // system messages that went into the first
};

/// Ends `text` where the cut mark begins.
Status CutAtMark(MarkedText* text) {
  const auto& runs = text->runs();
  auto mark = std::find_if(runs.rbegin(), runs.rend(), [](const auto& run) { return run.origin == Origin::kCut; });
  if (mark == runs.rend())
    return InvalidArgumentError("continue_final_message: the template leaves the last message out");
  size_t end = mark->begin;
  if (mark->end - mark->begin < kCutMark.size()) {
    while (end > 0) {
      const size_t last = PreviousUtf8(text->bytes(), end);
      if (!IsSpace(DecodeUtf8(text->bytes(), last).code_point)) break;
      end = last;
    }
  }
  text->Truncate(end);
  return {};
}

}  // namespace

PromptEnd EndOf(std::string_view prompt) {
  prompt = prompt.substr(0, prompt.find_last_not_of(" \t\r\n") + 1);
  if (prompt.ends_with(kThinkOpens)) return PromptEnd::kThinkOpen;
  return prompt.ends_with(kThinkCloses) ? PromptEnd::kThinkClosed : PromptEnd::kOther;
}

StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view text, const std::string& where) {
  QWEN_ASSIGN_OR_RETURN(Template compiled, Template::Parse(text, where));
  ChatTemplate chat(std::move(compiled));
  chat.Probe(text);
  return chat;
}

void ChatTemplate::Probe(std::string_view text) {
  // Every role says @; a question, and more variables.
  constexpr std::string_view kChat = R"({"tools": null, "messages": [{"role": "system", "content": @},
      {"role": "user", "content": "q"}, {"role": "user", "content": @}, {"role": "assistant", "content": @},
      {"role": "user", "content": "q"}, {"role": "assistant", "content": @, "tool_calls":
      [{"type": "function", "function": {"name": "f", "arguments": {}}}]}, {"role": "tool", "content": @}]})";
  constexpr std::string_view kQuestion = R"({"tools": null, "messages": [{"role": "user", "content": "q"}],
      "add_generation_prompt": true @})";
  const RenderLimits limits{.steps = 100'000, .time_ms = 0};  // what is found must not depend on the machine's load
  auto render = [&](std::string_view chat, std::string_view insert) -> std::optional<std::string> {
    std::string json(chat);
    for (size_t at = 0; (at = json.find('@', at)) != json.npos; at += insert.size()) json.replace(at, 1, insert);
    StatusOr<Rendered> rendered = template_.Render(*ParseJson(json, "probe"), limits);
    if (!rendered.ok()) return std::nullopt;
    return std::move(rendered->text);
  };
  auto same = [&](std::string_view a, std::string_view b) {
    const std::optional<std::string> first = render(kChat, a);
    return first && first == render(kChat, b);
  };
  traits_.takes_null_content = same(R"("")", "null");
  traits_.takes_content_parts = same(R"("text")", R"([{"type": "text", "text": "text"}])");
  traits_.enable_thinking =
      render(kQuestion, R"(, "enable_thinking": true)") != render(kQuestion, R"(, "enable_thinking": false)");
  traits_.prompt_end = EndOf(render(kQuestion, "").value_or(""));
  traits_.says_think = text.find(kThinkOpens) != text.npos;
  if (text.find("<tool_call>") != text.npos)
    traits_.tool_calls = text.find("<function=") != text.npos ? TemplateTraits::ToolCalls::kParameters
                                                              : TemplateTraits::ToolCalls::kJson;
}

StatusOr<Rendered> ChatTemplate::Render(const ChatRequest& request, const RenderLimits& limits) const {
  Meter meter(limits);
  if (request.add_generation_prompt && request.continue_final_message)
    return InvalidArgumentError("continue_final_message: excludes add_generation_prompt");
  if (request.tools && !request.tools->IsArray() && !request.tools->IsNull())
    return InvalidArgumentError(std::string("tools: is ") + request.tools->KindName() + ", want an array");
  Messages messages(traits_, &meter);
  QWEN_RETURN_IF_ERROR(messages.Read(request.messages));
  if (request.continue_final_message) QWEN_RETURN_IF_ERROR(messages.MarkEnd());
  Context context = {{"messages", messages.Take()},
                     {"tools", request.tools ? FromJson(*request.tools, &meter) : Value(None{})},
                     {"documents", None{}},
                     {"add_generation_prompt", request.add_generation_prompt}};
  if (request.kwargs) {
    if (!request.kwargs->IsObject())
      return InvalidArgumentError(std::string("chat_template_kwargs: is ") + request.kwargs->KindName() +
                                  ", want an object");
    for (const auto& [name, value] : request.kwargs->members()) {
      if (name.starts_with('_') ||
          std::find(std::begin(kReservedNames), std::end(kReservedNames), name) != std::end(kReservedNames))
        return InvalidArgumentError("chat_template_kwargs: " + Quote(name) + " is a reserved name");
      context.emplace_back(name, FromJson(value, &meter));
    }
  }
  QWEN_ASSIGN_OR_RETURN(MarkedText text, template_.Render(context, &meter));
  if (request.continue_final_message) QWEN_RETURN_IF_ERROR(CutAtMark(&text));
  return MakeRendered(std::move(text));
}

}  // namespace qwen::text
