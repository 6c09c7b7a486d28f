// Any bytes as a tokenizer.json: refused, or a tokenizer whose compiled form is read back as the same.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/text/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::text;
  const qwen::StatusOr<Tokenizer> tokenizer =
      ParseTokenizerJson({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!tokenizer.ok()) return 0;
  const qwen::StatusOr<Tokenizer> again = Tokenizer::FromBlob(tokenizer->Serialize(), "fuzz");
  if (!again.ok() || !std::ranges::equal(again->Serialize(), tokenizer->Serialize())) abort();
  constexpr std::string_view kText = "abcab <s>ab<t> don't \xFF\n";
  const EncodedText encoded = again->EncodeWithPieces(kText);
  std::string bytes;
  for (int32_t id : encoded.ids) bytes += again->Bytes(id);
  if (bytes != encoded.normalized || encoded.ids != tokenizer->Encode(kText)) abort();
  return 0;
}
