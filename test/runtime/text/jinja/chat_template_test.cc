// Messages as requests send them → what each published template takes, and the golden renders of the serving design.
#include "runtime/text/jinja/chat_template.h"

#include <gtest/gtest.h>

#include <string>

#include "test/runtime/text/jinja/jinja_testing.h"

namespace qwen::text {
namespace {

ChatTemplate Compile(const std::string& name) {
  StatusOr<ChatTemplate> compiled = ChatTemplate::Parse(DataFile(name + ".jinja"), name);
  EXPECT_TRUE(compiled.ok()) << compiled.status().message();
  return *std::move(compiled);
}

/// A template that shows its messages as they are.
ChatTemplate Mirror() { return *ChatTemplate::Parse("{{ messages|tojson }}", "mirror"); }

std::string Chat(const ChatTemplate& compiled, std::string_view messages, std::string_view kwargs = "{}",
                 bool prompt = true) {
  const Json list = J(messages), more = J(kwargs);
  StatusOr<Rendered> rendered =
      compiled.Render({.messages = list, .kwargs = &more, .add_generation_prompt = prompt}, Untimed());
  if (rendered.ok()) return rendered->text;
  EXPECT_EQ(rendered.status().code(), StatusCode::kInvalidArgument);
  return "error: " + rendered.status().message();
}

constexpr const char* kQwen3 = "Qwen-Qwen3-0.6B";
constexpr const char* kQwen35 = "Qwen3.5-4B";
constexpr const char* kCoder = "Qwen3-Coder";

// The serving design, 14.4.
TEST(ChatTemplate, GoldenRenders) {
  const ChatTemplate qwen3 = Compile(kQwen3), qwen35 = Compile(kQwen35), coder = Compile(kCoder);
  const std::string hi = R"([{"role": "user", "content": "hi"}])";
  EXPECT_EQ(Chat(qwen35, hi), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n");
  EXPECT_EQ(Chat(qwen3, hi), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  for (const ChatTemplate* both : {&qwen3, &qwen35})
    EXPECT_EQ(Chat(*both, hi, R"({"enable_thinking": false})"),
              "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
  const std::string padded = R"([{"role": "system", "content": " s "}, {"role": "user", "content": " hi "}])";
  EXPECT_EQ(Chat(qwen35, padded, "{}", false), "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n");
  for (const ChatTemplate* both : {&qwen3, &coder})
    EXPECT_EQ(Chat(*both, padded, "{}", false),
              "<|im_start|>system\n s <|im_end|>\n<|im_start|>user\n hi <|im_end|>\n");
  const std::string history = R"([{"role": "user", "content": "1"},
      {"role": "assistant", "content": "<think>\nr\n</think>\n\nA"}, {"role": "user", "content": "2"}])";
  for (const ChatTemplate* both : {&qwen3, &qwen35})
    EXPECT_NE(Chat(*both, history).find("<|im_start|>assistant\nA<|im_end|>"), std::string::npos);
  EXPECT_NE(Chat(coder, history).find("assistant\n<think>\nr\n</think>\n\nA<|im_end|>"), std::string::npos);
  const std::string tools =
      R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "reasoning": "r",
      "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\":1,\"s\":\"q\",\"l\":[1,\"é\"]}"}}]},
      {"role": "tool", "content": "R1"}, {"role": "tool", "content": "R2"}])";
  EXPECT_NE(Chat(qwen35, tools)
                .find("assistant\n<think>\nr\n</think>\n\n<tool_call>\n<function=f>\n<parameter=x>\n1\n"
                      "</parameter>\n<parameter=s>\nq\n</parameter>\n<parameter=l>\n[1, \"é\"]\n"
                      "</parameter>\n</function>\n</tool_call><|im_end|>\n<|im_start|>user\n"
                      "<tool_response>\nR1\n</tool_response>\n<tool_response>\nR2\n</tool_response>"
                      "<|im_end|>\n"),
            std::string::npos);
  EXPECT_NE(Chat(qwen3, tools)
                .find("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1, \"s\": \"q\", \"l\": "
                      "[1, \"é\"]}}\n</tool_call>"),
            std::string::npos);
  const std::string pre = R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": "pre"}])";
  for (const ChatTemplate* both : {&qwen3, &qwen35})
    EXPECT_TRUE(Chat(*both, pre, "{}", false).ends_with("assistant\n<think>\n\n</think>\n\npre<|im_end|>\n"));
}

