// Damaged files of every kind, through the programs as a user meets them: one line that names the file, an exit code of
// its class, no signal, no output, no memory beyond what the file can hold.
//
// Whether a mutant should have been refused is judged without our readers: JSON by nlohmann, what carries checksums by
// being different, a shard by its header's length and JSON. A mutant that is still a sound file may be taken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

constexpr int kMutants = 300;
// Beside what the programs take for a sound file of these: 40 MB here.
constexpr int64_t kMostMemory = int64_t{400} << 20;

using Random = std::mt19937_64;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void WriteAll(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

bool IsJson(const std::string& text) { return nlohmann::json::accept(text); }

// --- Ways to damage a file
// --------------------------------------------------------------------------------------------

std::string FlipBit(std::string bytes, Random& random) {
  bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
  return bytes;
}
std::string Truncate(std::string bytes, Random& random) { return bytes.substr(0, random() % bytes.size()); }
std::string Delete(std::string bytes, Random& random) {
  const size_t at = random() % bytes.size();
  return bytes.erase(at, 1 + random() % 64);
}
std::string Duplicate(std::string bytes, Random& random) {
  const size_t at = random() % bytes.size(), length = 1 + random() % 64;
  return bytes.insert(at, bytes.substr(at, length));
}
std::string Insert(std::string bytes, Random& random) {
  static const std::string kWords[] = {"[",
                                       "]",
                                       "{",
                                       "}",
                                       "\"",
                                       ",",
                                       ":",
                                       "null",
                                       std::string(1, '\0'),
                                       "\xff\xfe",
                                       "-",
                                       "1e999",
                                       "\\ud800",
                                       std::string(300, '['),
                                       "{{",
                                       "{%",
                                       "%}"};
  return bytes.insert(random() % bytes.size(), kWords[random() % std::size(kWords)]);
}
// A number of the text, if it has one, becomes one that overflows something.
std::string HugeNumber(std::string bytes, Random& random) {
  static const char* kNumbers[] = {"-1",
                                   "0",
                                   "2147483647",
                                   "2147483648",
                                   "4294967296",
                                   "9223372036854775807",
                                   "9223372036854775808",
                                   "18446744073709551616",
                                   "1e400",
                                   "0.5",
                                   "1000000"};
  std::vector<size_t> digits;
  for (size_t i = 1; i < bytes.size(); ++i)
    if (std::isdigit(static_cast<unsigned char>(bytes[i])) && !std::isdigit(static_cast<unsigned char>(bytes[i - 1])))
      digits.push_back(i);
  if (digits.empty()) return FlipBit(std::move(bytes), random);
  const size_t at = digits[random() % digits.size()];
  size_t end = at;
  while (end < bytes.size() && std::isdigit(static_cast<unsigned char>(bytes[end]))) ++end;
  return bytes.replace(at, end - at, kNumbers[random() % std::size(kNumbers)]);
}
std::string Nothing(std::string, Random&) { return {}; }

constexpr std::string (*kDamage[])(std::string, Random&) = {FlipBit, Truncate, Delete,     Duplicate,
                                                            Insert,  FlipBit,  HugeNumber, HugeNumber};

// --- One kind of file
// -------------------------------------------------------------------------------------------------

struct Kind {
  std::string name;
  std::string file;  // that is damaged
  std::string program;
  std::function<std::vector<std::string>(const std::string&)> arguments;  // of the output path; "" when there is none
  std::function<bool(const std::string&)> must_be_refused;                // of the damaged bytes
  bool has_output = false;
};

struct Tally {
  int refused = 0, taken = 0;
  std::set<std::string> messages;
};

Tally RunMutants(const Kind& kind, const TempDir& dir, int count) {
  const std::string sound = ReadAll(kind.file);
  EXPECT_FALSE(sound.empty()) << kind.file;
  const std::string output = dir / ("out-" + kind.name);
  const CommandResult unharmed = RunProgram(kind.program, kind.arguments(output));
  EXPECT_EQ(unharmed.exit_code, 0) << kind.name << " before any damage\n" << unharmed.output;
  std::filesystem::remove(output);
  Tally tally;
  for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    Random random(i + 1);
    const std::string mutant = i == 0 ? Nothing(sound, random) : kDamage[i % std::size(kDamage)](sound, random);
    if (mutant == sound) continue;
    WriteAll(kind.file, mutant);
    const CommandResult run = RunProgram(kind.program, kind.arguments(output));
    const std::string what = fmt::format("{}, mutant {}: exit {}\n{}", kind.name, i, run.exit_code, run.output);
    EXPECT_LE(run.peak_bytes, kMostMemory) << what;
    if (run.exit_code == 0) {
      EXPECT_FALSE(kind.must_be_refused(mutant)) << what;
      ++tally.taken;
    } else {
      EXPECT_TRUE(run.exit_code == 3 || run.exit_code == 4 || run.exit_code == 5) << what;
      std::istringstream lines(run.output);
      std::string first, second, third;
      std::getline(lines, first), std::getline(lines, second), std::getline(lines, third);
      EXPECT_TRUE(first.starts_with(kind.program + ": error: ")) << what;
      // The folder at least: a wrong shard list names another of its files.
      EXPECT_NE(first.find(std::filesystem::path(kind.file).parent_path().string()), std::string::npos) << what;
      EXPECT_TRUE(second.empty() || second.starts_with("hint: ") || second.starts_with("  ")) << what;
      for (unsigned char c : run.output) EXPECT_TRUE(c >= 0x20 || c == '\n') << what;
      EXPECT_FALSE(kind.has_output && std::filesystem::exists(output)) << what << "\nan output was left behind";
      ++tally.refused;
      tally.messages.insert(first.substr(0, 120));
    }
    std::filesystem::remove(output);
  }
  WriteAll(kind.file, sound);
  return tally;
}

