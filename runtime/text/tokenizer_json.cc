// A tokenizer.json says what to do in parts (normalizer, pre_tokenizer, model, ...), each tagged with a type. Here
// every part must be the one that the encoder does. Tokens are written in GPT-2's byte alphabet: each byte is a
// printable character, so that JSON can hold any bytes; they are turned back at once and the rest of the program sees
// bytes.
#include "runtime/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <utility>

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/text/unicode/utf8.h"

namespace qwen::text {
namespace {

/// A value and where it stands, for messages.
struct Node {
  const Json* json;
  const std::string* file;
  std::string pointer;

  Status Malformed(const std::string& why) const { return DataLossError(Where() + ": " + why); }
  Status Unsupported(const std::string& why, std::string hint = {}) const {
    return UnimplementedError(Where() + ": " + why, std::move(hint));
  }
  std::string Where() const { return *file + ":" + (pointer.empty() ? "/" : pointer); }

  /// The member `key`; its json is null when this has none.
  Node operator[](std::string_view key) const { return {json->Find(key), file, JsonPointer(pointer, key)}; }
  Node operator[](size_t i) const { return {&json->items()[i], file, pointer + "/" + std::to_string(i)}; }
  bool Absent() const { return json == nullptr || json->IsNull(); }
};

Status WantKind(const Node& node, Json::Kind kind, const char* name) {
  if (!node.json) return node.Malformed(std::string("is missing, want ") + name);
  if (node.json->kind() != kind) return node.Malformed(fmt::format("is {}, want {}", node.json->KindName(), name));
  return Status();
}
Status WantObject(const Node& node) { return WantKind(node, Json::Kind::kObject, "an object"); }
Status WantArray(const Node& node) { return WantKind(node, Json::Kind::kArray, "an array"); }
Status WantString(const Node& node) { return WantKind(node, Json::Kind::kString, "a string"); }

/// An object of this type whose members are all known.
Status WantPart(const Node& node, std::string_view type, std::initializer_list<std::string_view> keys) {
  QWEN_RETURN_IF_ERROR(WantObject(node));
  const Node tag = node["type"];
  QWEN_RETURN_IF_ERROR(WantString(tag));
  if (tag.json->AsString() != type)
    return tag.Unsupported(fmt::format("{} is not supported, only {} is", JsonQuote(tag.json->AsString()), type));
  for (const Json::Member& member : node.json->members())
    if (member.first != "type" && std::find(keys.begin(), keys.end(), member.first) == keys.end())
      return node[member.first].Unsupported("is not a key this build knows");
  return Status();
}

/// A boolean with the only value there is code for.
Status WantFlag(const Node& node, bool want) {
  QWEN_RETURN_IF_ERROR(WantKind(node, Json::Kind::kBool, "a boolean"));
  if (node.json->AsBool() != want) return node.Unsupported(fmt::format("{} is not supported", !want));
  return Status();
}

Status WantNull(const Node& node) {
  if (!node.Absent()) return node.Unsupported("is not supported, only null is");
  return Status();
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and up in their order.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    byte_of_.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      byte_of_[printable ? static_cast<char32_t>(byte) : next++] = static_cast<int16_t>(byte);
    }
  }

  /// False when a character is not in the alphabet.
  bool Decode(std::string_view text, std::string* bytes) const {
    bytes->clear();
    for (size_t at = 0; at < text.size();) {
      const Utf8Unit unit = DecodeUtf8(text, at);
      if (unit.code_point >= byte_of_.size() || byte_of_[unit.code_point] < 0) return false;
      *bytes += static_cast<char>(byte_of_[unit.code_point]);
      at += unit.length;
    }
    return true;
  }

 private:
  std::array<int16_t, 0x100 + 68> byte_of_;  // 68 bytes are not printable
};

class Reader {
 public:
  explicit Reader(const Node& root) : root_(root) {}

  StatusOr<Tokenizer> Read() {
    QWEN_RETURN_IF_ERROR(ReadSteps());
    QWEN_RETURN_IF_ERROR(ReadAddedTokens());
    QWEN_RETURN_IF_ERROR(ReadVocab());
    QWEN_RETURN_IF_ERROR(ReadMerges());
    return Tokenizer::FromParts(parts_, root_["model"].Where());
  }

