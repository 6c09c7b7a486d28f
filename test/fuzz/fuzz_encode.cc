// Any bytes as text. The first two say which pattern, what may be special, and how decoded bytes are portioned.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/text/tokenizer.h"
#include "runtime/text/unicode/nfc.h"
#include "runtime/text/utf8_stream.h"

namespace {

using namespace qwen::text;

Tokenizer Make(Pattern pattern) {
  TokenizerParts parts;
  parts.pattern = pattern;
  for (int byte = 0; byte < 256; ++byte)
    parts.tokens.push_back({TokenKind::kVocab, std::string(1, static_cast<char>(byte))});
  const std::pair<const char*, const char*> merges[] = {{"a", "b"},   {"b", "c"},   {"ab", "c"},      {"a", "bc"},
                                                        {" ", "a"},   {" a", "bc"}, {"\xCC", "\x81"}, {"a", "a"},
                                                        {"aa", "aa"}, {"\n", "\n"}, {"'", "s"}};
  for (const auto& [left, right] : merges) {
    const std::string result = std::string(left) + right;
    parts.merges.push_back({left, right});
    if (result != "abc" || parts.merges.size() == 3) parts.tokens.push_back({TokenKind::kVocab, result});
  }
  for (const char* special : {"<s>", "<s><t>", "s>"}) parts.tokens.push_back({TokenKind::kSpecial, special});
  for (const char* added : {"<t>", "><"}) parts.tokens.push_back({TokenKind::kAdded, added});
  qwen::StatusOr<Tokenizer> tokenizer = Tokenizer::FromParts(parts, "fuzz");
  if (!tokenizer.ok()) abort();
  return *std::move(tokenizer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizers[] = {Make(Pattern::kWords), Make(Pattern::kWordsWithMarks)};
  if (size < 2) return 0;
  const Tokenizer& tokenizer = tokenizers[data[0] & 1];
  const std::string_view text(reinterpret_cast<const char*>(data + 2), size - 2);

  EncodeOptions options{.parse_special = (data[0] & 2) != 0};
  std::vector<ByteRange> ranges;
  const size_t step = 1 + (data[0] >> 2);
  for (size_t at = 0; (data[1] & 1) && at + step < text.size(); at += 2 * step) ranges.push_back({at, at + step});
  options.template_ranges = ranges;

  const EncodedText encoded = tokenizer.EncodeWithPieces(text, options);
  if (encoded.ids != tokenizer.Encode(text, options)) abort();
  std::string bytes;
  size_t end = 0, tokens = 0;
  for (const EncodedText::Piece& piece : encoded.pieces) {
    if (piece.bytes.begin != end || piece.bytes.end <= end || piece.first_token != tokens || piece.tokens == 0) abort();
    end = piece.bytes.end;
    tokens += piece.tokens;
    for (size_t i = piece.first_token; i < tokens; ++i) {
      if (tokenizer.IsSpecial(encoded.ids[i]) && !options.parse_special && ranges.empty()) abort();
      bytes += tokenizer.Bytes(encoded.ids[i]);
    }
    if (bytes.size() != end) abort();
  }
  if (tokens != encoded.ids.size() || bytes != encoded.normalized) abort();

  std::string once, twice, stream_text;
  const std::string nfc(ToNfc(text, &once));
  if (ToNfc(nfc, &twice) != nfc) abort();
  // However the bytes come, the same text.
  Utf8Stream stream;
  const size_t portion = 1 + (data[1] >> 1);
  for (size_t at = 0; at < bytes.size(); at += portion)
    stream.Push(std::string_view(bytes).substr(at, portion), &stream_text);
  stream.Flush(&stream_text);
  if (stream_text != tokenizer.Decode(encoded.ids)) abort();
  return 0;
}