// The serving design, 14.3, row by row.
TEST(ChatTemplate, ArgumentsBecomeObjects) {
  const ChatTemplate mirror = Mirror();
  auto arguments = [](const std::string& value) {
    return R"([{"role": "assistant", "content": "c", "tool_calls": [{"id": 1, "function": {"name": "f", "arguments": )" +
           value + R"(}}]}])";
  };
  const std::string object =
      R"([{"role": "assistant", "content": "c", "tool_calls": [{"id": 1, "function": {"name": "f", "arguments": {"b": 1.0, "a": []}}}]}])";
  EXPECT_EQ(Chat(mirror, arguments(R"("{\"b\": 1.0, \"a\": []}")")), object);
  EXPECT_EQ(Chat(mirror, arguments(R"({"b": 1.0, "a": []})")), object);
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]}])"),
            R"([{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}])");
  const std::string where = "error: messages[0].tool_calls[0].function.arguments: ";
  EXPECT_EQ(Chat(mirror, arguments(R"("[1]")")), where + "\"[1]\" is an array, want a JSON object");
  EXPECT_EQ(Chat(mirror, arguments("5")), where + "is an integer, want an object or its JSON in a string");
  EXPECT_TRUE(Chat(mirror, arguments(R"("{")")).starts_with(where + "byte "));
  EXPECT_TRUE(Chat(mirror, arguments(R"("")")).starts_with(where));
  const std::string deep(70, '[');
  EXPECT_TRUE(Chat(mirror, arguments("\"" + deep + "\"")).find("nests deeper") != std::string::npos);
  std::string many = R"({\"x\": [1)";
  for (int i = 0; i < 100'000; ++i) many += ",1";
  EXPECT_TRUE(Chat(mirror, arguments("\"" + many + "]}\"")).find("is beyond the limit of 100000 values") !=
              std::string::npos);
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "content": "", "tool_calls": 5}])"),
            "error: messages[0].tool_calls: is an integer, want an array");
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "content": "", "tool_calls": [5]}])"),
            "error: messages[0].tool_calls[0]: is an integer, want an object");
}

TEST(ChatTemplate, NullContent) {
  const std::string chat = R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": null},
      {"role": "assistant"}, {"role": "user", "content": "v"}])";
  for (const char* name : kTemplates) {
    const std::string out = Chat(Compile(name), chat);
    EXPECT_NE(out.find("<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"), std::string::npos)
        << name << ": " << out;
    EXPECT_EQ(out.find("None"), std::string::npos) << name;
  }
  EXPECT_EQ(Chat(Mirror(), R"([{"role": "user", "content": null}, {"role": "user"}])"),
            R"([{"role": "user", "content": ""}, {"role": "user", "content": ""}])");
}

TEST(ChatTemplate, ContentParts) {
  const std::string chat =
      R"([{"role": "user", "content": [{"type": "text", "text": "on"}, {"type": "text", "text": "e"}]},
      {"role": "tool", "content": [{"text": "two"}]}])";
  for (const char* name : kTemplates) {
    const std::string out = Chat(Compile(name), chat);
    EXPECT_NE(out.find("user\none<|im_end|>"), std::string::npos) << name << ": " << out;
    EXPECT_NE(out.find("<tool_response>\ntwo\n</tool_response>"), std::string::npos) << name << ": " << out;
  }
  const ChatTemplate mirror = Mirror();
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": []}])"), R"([{"role": "user", "content": ""}])");
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}])"),
            "error: messages[0].content[1]: is a part of type \"image_url\", only \"text\" is supported");
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": [{"type": "text", "text": 5}]}])"),
            "error: messages[0].content[0].text: want a string");
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": ["bare"]}])"),
            "error: messages[0].content[0].text: want a string");
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": 5}])"),
            "error: messages[0].content: is an integer, want a string or an array of parts");
}

