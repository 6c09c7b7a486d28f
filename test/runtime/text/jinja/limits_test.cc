// What a rendering may cost: every limit at its edge, and templates that try to be expensive.
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "runtime/text/jinja/parser.h"
#include "test/runtime/text/jinja/jinja_testing.h"

namespace qwen::text {
namespace {

std::string Repeat(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

/// The message of a rendering that a limit stopped; "" when nothing did.
std::string Limited(std::string_view source, const RenderLimits& limits = Untimed(), std::string_view context = "{}") {
  const StatusOr<Rendered> rendered = RenderText(source, context, limits);
  if (rendered.ok()) return "";
  EXPECT_EQ(rendered.status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(IsTemplateLimit(rendered.status())) << rendered.status().message();
  return rendered.status().message();
}

RenderLimits With(int64_t RenderLimits::* limit, int64_t value) {
  RenderLimits limits = Untimed();
  limits.*limit = value;
  return limits;
}

TEST(Limits, StepsAreCounted) {
  const std::string source = "{% for x in [1, 2, 3] %}{{ x }}{% endfor %}";
  int64_t enough = 1;
  while (!RenderText(source, "{}", With(&RenderLimits::steps, enough)).ok()) ASSERT_LT(++enough, 1000);
  EXPECT_GT(enough, 3 * 3);  // a body, an output and a name each time
  EXPECT_EQ(Limited(source, With(&RenderLimits::steps, enough - 1)),
            "template_limit: line 1: " + std::to_string(enough) + " steps, the limit is " + std::to_string(enough - 1));
  EXPECT_NE(Limited(source, With(&RenderLimits::steps, 0)), "");
}

TEST(Limits, OutputBytes) {
  const RenderLimits limits = With(&RenderLimits::output_bytes, 10);
  EXPECT_EQ(Limited("12345{{ 67890 }}", limits), "");
  EXPECT_EQ(Limited("\n123456{{ 67890 }}", limits), "template_limit: line 2: 12 bytes in a string, the limit is 10");
  EXPECT_NE(Limited("{% set x = '12345678901' %}{% set y = x ~ '' %}", limits), "");
  EXPECT_EQ(Limited("{{ s }}", limits, R"({"s": "1234567890"})"), "");
  EXPECT_NE(Limited("{{ s }}", limits, R"({"s": "12345678901"})"), "");
}

TEST(Limits, ListItems) {
  const RenderLimits limits = With(&RenderLimits::list_items, 4);
  for (const char* four : {"{{ [1, 2, 3, 4] }}", "{{ 'abcd'|list }}", "{{ 'a b c d'.split() }}",
                           "{{ 'a,b,c,d'.split(',') }}", "{{ [1, 2] + [3, 4] }}", "{% for c in 'abcd' %}{% endfor %}"})
    EXPECT_EQ(Limited(four, limits), "") << four;
  for (const char* five :
       {"{{ [1, 2, 3, 4, 5] }}", "{{ 'abcde'|list }}", "{{ 'a b c d e'.split() }}", "{{ 'a,b,c,d,e'.split(',') }}",
        "{{ [1, 2, 3] + [3, 4] }}", "{% for c in 'abcde' %}{% endfor %}"})
    EXPECT_EQ(Limited(five, limits), "template_limit: line 1: 5 list items, the limit is 4") << five;
}

TEST(Limits, Ranges) {
  EXPECT_EQ(Limited("{{ range(100000)|length }}"), "");
  EXPECT_EQ(Limited("{{ range(100001)|length }}"),
            "template_limit: line 1: 100001 items in a range, the limit is 100000");
  EXPECT_NE(Limited("{% for x in range(9223372036854775807) %}{% endfor %}"), "");
  EXPECT_NE(Limited("{{ range(-9223372036854775807, 9223372036854775807, 1) }}"), "");
  EXPECT_NE(Limited("{{ range(9223372036854775807, -9223372036854775807, -1) }}"), "");
  EXPECT_EQ(Out("{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807)|length }}"), "1");
}

TEST(Limits, Recursion) {
  const std::string source = "{% macro m(k) %}{% if k > 1 %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(DEPTH) }}";
  auto depth = [&](const std::string& n) { return std::string(source).replace(source.find("DEPTH"), 5, n); };
  EXPECT_EQ(Limited(depth("64")), "");
  EXPECT_EQ(Limited(depth("65")), "template_limit: line 1: 65 macro calls inside each other, the limit is 64");
  EXPECT_NE(Limited("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "");
  EXPECT_NE(Limited("{% macro m(a=m()) %}{% endmacro %}{{ m() }}"), "");
}

TEST(Limits, TheStackHoldsTheDeepestRendering) {
  // Macro calls, each from as deep in the macro as may be; on a thread, as a server renders.
  const std::string source = "{% macro m() %}" + Repeat("{% if 1 %}", 30) + "{{ " + Repeat("[", 20) + "m()" +
                             Repeat("]", 20) + " }}" + Repeat("{% endif %}", 30) + "{% endmacro %}{{ m() }}";
  std::string message;
  std::thread([&] { message = Limited(source); }).join();
  EXPECT_EQ(message, "template_limit: line 1: 1001 nested evaluations, the limit is 1000");
}

TEST(Limits, Time) {
  RenderLimits limits{.steps = int64_t{1} << 60, .built_bytes = int64_t{1} << 60, .time_ms = 20};
  const std::string message =
      Limited("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", limits);
  EXPECT_NE(message.find(" ms, the limit is 20"), message.npos) << message;
}

TEST(Limits, GrowthIsStoppedWhereverItComesFrom) {
  for (const char* step :
       {"ns.s ~ ns.s", "ns.s + ns.s", "ns.s * 9", "[ns.s, ns.s]|join", "ns.s.replace('', ns.s)",
        "ns.s.replace('x', 'xx')", "ns.s|replace('x', ns.s ~ 'x')", "[ns.s, ns.s]|string", "[ns.s, ns.s]|tojson",
        "ns.s.split('x')|join(ns.s ~ 'x')", "ns.s ~ (ns.s|upper)", "(ns.s ~ ns.s)[::-1]"}) {
    const std::string source =
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = " + std::string(step) +
        " %}{% endfor %}";
    EXPECT_NE(Limited(source, With(&RenderLimits::output_bytes, 1 << 20)), "") << step;
  }
  EXPECT_NE(Limited("{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}")
                .find("list items"),
            std::string::npos);
  EXPECT_NE(Limited("{{ 'x' * 9223372036854775807 }}"), "");
}

TEST(Limits, WhatIsKeptAliveIsCounted) {
  // Each string is within its limit; together they would be terabytes.
  EXPECT_NE(Limited("{% set big = 'x' * 8000000 %}{% set ns = namespace(l=[]) %}"
                    "{% for i in range(100000) %}{% set ns.l = ns.l + [big ~ i] %}{% endfor %}")
                .find("bytes built"),
            std::string::npos);
}

TEST(Limits, SharedValuesArePrintedWithinSteps) {
  // 2^60 leaves, sixty lists.
  const std::string doubling =
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}";
  for (const char* use : {"{{ ns.l }}", "{{ ns.l|tojson }}", "{{ ns.l == [ns.l[0], ns.l[1]] }}",
                          "{{ ns.l < [ns.l[0]] }}", "{{ ns.l in [[], [ns.l[0], ns.l[1]]] }}"})
    EXPECT_NE(Limited(doubling + use), "") << use;
}

TEST(Limits, Nesting) {
  const std::string source =
      "{% set ns = namespace(l=[]) %}{% for i in range(TIMES) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}";
  auto times = [&](const std::string& n) { return std::string(source).replace(source.find("TIMES"), 5, n); };
  EXPECT_EQ(Limited(times("199")), "");
  EXPECT_EQ(Limited(times("200")), "template_limit: line 1: 201 levels of nesting, the limit is 200");
  // Through a loop, and through namespaces, whose chain is unlimited but never destroyed recursively.
  EXPECT_NE(Limited("{% set ns = namespace() %}{% for i in range(1000) %}{% for x in [ns.l] %}{% set ns.l = loop %}"
                    "{% endfor %}{% endfor %}"),
            "");
  EXPECT_EQ(Limited("{% set ns = namespace() %}{% for i in range(90000) %}{% set inner = namespace(x=[ns.x]) %}"
                    "{% set ns.x = inner %}{% endfor %}"),
            "");
  EXPECT_EQ(Limited("{% set ns = namespace() %}{% set ns.self = [ns] %}{{ ns.self[0].self[0].x }}"), "");
}

TEST(Limits, SearchesAreLinear) {
  // Near misses everywhere: a naive search takes 10^12 steps.
  const std::string many = Repeat("a", 2'000'000), half = Repeat("a", 1'000'000) + "b";
  const std::string context = R"({"a": ")" + many + R"(", "b": ")" + half + R"("})";
  EXPECT_EQ(Out("{{ b in a }}{{ a.split(b)|length }}{{ a.replace(b, '')|length }}", context), "False12000000");
}

TEST(Limits, ALongChatIsNoAttack) {
  // Nearly the largest body that the server takes, in one message, through the template with the most work for each.
  const std::string context = R"({"messages": [{"role": "user", "content": " )" + Repeat("wörds ", 1'000'000) +
                              R"( "}], "add_generation_prompt": true})";
  const StatusOr<Rendered> rendered = RenderText(DataFile("Qwen3.5-4B.jinja"), context);
  EXPECT_TRUE(rendered.ok()) << rendered.status().message();
}