 private:
  /// Everything but tokens and merges.
  Status ReadSteps() {
    QWEN_RETURN_IF_ERROR(WantObject(root_));
    constexpr std::string_view kKnown[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                           "pre_tokenizer", "post_processor", "decoder", "model"};
    for (const Json::Member& member : root_.json->members())
      if (std::find(std::begin(kKnown), std::end(kKnown), member.first) == std::end(kKnown))
        return root_[member.first].Unsupported("is not a key this build knows");
    if (const Node version = root_["version"]; version.json) {
      QWEN_RETURN_IF_ERROR(WantString(version));
      if (version.json->AsString() != "1.0")
        return version.Unsupported(fmt::format("is {}, this build reads \"1.0\"", JsonQuote(version.json->AsString())));
    }
    QWEN_RETURN_IF_ERROR(WantNull(root_["truncation"]));
    QWEN_RETURN_IF_ERROR(WantNull(root_["padding"]));
    const Node normalizer = root_["normalizer"];
    parts_.nfc = !normalizer.Absent();
    if (parts_.nfc) QWEN_RETURN_IF_ERROR(WantPart(normalizer, "NFC", {}));
    QWEN_RETURN_IF_ERROR(ReadPreTokenizer(root_["pre_tokenizer"]));
    // The post-processor of this type moves offsets only.
    const std::initializer_list<std::string_view> byte_level = {"add_prefix_space", "trim_offsets", "use_regex"};
    if (const Node post = root_["post_processor"]; !post.Absent())
      QWEN_RETURN_IF_ERROR(WantPart(post, "ByteLevel", byte_level));
    QWEN_RETURN_IF_ERROR(WantPart(root_["decoder"], "ByteLevel", byte_level));

    const Node model = root_["model"];
    QWEN_RETURN_IF_ERROR(WantPart(model, "BPE",
                                  {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                   "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
    QWEN_RETURN_IF_ERROR(WantNull(model["dropout"]));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const Node affix = model[key]; !affix.Absent()) {
        QWEN_RETURN_IF_ERROR(WantString(affix));
        if (!affix.json->AsString().empty())
          return affix.Unsupported(fmt::format("{} is not supported, only \"\" is", JsonQuote(affix.json->AsString())));
      }
    if (const Node ignore = model["ignore_merges"]; !ignore.Absent()) QWEN_RETURN_IF_ERROR(WantFlag(ignore, false));
    // unk_token, fuse_unk and byte_fallback are for characters without a token; every byte has one (FromParts).
    return Status();
  }

  /// Split by one of the known patterns, then bytes into the alphabet.
  Status ReadPreTokenizer(const Node& node) {
    QWEN_RETURN_IF_ERROR(WantPart(node, "Sequence", {"pretokenizers"}));
    const Node steps = node["pretokenizers"];
    QWEN_RETURN_IF_ERROR(WantArray(steps));
    if (steps.json->items().size() != 2)
      return steps.Unsupported(
          fmt::format("has {} steps, only Split and ByteLevel, 2, are supported", steps.json->items().size()));
    const Node split = steps[0], bytes = steps[1];
    QWEN_RETURN_IF_ERROR(WantPart(split, "Split", {"pattern", "behavior", "invert"}));
    QWEN_RETURN_IF_ERROR(WantString(split["behavior"]));
    if (const std::string& behavior = split["behavior"].json->AsString(); behavior != "Isolated")
      return split["behavior"].Unsupported(
          fmt::format("{} is not supported, only \"Isolated\" is", JsonQuote(behavior)));
    QWEN_RETURN_IF_ERROR(WantFlag(split["invert"], false));
    QWEN_RETURN_IF_ERROR(WantObject(split["pattern"]));
    const Node regex = split["pattern"]["Regex"];
    QWEN_RETURN_IF_ERROR(WantString(regex));
    const std::optional<Pattern> pattern = FindPattern(regex.json->AsString());
    if (!pattern)
      return regex.Unsupported(
          fmt::format("the pattern {} is not one this build has a scanner for", JsonQuote(regex.json->AsString())));
    parts_.pattern = *pattern;

    QWEN_RETURN_IF_ERROR(WantPart(bytes, "ByteLevel", {"add_prefix_space", "trim_offsets", "use_regex"}));
    QWEN_RETURN_IF_ERROR(WantFlag(bytes["add_prefix_space"], false));
    return WantFlag(bytes["use_regex"], false);
  }

  /// An id below kMaxTokens that no other token has: the table of tokens has a row for each id up to the highest.
  Status Place(const Node& node, TokenKind kind, std::string bytes) {
    QWEN_RETURN_IF_ERROR(WantKind(node, Json::Kind::kInteger, "an integer"));
    const int64_t id = node.json->AsInteger();
    if (id < 0 || id >= kMaxTokens) return node.Malformed(fmt::format("is {}, want 0 to {}", id, kMaxTokens - 1));
    if (static_cast<size_t>(id) >= parts_.tokens.size()) parts_.tokens.resize(id + 1);
    TokenizerParts::Token& token = parts_.tokens[id];
    if (token.kind != TokenKind::kNone)
      return node.Malformed(fmt::format("is {}, which is the id of {} too", id, JsonQuote(token.bytes)));
    token = {kind, std::move(bytes)};
    return Status();
  }

  Status ReadAddedTokens() {
    const Node list = root_["added_tokens"];
    if (list.Absent()) return Status();
    QWEN_RETURN_IF_ERROR(WantArray(list));
    for (size_t i = 0; i < list.json->items().size(); ++i) {
      const Node node = list[i];
      QWEN_RETURN_IF_ERROR(WantObject(node));
      const Node content = node["content"];
      QWEN_RETURN_IF_ERROR(WantString(content));
      if (content.json->AsString().empty()) return content.Malformed("is empty");
      // A match is the content as it stands: in raw text, inside of words too, without the blanks around it.
      for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"})
        QWEN_RETURN_IF_ERROR(WantFlag(node[key], false));
      QWEN_RETURN_IF_ERROR(WantKind(node["special"], Json::Kind::kBool, "a boolean"));
      const TokenKind kind = node["special"].json->AsBool() ? TokenKind::kSpecial : TokenKind::kAdded;
      const auto [first, is_new] = added_.try_emplace(content.json->AsString(), node);
      if (!is_new) return content.Malformed("repeats " + first->second.pointer + "/content");
      QWEN_RETURN_IF_ERROR(Place(node["id"], kind, content.json->AsString()));
    }
    return Status();
  }

  Status ReadVocab() {
    const Node vocab = root_["model"]["vocab"];
    QWEN_RETURN_IF_ERROR(WantObject(vocab));
    std::string bytes;
    for (const auto& [text, id] : vocab.json->members()) {
      const Node node{&id, root_.file, {}};
      if (const auto added = added_.find(text); added != added_.end()) {
        // Also an added token, whose kind and text count; it has one id.
        const Node its_id = added->second["id"];
        if (!id.IsInteger() || id.AsInteger() != its_id.json->AsInteger())
          return its_id.Malformed(
              fmt::format("is {}, but {} has another", its_id.json->AsInteger(), vocab[text].Where()));
        continue;
      }
      if (!alphabet_.Decode(text, &bytes)) return vocab[text].Unsupported("is not written in the alphabet of bytes");
      if (Status status = Place(node, TokenKind::kVocab, bytes); !status.ok())
        return Place({&id, root_.file, vocab[text].pointer}, TokenKind::kVocab, bytes);
    }
    return Status();
  }

  /// Each is a pair, or in older files its two tokens with a blank between.
  Status ReadMerges() {
    const Node merges = root_["model"]["merges"];
    QWEN_RETURN_IF_ERROR(WantArray(merges));
    const std::vector<Json>& items = merges.json->items();
    parts_.merges.resize(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      std::string_view left, right;
      if (items[i].IsString()) {
        const std::string_view both = items[i].AsString();
        const size_t blank = both.find(' ');
        left = both.substr(0, blank);
        if (blank != both.npos) right = both.substr(blank + 1);
      } else if (items[i].IsArray() && items[i].items().size() == 2 && items[i].items()[0].IsString() &&
                 items[i].items()[1].IsString()) {
        left = items[i].items()[0].AsString();
        right = items[i].items()[1].AsString();
      }
      // The alphabet has no blank, so a third token shows as a character outside of it.
      auto& [left_bytes, right_bytes] = parts_.merges[i];
      if (left.empty() || right.empty() || !alphabet_.Decode(left, &left_bytes) ||
          !alphabet_.Decode(right, &right_bytes))
        return merges[i].Malformed("is not a pair of tokens in the alphabet of bytes");
    }
    return Status();
  }

  const Node root_;
  const ByteAlphabet alphabet_;
  TokenizerParts parts_;
  std::map<std::string_view, Node> added_;  // by content
};

}  // namespace

StatusOr<Tokenizer> ParseTokenizerJson(std::string_view text, const std::string& where) {
  // Qwen3.5's file has some 1.0 million values.
  QWEN_ASSIGN_OR_RETURN(
      const Json json,
      ParseJson(text, where, {.max_bytes = kMaxTokenizerJsonBytes, .max_values = size_t{8} << 20, .max_depth = 16}));
  return Reader({&json, &where, {}}).Read();
}

StatusOr<Tokenizer> ReadTokenizerJson(const std::string& path) {
  QWEN_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxTokenizerJsonBytes));
  return ParseTokenizerJson(text, path);
}

}  // namespace qwen::text