TEST(ChatTemplate, Roles) {
  const ChatTemplate mirror = Mirror();
  EXPECT_EQ(Chat(mirror, R"([{"role": "developer", "content": "d"}, {"content": "f", "role": "function", "x": 1}])"),
            R"([{"role": "system", "content": "d"}, {"content": "f", "role": "tool", "x": 1}])");
  EXPECT_EQ(Chat(mirror, R"([{"role": "root", "content": ""}])"),
            "error: messages[0].role: \"root\" is none of system, developer, user, assistant, tool, function");
  EXPECT_EQ(Chat(mirror, R"([{"role": 1, "content": ""}])"), "error: messages[0].role: is an integer, want a string");
  EXPECT_EQ(Chat(mirror, R"([{"content": ""}])"), "error: messages[0].role: is missing, want a string");
  EXPECT_EQ(Chat(mirror, "[5]"), "error: messages[0]: is an integer, want an object");
  EXPECT_EQ(Chat(mirror, "{}"), "error: messages: is an object, want an array");
  // Long names are cut.
  EXPECT_LT(Chat(mirror, R"([{"role": ")" + std::string(5000, 'x') + R"("}])").size(), 200u);
}

TEST(ChatTemplate, LeadingSystemMessagesAreJoined) {
  const std::string chat = R"([{"role": "system", "content": "a"}, {"role": "developer", "content":
      [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}, {"role": "system"}, {"role": "user", "content": "u"},
      {"role": "system", "content": "late"}])";
  EXPECT_EQ(
      Chat(Mirror(), chat),
      R"([{"role": "system", "content": "a\n\nbc\n\n"}, {"role": "user", "content": "u"}, {"role": "system", "content": "late"}])");
  EXPECT_EQ(Chat(Compile(kQwen35), chat), "error: System message must be at the beginning.");
  EXPECT_NE(Chat(Compile(kQwen3), chat).find("<|im_start|>system\nlate<|im_end|>"), std::string::npos);
  EXPECT_TRUE(Chat(Compile(kQwen35), R"([{"role": "system", "content": [{"type": "text", "text": "x"}]},
      {"role": "system", "content": [{"type": "text", "text": "y"}]}, {"role": "user", "content": "u"}])")
                  .starts_with("<|im_start|>system\nx\n\ny<|im_end|>"));
}

TEST(ChatTemplate, ReasoningHasTwoNames) {
  const ChatTemplate mirror = Mirror();
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "content": "", "reasoning": "r"}])"),
            R"([{"role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r"}])");
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "content": "", "reasoning_content": "own", "reasoning": "r"}])"),
            R"([{"role": "assistant", "content": "", "reasoning_content": "own", "reasoning": "r"}])");
  EXPECT_EQ(Chat(mirror, R"([{"role": "assistant", "reasoning_content": null, "reasoning": "r", "content": ""}])"),
            R"([{"role": "assistant", "reasoning_content": "r", "reasoning": "r", "content": ""}])");
  EXPECT_EQ(Chat(mirror, R"([{"role": "user", "content": "", "reasoning": "r"}])"),
            R"([{"role": "user", "content": "", "reasoning": "r"}])");
}

TEST(ChatTemplate, NoUserMessage) {
  EXPECT_EQ(Chat(Compile(kQwen35), R"([{"role": "system", "content": "s"}])"),
            "error: No user query found in messages.");
  EXPECT_EQ(Chat(Compile(kQwen35), "[]"), "error: No messages provided.");
}