// --- Parsing ---------------------------------------------------------------------------------------------------------

TEST(Limits, DeepTemplatesAreRefused) {
  struct Case {
    const char *open, *middle, *close;
  };
  const Case cases[] = {
      {"(", "1", ")"},           {"[", "1", "]"},  {"not ", "1", ""}, {"-", "1", ""},
      {"1 if 1 else ", "1", ""}, {"", "x", ".y"},  {"", "x", "[0]"},  {"", "x", "|trim"},
      {"", "x", "()"},           {"x[", "1", "]"}, {"x(", "1", ")"},  {"1 ~ (", "1", ")"},
  };
  for (const Case& c : cases) {
    for (size_t times : {1000, 60000}) {
      const std::string source = "{{ " + Repeat(c.open, times) + c.middle + Repeat(c.close, times) + " }}";
      if (source.size() > kMaxTemplateBytes) continue;
      const StatusOr<Program> program = ParseTemplate(source, "t");
      ASSERT_FALSE(program.ok()) << c.open << c.close;
      EXPECT_NE(program.status().message().find("nests deeper than 100 levels"), std::string::npos)
          << program.status().message();
    }
  }
  for (const char* block : {"{% if 1 %}", "{% for x in y %}"})
    EXPECT_NE(Out(Repeat(block, 1000)).find("nests deeper than 100 levels"), std::string::npos);
  EXPECT_NE(Out("{% for " + Repeat("(", 1000) + "x").find("nests deeper than 100 levels"), std::string::npos);
}

