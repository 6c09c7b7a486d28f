// The stored tokenizers and what PyPI `tokenizers` makes of text with them (test/data/tokenizers/make_goldens.py).
#ifndef QWEN_TEST_RUNTIME_TEXT_GOLDENS_H_
#define QWEN_TEST_RUNTIME_TEXT_GOLDENS_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"

namespace qwen::text {

inline std::string DataPath(const std::string& name) {
  return std::string(QWEN_SOURCE_DIR) + "/test/data/tokenizers/" + name;
}

/// A value that must be there, or the test program has nothing to say.
template <class T>
T ValueOrDie(StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << value.status().message() << "\n";
    std::abort();
  }
  return *std::move(value);
}

inline std::string Data(const std::string& name) { return ValueOrDie(ReadFile(DataPath(name), 1 << 24)); }

inline std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) {
    std::cerr << "nothing to replace: " << from << "\n";
    std::abort();
  }
  return text.replace(at, from.size(), to);
}

/// The tokenizer.json of `folder`, with Qwen3.5's pattern if `marks`.
inline Tokenizer Load(const std::string& folder, bool marks = false) {
  std::string json = Data(folder + "/tokenizer.json");
  if (marks) {
    json = Replaced(std::move(json), R"(]?\\p{L}+|)", R"(]?[\\p{L}\\p{M}]+|)");
    json = Replaced(std::move(json), R"([^\\s\\p{L}\\p{N}]+)", R"([^\\s\\p{L}\\p{M}\\p{N}]+)");
  }
  return ValueOrDie(ParseTokenizerJson(json, folder));
}

/// Loaded once a process: reading the file takes most of a test's time.
inline const Tokenizer& Qwen3() {
  static const Tokenizer tokenizer = Load("qwen3");
  return tokenizer;
}
inline const Tokenizer& Qwen35() {
  static const Tokenizer tokenizer = Load("qwen3", true);
  return tokenizer;
}

struct GoldenEncoding {
  std::vector<int32_t> ids;
  std::vector<size_t> tokens;  // of each piece
  friend bool operator==(const GoldenEncoding&, const GoldenEncoding&) = default;
};

struct GoldenLine {
  std::string text;
  GoldenEncoding words, marks, unmarked;  // patterns of Qwen3 and Qwen3.5; Qwen3's without special tokens
};

struct GoldenDecode {
  std::vector<int32_t> ids;
  std::string text, without_special;
};

struct Goldens {
  std::vector<GoldenLine> lines;
  std::vector<GoldenDecode> decodes;
};

class GoldenReader {
 public:
  explicit GoldenReader(const std::string& name) : bytes_(Data(name)) {}

  Goldens Read() {
    Goldens goldens;
    goldens.lines.resize(Number(4));
    for (GoldenLine& line : goldens.lines) {
      line.text = Text();
      line.words = Encoding({});
      line.marks = Encoding(line.words);
      line.unmarked = Encoding(line.words);
    }
    goldens.decodes.resize(Number(4));
    for (GoldenDecode& decode : goldens.decodes) {
      for (uint32_t count = Number(4); count > 0; --count) decode.ids.push_back(Number(3));
      decode.text = Text();
      decode.without_special = Text();
    }
    return goldens;
  }

 private:
  uint32_t Number(size_t bytes) {
    uint32_t value = 0;
    if (at_ + bytes > bytes_.size()) std::abort();
    std::memcpy(&value, bytes_.data() + at_, bytes);
    at_ += bytes;
    return value;
  }
  std::string Text() {
    const size_t size = Number(4);
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  GoldenEncoding Encoding(const GoldenEncoding& same) {
    if (Number(1) == 0) return same;
    GoldenEncoding encoding;
    size_t tokens = 0;
    encoding.tokens.resize(Number(4));
    for (size_t& count : encoding.tokens) tokens += count = Number(1);
    for (; tokens > 0; --tokens) encoding.ids.push_back(Number(3));
    return encoding;
  }

  std::string bytes_;
  size_t at_ = 0;
};

}  // namespace qwen::text

#endif  // QWEN_TEST_RUNTIME_TEXT_GOLDENS_H_