TEST(ChatTemplate, AssistantAtTheEnd) {
  const ChatTemplate mirror = Mirror();
  const std::string two = R"([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}])";
  EXPECT_EQ(Chat(mirror, two), "error: messages[1]: is a second assistant message in a row at the end");
  auto continued = [&](const ChatTemplate& compiled, std::string_view messages, bool prompt = false) {
    const Json list = J(messages);
    StatusOr<Rendered> rendered =
        compiled.Render({.messages = list, .add_generation_prompt = prompt, .continue_final_message = true}, Untimed());
    if (!rendered.ok()) return "error: " + rendered.status().message();
    EXPECT_TRUE(rendered->from_template.empty() || rendered->from_template.back().end <= rendered->text.size());
    return rendered->text;
  };
  const ChatTemplate qwen35 = Compile(kQwen35);
  const std::string head = "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
  EXPECT_EQ(continued(qwen35, R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": "so"}])"),
            head + "so");
  EXPECT_EQ(continued(qwen35, R"([{"role": "user", "content": "u"}, {"role": "assistant", "content":
                                  [{"type": "text", "text": "s"}, {"type": "text", "text": "o"}]}])"),
            head + "so");
  // As transformers: where the template trims the message, white space before it goes too.
  EXPECT_EQ(continued(qwen35, R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}])"),
            head.substr(0, head.size() - 2));
  EXPECT_EQ(continued(qwen35, R"([{"role": "user", "content": "u"}])"),
            "error: continue_final_message: the last message is not the assistant's");
  EXPECT_EQ(continued(qwen35, "[]"), "error: continue_final_message: the last message is not the assistant's");
  EXPECT_EQ(continued(qwen35, R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": null}])"),
            "error: messages[1].content: there is nothing to continue");
  EXPECT_EQ(continued(qwen35, R"([{"role": "system", "content": "s"}, {"role": "developer", "content": "t"},
                                  {"role": "user", "content": "u"}, {"role": "assistant"}])"),
            "error: messages[3].content: there is nothing to continue");
  EXPECT_EQ(continued(qwen35, R"([{"role": "assistant", "content": "x"}])", true),
            "error: continue_final_message: excludes add_generation_prompt");
  EXPECT_EQ(continued(*ChatTemplate::Parse("{{ messages|length }}", "t"), R"([{"role": "assistant", "content": "x"}])"),
            "error: continue_final_message: the template leaves the last message out");
  // Said twice, the last one counts; trimmed, the white space before it goes.
  EXPECT_EQ(continued(*ChatTemplate::Parse("{{ messages[0].content }}|\n{{ messages[0].content|trim }}|end", "t"),
                      R"([{"role": "assistant", "content": "x \n"}])"),
            "x \nx |\nx");
}

TEST(ChatTemplate, LimitsHoldBeforeTheTemplateRuns) {
  const Json messages = J(R"([{"role": "system", "content": [{"type": "text", "text": "a"}]},
      {"role": "system", "content": [{"type": "text", "text": "b"}]}, {"role": "user", "content": "u"},
      {"role": "assistant", "content": [{"type": "text", "text": "c"}], "reasoning": "r", "tool_calls":
       [{"function": {"name": "f", "arguments": "{\"x\": [1, [2]]}"}}]}])");
  const ChatTemplate compiled = Compile(kQwen35);
  int refused = 0;
  for (int64_t bytes = 0; bytes < 20'000; bytes += bytes < 4'000 ? 20 : 500) {
    RenderLimits limits = Untimed();
    limits.built_bytes = bytes;
    const StatusOr<Rendered> rendered =
        compiled.Render({.messages = messages, .add_generation_prompt = false, .continue_final_message = true}, limits);
    refused += !rendered.ok();
    EXPECT_TRUE(rendered.ok() || IsTemplateLimit(rendered.status())) << rendered.status().message();
  }
  EXPECT_GT(refused, 50);
}