class Mutants : public testing::Test {
 protected:
  // A checkpoint's folder with everything in it, and its plan and pack.
  void SetUp() override {
    std::filesystem::copy(GoldenDir("qwen3_5-b"), dir_ / "model", std::filesystem::copy_options::recursive);
    const std::string data = std::string(QWEN_SOURCE_DIR) + "/test/data";
    WriteAll(dir_ / "model/chat_template.jinja", ReadAll(data + "/chat_templates/Qwen3.5-4B.jinja"));
    WriteAll(dir_ / "model/generation_config.json",
             R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1, 2]})");
    ASSERT_EQ(RunProgram("qwenc", {"compile", dir_ / "model", "-o", dir_ / "model/sound.plan"}).exit_code, 0);
    const CommandResult pack = RunProgram(
        "qwenrt", {"pack", dir_ / "model/sound.plan", "--weights", dir_ / "model", "-o", dir_ / "model/sound.pack"});
    ASSERT_EQ(pack.exit_code, 0) << pack.output;
  }

  std::function<std::vector<std::string>(const std::string&)> Compile() const {
    return
        [this](const std::string& output) { return std::vector<std::string>{"compile", dir_ / "model", "-o", output}; };
  }
  std::function<std::vector<std::string>(const std::string&)> Run(const std::string& weights) const {
    return [this, weights](const std::string&) {
      return std::vector<std::string>{
          "run", dir_ / "model/sound.plan", "--prompt-tokens", "1,2,3", "--max-tokens", "1", "--weights", weights};
    };
  }
  void Expect(const Kind& kind, int count = kMutants) {
    const Tally tally = RunMutants(kind, dir_, count);
    Figure(fmt::format("mutants of {}", kind.name),
           fmt::format("{} refused with {} different messages, {} were still sound", tally.refused,
                       tally.messages.size(), tally.taken));
    EXPECT_GT(tally.refused, count / 4);
  }

  TempDir dir_;
};

