// Python's Jinja2 is the judge: five published templates over 200 chats, and a few hundred small templates. What
// transformers' environment gives stands in test/data/chat_templates; where Python raises, ours must refuse.
#include <gtest/gtest.h>

#include <vector>

#include "runtime/text/jinja/chat_template.h"
#include "test/runtime/text/jinja/jinja_testing.h"

namespace qwen::text {
namespace {

std::vector<Json> JsonLines(const std::string& name) {
  std::vector<Json> lines;
  const std::string text = DataFile(name);
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = text.find('\n', at);
    lines.push_back(J(std::string_view(text).substr(at, end - at)));
  }
  return lines;
}

/// Compares with a golden: {"o": text}, {"raise": message} or {"error": anything}.
void Expect(const Json& golden, const StatusOr<Rendered>& got, const std::string& want) {
  if (golden.Find("o")) {
    ASSERT_TRUE(got.ok()) << got.status().message();
    EXPECT_EQ(got->text, want);
  } else {
    ASSERT_FALSE(got.ok()) << "Python: " << golden.members().back().second.AsString() << "\nours: " << got->text;
    EXPECT_FALSE(IsTemplateLimit(got.status()) && !golden.Find("error")) << got.status().message();
    if (const Json* raised = golden.Find("raise")) {
      EXPECT_EQ(got.status().message(), raised->AsString());
      EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
    }
  }
}

class PublishedTemplate : public testing::TestWithParam<const char*> {};

TEST_P(PublishedTemplate, RendersAsJinja2Does) {
  StatusOr<Template> compiled = Template::Parse(DataFile(GetParam() + std::string(".jinja")), GetParam());
  ASSERT_TRUE(compiled.ok()) << compiled.status().message();
  const std::vector<Json> contexts = JsonLines("contexts.jsonl");
  const std::vector<Json> goldens = JsonLines(GetParam() + std::string(".golden"));
  ASSERT_EQ(contexts.size(), 200u);
  ASSERT_EQ(goldens.size(), contexts.size() + 1);
  for (size_t i = 0; i < contexts.size(); ++i) {
    SCOPED_TRACE("line " + std::to_string(i + 1) + " of contexts.jsonl");
    const Json& golden = goldens[i + 1];
    std::string want;
    if (const Json* o = golden.Find("o")) want = o->AsString();
    for (size_t at; (at = want.find('\1')) != want.npos;) {
      const size_t end = want.find('\2', at);
      want.replace(at, end + 1 - at, goldens[0].items()[std::stoul(want.substr(at + 1))].AsString());
    }
    Expect(golden, compiled->Render(contexts[i], Untimed()), want);
  }
}

std::string TestName(const testing::TestParamInfo<const char*>& info) {
  std::string name;
  for (char c : std::string(info.param)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Chats, PublishedTemplate, testing::ValuesIn(kTemplates), TestName);

TEST(Snippets, RenderAsJinja2Does) {
  const std::vector<Json> lines = JsonLines("snippets.jsonl");
  ASSERT_GT(lines.size(), 300u);
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string& source = lines[i].Find("t")->AsString();
    SCOPED_TRACE(source);
    StatusOr<Template> compiled = Template::Parse(source, "snippet");
    const StatusOr<Rendered> got =
        compiled.ok() ? compiled->Render(lines[0], Untimed()) : StatusOr<Rendered>(compiled.status());
    Expect(lines[i], got, lines[i].Find("o") ? lines[i].Find("o")->AsString() : "");
  }
}

TEST(ContinueFinalMessage, CutsWhereTransformersDoes) {
  const std::vector<Json> lines = JsonLines("continue.golden");
  ASSERT_EQ(lines.size(), 50u);
  for (const Json& line : lines) {
    const std::string& name = line.Find("template")->AsString();
    const Json& messages = *line.Find("messages");
    SCOPED_TRACE(name + ": " + messages.items().back().Find("content")->AsString());
    StatusOr<ChatTemplate> chat = ChatTemplate::Parse(DataFile(name + ".jinja"), name);
    ASSERT_TRUE(chat.ok());
    const StatusOr<Rendered> got =
        chat->Render({.messages = messages, .add_generation_prompt = false, .continue_final_message = true}, Untimed());
    Expect(line, got, line.Find("o") ? line.Find("o")->AsString() : "");
  }
}

}  // namespace
}  // namespace qwen::text