TEST(ChatTemplate, ManyMembersTakeLinearTime) {
  std::string message = R"([{"role": "user", "content": "u")";
  for (int i = 0; i < 90'000; ++i) message += ", \"k" + std::to_string(i) + "\": 1";
  EXPECT_EQ(Chat(Compile(kQwen3), message + "}]", "{}", false), "<|im_start|>user\nu<|im_end|>\n");
}

TEST(ChatTemplate, KwargsAreVariables) {
  const ChatTemplate compiled =
      *ChatTemplate::Parse("{{ a }}{{ documents }}{{ tools }}{{ add_generation_prompt }}", "t");
  EXPECT_EQ(Chat(compiled, "[]", R"({"a": [1]})"), "[1]NoneNoneTrue");
  for (const char* name : {"messages", "tools", "documents", "add_generation_prompt", "namespace", "range",
                           "raise_exception", "strftime_now", "loop", "self", "_x", "__class__"})
    EXPECT_EQ(Chat(compiled, "[]", R"({")" + std::string(name) + R"(": 1})"),
              "error: chat_template_kwargs: \"" + std::string(name) + "\" is a reserved name");
  EXPECT_EQ(Chat(compiled, "[]", "[]"), "error: chat_template_kwargs: is an array, want an object");
}

TEST(ChatTemplate, Tools) {
  const Json messages = J(R"([{"role": "user", "content": "u"}])"), tools = J(R"([{"type": "function"}])"),
             wrong = J("{}");
  const ChatTemplate compiled = Compile(kQwen3);
  EXPECT_NE(compiled.Render({.messages = messages, .tools = &tools})
                ->text.find("<tools>\n{\"type\": \"function\"}\n</tools>"),
            std::string::npos);
  EXPECT_EQ(compiled.Render({.messages = messages, .tools = &wrong}).status().message(),
            "tools: is an object, want an array");
}

TEST(ChatTemplate, Traits) {
  using Calls = TemplateTraits::ToolCalls;
  struct Case {
    const char* name;
    bool null, parts, think, enable;
    PromptEnd end;
    Calls calls;
  };
  const Case cases[] = {
      {"Qwen-Qwen2.5-7B-Instruct", false, false, false, false, PromptEnd::kOther, Calls::kJson},
      {"Qwen-QwQ-32B", false, false, true, true, PromptEnd::kThinkClosed, Calls::kJson},
      {kQwen3, false, false, true, true, PromptEnd::kOther, Calls::kJson},
      {kCoder, false, false, false, false, PromptEnd::kOther, Calls::kParameters},
      {kQwen35, true, true, true, true, PromptEnd::kThinkOpen, Calls::kParameters},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const ChatTemplate compiled = Compile(c.name);
    const TemplateTraits& traits = compiled.traits();
    EXPECT_EQ(traits.takes_null_content, c.null);
    EXPECT_EQ(traits.takes_content_parts, c.parts);
    EXPECT_EQ(traits.says_think, c.think);
    EXPECT_EQ(traits.enable_thinking, c.enable);
    EXPECT_EQ(traits.prompt_end, c.end);
    EXPECT_EQ(traits.tool_calls, c.calls);
  }
  // A template that refuses every probe still works.
  const StatusOr<ChatTemplate> picky = ChatTemplate::Parse("{{ raise_exception('no') }}", "t");
  ASSERT_TRUE(picky.ok());
  EXPECT_FALSE(picky->traits().takes_null_content);
  EXPECT_FALSE(picky->traits().enable_thinking);
}

TEST(ChatTemplate, EndOfAPrompt) {
  EXPECT_EQ(EndOf("<|im_start|>assistant\n<think>\n"), PromptEnd::kThinkOpen);
  EXPECT_EQ(EndOf("<think>"), PromptEnd::kThinkOpen);
  EXPECT_EQ(EndOf("<think>\n\n</think>\n\n"), PromptEnd::kThinkClosed);
  EXPECT_EQ(EndOf("user: <think>\n<|im_start|>assistant\n"), PromptEnd::kOther);
  EXPECT_EQ(EndOf(""), PromptEnd::kOther);
}

}  // namespace
}  // namespace qwen::text