TEST(Limits, LongTemplatesAreNotDeep) {
  EXPECT_EQ(Out("{{ 0" + Repeat(" + 1", 10'000) + " }}"), "10000");
  EXPECT_EQ(Out("{{ ''" + Repeat(" ~ 'a'", 100) + " }}"), Repeat("a", 100));
  EXPECT_EQ(Out("{{ 1" + Repeat(" and 1", 10'000) + Repeat(" or 1", 10'000) + " }}"), "1");
  EXPECT_EQ(Out("{{ 1" + Repeat(" == 1", 10'000) + " }}"), "True");
  EXPECT_EQ(Out("{% if 0 %}" + Repeat("{% elif 0 %}", 10'000) + "{% else %}x{% endif %}"), "x");
  EXPECT_EQ(Out(Repeat("{% if 1 %}x{% endif %}", 10'000)), Repeat("x", 10'000));
  EXPECT_EQ(Out("{{ [" + Repeat("1,", 10'000) + "]|length }}"), "10000");
  EXPECT_EQ(Out("{{ (((((((((((((((((((((((((1))))))))))))))))))))))))) }}"), "1");
}

TEST(Limits, LargeTemplatesAreRefused) {
  EXPECT_TRUE(ParseTemplate(Repeat("x", kMaxTemplateBytes), "t").ok());
  EXPECT_EQ(ParseTemplate(Repeat("x", kMaxTemplateBytes + 1), "t").status().message(),
            "t: is a template of 1048577 bytes, the limit is 1048576");
  std::string names;
  for (size_t i = 0; i < kMaxNames; ++i) names += "{{ n" + std::to_string(i) + " }}";
  EXPECT_TRUE(ParseTemplate(names, "t").ok());
  EXPECT_NE(ParseTemplate(names + "{{ more }}", "t").status().message().find("has more than 1024 different names"),
            std::string::npos);
}

}  // namespace
}  // namespace qwen::text
