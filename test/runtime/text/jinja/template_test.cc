// Messages of templates that do not parse or do not render, what is outside the subset, and threads. What templates
// mean is judged by Jinja2: golden_test.cc.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "test/runtime/text/jinja/jinja_testing.h"

namespace qwen::text {
namespace {

TEST(Template, SaysWhereItDoesNotParse) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{", "1:3: unexpected end of the template, want an expression"},
      {"{{ }}", "1:4: unexpected '}}', want an expression"},
      {"a\nb {{ 1 2 }}", R"(2:8: unexpected integer "2", want '}}')"},
      {"é {{ 'x }}", "1:6: the string has no end"},
      {"a\r\nb\r{{ ? }}", R"(3:4: unexpected character "?")"},
      {"{{ é }}", R"(1:4: unexpected character "é")"},
      {"\n{# x", "2:3: the comment has no end"},
      {"{% if x %}", "1:11: unexpected end of the template, want {% endif %}"},
      {"{% for x in y %}{% if x %}{% endfor %}",
       R"(1:30: unexpected name "endfor", want if, for, set or macro; other tags are not supported)"},
      {"{% for x in y %}a{% else %}b", "1:29: unexpected end of the template, want {% endfor %}"},
      {"{{ (1] }}", "1:6: unexpected \"]\", want ')'"},
      {"{{ 1) }}", "1:5: unexpected \")\", want '}}'"},
      {"{% if (1 %}", "1:10: unexpected '%}', want ')'"},
      {"{{ x | nope }}", R"(1:8: there is no filter "nope")"},
      {"{{ x is nope }}", R"(1:9: there is no test "nope")"},
      {"{{ x is string 1 }}", R"(1:16: unexpected integer "1", the test string takes no argument)"},
      {"{% set true = 1 %}", R"(1:8: unexpected name "true", want a variable)"},
      {"{% for loop in x %}{% endfor %}", R"(1:8: unexpected name "loop", it is taken for the loop itself)"},
      {"{{ 9223372036854775808 }}", "1:4: the integer 9223372036854775808 has more than 64 bits"},
      {"{{ 0123 }}", "1:4: an integer begins with 0"},
      {R"({{ '\xz' }})", "1:5: the escape has 0 hexadecimal digits, want 2"},
      {R"({{ '\ud800' }})", "1:5: the escape is no code point"},
      {R"({{ '\N{DASH}' }})", R"(1:5: \N escapes are not supported)"},
      {"{% macro m(a=1, b) %}{% endmacro %}", "1:17: a parameter without a default stands after one that has one"},
      {"{{ f(a=1, 2) }}", R"(1:11: unexpected integer "2", a plain argument stands after a keyword)"},
      {"a\xFF", "1:2: is not UTF-8"},
  };
  for (const auto& [source, want] : cases) {
    const StatusOr<Template> parsed = Template::Parse(source, "chat_template.jinja");
    ASSERT_FALSE(parsed.ok()) << source;
    EXPECT_EQ(parsed.status().code(), StatusCode::kDataLoss);
    EXPECT_EQ(parsed.status().message(), std::string("chat_template.jinja:") + want) << source;
  }
}

TEST(Template, RefusesWhatIsOutsideOfTheSubset) {
  for (const char* source : {"{% include 'x' %}",
                             "{% import 'x' as y %}",
                             "{% extends 'x' %}",
                             "{% block b %}{% endblock %}",
                             "{% raw %}{% endraw %}",
                             "{% call m() %}{% endcall %}",
                             "{% filter upper %}{% endfilter %}",
                             "{% with x = 1 %}{% endwith %}",
                             "{% set x %}{% endset %}",
                             "{% autoescape true %}{% endautoescape %}",
                             "{% break %}",
                             "{% do x %}",
                             "{% generation %}{% endgeneration %}",
                             "{% for x in y recursive %}{% endfor %}",
                             "{{ {'a': 1} }}",
                             "{{ x ** 2 }}",
                             "{{ f(*x) }}",
                             "{{ f(**x) }}",
                             "{{ x|map('upper') }}",
                             "{{ x|format(1) }}",
                             "{% for x in y %}{% macro m() %}{% endmacro %}{% endfor %}",
                             "{% macro m() %}{{ varargs }}{% endmacro %}",
                             "{% macro m() %}{{ caller() }}{% endmacro %}"}) {
    const StatusOr<Template> parsed = Template::Parse(source, "t");
    ASSERT_FALSE(parsed.ok()) << source;
    EXPECT_EQ(parsed.status().code(), StatusCode::kDataLoss) << source;
  }
}

TEST(Template, SaysWhyItDoesNotRender) {
  const char* const context = R"({"s": "x", "n": null, "l": [1], "d": {"a": 1}, "i": 1})";
  const std::pair<const char*, const char*> cases[] = {
      {"\n\n{{ nope.x }}", "line 3: 'nope' is undefined"},
      {"{{ d.nope.x }}", "line 1: there is no attribute 'nope'"},
      {"{{ l[5].x }}", "line 1: there is no such item"},
      {"{{ ([]|first).x }}", "line 1: there is no first item"},
      {"{{ (s if 0).x }}", "line 1: the expression has no value"},
      {"{{ nope() }}", "line 1: 'nope' is undefined"},
      {"{{ s() }}", "line 1: a str object cannot be called"},
      {"{{ s + n }}", "line 1: '+' does not take a str object and a None"},
      {"{{ s + nope }}", "line 1: 'nope' is undefined"},
      {"{{ nope < 1 }}", "line 1: 'nope' is undefined"},
      {"{{ s < 1 }}", "line 1: a str object and a int object have no order"},
      {"{{ 1 in i }}", "line 1: a int object is not iterable"},
      {"{{ 1 in s }}", "line 1: 'in' a string wants a string, not a int object"},
      {"{{ n|length }}", "line 1: a None has no length"},
      {"{{ n[1:] }}", "line 1: a None has no slices"},
      {"{{ l['a':] }}", "line 1: a slice wants integers, not a str object"},
      {"{{ nope|tojson }}", "line 1: a undefined value has no JSON"},
      {"{{ namespace() }}", "line 1: a namespace object cannot be printed"},
      {"{{ range }}", "line 1: a function cannot be printed"},
      {"{{ s.split(1) }}", "line 1: want a string as argument 1, not a int object"},
      {"{{ s.split() if s.split('a', 'b') }}", "line 1: want an integer as argument 2, not a str object"},
      {"{{ s.split('', 1) }}", "line 1: cannot split at an empty string"},
      {"{{ s.replace('a') }}", "line 1: replace: wants an argument 'new'"},
      {"{{ s.strip('a', 'b') }}", "line 1: strip: has 2 arguments, takes at most 1"},
      {"{{ s|trim(nope=1) }}", "line 1: trim: has no parameter 'nope'"},
      {"{{ s|replace('a', 'b', old='c') }}", "line 1: replace: has two arguments 'old'"},
      {"{% set s.x = 1 %}", "line 1: 's' is no namespace, so its attributes cannot be set"},
      {"{{ namespace(_x=1) }}", "line 1: a namespace has no attribute '_x'"},
      {"{% set n = namespace() %}{% set n._x = 1 %}", "line 1: a namespace has no attribute '_x'"},
      {"{% for a, b in [l] %}{% endfor %}", "line 1: 1 values for 2 variables"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "line 1: m: has 2 arguments, takes at most 1"},
      {"{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "line 1: m: has no parameter 'b'"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", "line 1: m: has two arguments 'a'"},
      {"{% macro m(a) %}{{ a.x }}{% endmacro %}\n{{ m() }}", "line 1: 'a' is undefined"},
      {"{{ 9223372036854775807 + 1 }}", "line 1: an integer has more than 64 bits"},
      {"{{ -9223372036854775807 - 2 }}", "line 1: an integer has more than 64 bits"},
      {"{{ 9223372036854775807 * 2 }}", "line 1: an integer has more than 64 bits"},
      {"{{ -(-9223372036854775807 - 1) }}", "line 1: an integer has more than 64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "line 1: an integer has more than 64 bits"},
      {"{{ 1 // 0 }}", "line 1: division by zero"},
      {"{{ strftime_now('%Y') }}", "line 1: strftime_now is off: a prompt must not depend on the clock"},
      {"{{ raise_exception('said ' ~ s) }}", "said x"},
  };
  for (const auto& [source, want] : cases) {
    const StatusOr<Rendered> rendered = RenderText(source, context);
    ASSERT_FALSE(rendered.ok()) << source;
    EXPECT_EQ(rendered.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(rendered.status().message(), want) << source;
    EXPECT_FALSE(IsTemplateLimit(rendered.status()));
  }
  EXPECT_EQ(Out("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
  // What a template says may quote the request, so it is cut: at a character, not inside of one.
  const std::string long_message =
      RenderText("{{ raise_exception('a' ~ s * 400) }}", R"({"s": "é"})").status().message();
  EXPECT_EQ(long_message.size(), 499u);
  EXPECT_TRUE(long_message.ends_with("é"));
}

TEST(Template, ValuesLeadNowhere) {
  // A key that looks like an internal is a key; what Python has there does not exist.
  EXPECT_EQ(Out("{{ d.__class__ }}|{{ d['__init__'] }}|{{ s.__class__ is defined }}",
                R"({"d": {"__class__": "key"}, "s": ""})"),
            "key||False");
  for (const char* source : {"{{ ''.__class__.__mro__ }}", "{{ namespace.__init__.__globals__ }}", "{{ self.x }}",
                             "{{ loop.x }}", "{{ range.__call__.x }}", "{{ [].append(1) }}", "{{ d.update(x=1) }}"})
    EXPECT_TRUE(Out(source, R"({"d": {}})").starts_with("error: line 1: ")) << source;
}

TEST(Template, IllFormedTextDoesNoHarm) {
  // ParseJson lets no such string in; a caller that builds its own Json may.
  std::vector<Json::Member> members;
  members.emplace_back("s", Json(std::string("a\xFF\xC3\xE2\x82z\x80")));
  StatusOr<Template> compiled = Template::Parse(
      "{{ s }}{{ s|length }}{{ s[::-1] }}{{ s.strip('z') }}{{ s|upper }}{{ s.replace('', '-') }}{{ s|list|tojson }}"
      "{{ [s] }}{{ s.rstrip() }}{{ s.split('z') }}{{ s[1] }}{{ s[-1] }}",
      "t");
  ASSERT_TRUE(compiled.ok());
  EXPECT_TRUE(compiled->Render(Json(std::move(members)), Untimed()).ok());
}

TEST(Template, RendersOnManyThreads) {
  StatusOr<Template> compiled = Template::Parse(DataFile("Qwen3.5-4B.jinja"), "t");
  ASSERT_TRUE(compiled.ok());
  const Json context = J(R"({"messages": [{"role": "user", "content": "q"}], "add_generation_prompt": true})");
  const std::string want = compiled->Render(context, Untimed())->text;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong)
    threads.emplace_back([&, copy = *compiled] {
      for (int i = 0; i < 200; ++i) {
        const StatusOr<Rendered> got = copy.Render(context, Untimed());
        count += !got.ok() || got->text != want;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

}  // namespace
}  // namespace qwen::text