bool NotJson(const std::string& bytes) { return !IsJson(bytes); }
bool Always(const std::string&) { return true; }
/// The header's length must fit and the header be JSON; sizes and shapes behind it are our reader's word.
bool NotAShard(const std::string& bytes) {
  uint64_t length = 0;
  if (bytes.size() < 8) return true;
  std::memcpy(&length, bytes.data(), 8);
  return length > bytes.size() - 8 || !IsJson(bytes.substr(8, length));
}

TEST_F(Mutants, Config) { Expect({"config.json", dir_ / "model/config.json", "qwenc", Compile(), NotJson, true}); }

TEST_F(Mutants, GenerationConfig) {
  Expect({"generation_config.json", dir_ / "model/generation_config.json", "qwenc", Compile(), NotJson, true});
}

TEST_F(Mutants, Tokenizer) {
  // A config of a vocabulary that holds it: the golden's has fewer tokens than there are bytes.
  std::filesystem::create_directory(dir_ / "text");
  WriteAll(dir_ / "text/config.json", ReadAll(std::string(QWEN_SOURCE_DIR) + "/configs/Qwen3-0.6B.json"));
  WriteAll(dir_ / "text/tokenizer.json",
           ReadAll(std::string(QWEN_SOURCE_DIR) + "/test/data/tokenizers/toy/tokenizer.json"));
  auto compile = [this](const std::string& output) {
    return std::vector<std::string>{"compile", dir_ / "text", "-o", output};
  };
  Expect({"tokenizer.json", dir_ / "text/tokenizer.json", "qwenc", compile, NotJson, true});
}

TEST_F(Mutants, Template) {
  // What is no template any more: unclosed tags. A flipped letter in its text is a template too.
  auto unclosed = [](const std::string& bytes) {
    const size_t open = bytes.rfind("{%"), close = bytes.rfind("%}");
    return open != std::string::npos && (close == std::string::npos || close < open);
  };
  Kind kind{"chat_template.jinja", dir_ / "model/chat_template.jinja", "qwenc", Compile(), unclosed, true};
  const Tally tally = RunMutants(kind, dir_, kMutants);
  Figure("mutants of chat_template.jinja", fmt::format("{} refused with {} different messages, {} were still templates",
                                                       tally.refused, tally.messages.size(), tally.taken));
  EXPECT_GT(tally.refused, 10);
}

TEST_F(Mutants, Shard) {
  Expect({"model.safetensors", dir_ / "model/model.safetensors", "qwenrt", Run(dir_ / "model"), NotAShard}, kMutants);
}

TEST_F(Mutants, ShardIndex) {
  // One shard under an index, as big checkpoints come.
  std::filesystem::rename(dir_ / "model/model.safetensors", dir_ / "model/model-00001-of-00001.safetensors");
  const std::string shard = ReadAll(dir_ / "model/model-00001-of-00001.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, shard.data(), 8);
  nlohmann::json index = {{"metadata", {{"total_size", shard.size() - 8 - length}}}};
  const auto header = nlohmann::json::parse(shard.substr(8, length));
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__") index["weight_map"][name] = "model-00001-of-00001.safetensors";
  WriteAll(dir_ / "model/model.safetensors.index.json", index.dump());
  Expect({"model.safetensors.index.json", dir_ / "model/model.safetensors.index.json", "qwenrt", Run(dir_ / "model"),
          NotJson});
}

TEST_F(Mutants, Plan) { Expect({"plan", dir_ / "model/sound.plan", "qwenrt", Run(dir_ / "model"), Always}); }

TEST_F(Mutants, Pack) {
  // Every byte of a pack counts when it is checked whole; `run` maps it and checks the tables.
  Expect({"pack", dir_ / "model/sound.pack", "qwenrt",
          [this](const std::string&) {
            return std::vector<std::string>{
                "verify", dir_ / "model/sound.plan", "--weights", dir_ / "model/sound.pack", "--progress", "none"};
          },
          Always});
}

}  // namespace
}  // namespace qwen::e2e
