#include "runtime/text/jinja/marked_text.h"

#include <algorithm>
#include <cassert>

namespace qwen::text {

void MarkedText::Append(const MarkedText& other, size_t begin, size_t end) {
  assert(&other != this && begin <= end && end <= other.size());
  const size_t base = bytes_.size();
  bytes_.append(other.bytes_, begin, end - begin);
  auto run = std::partition_point(other.runs_.begin(), other.runs_.end(), [&](const Run& r) { return r.end <= begin; });
  for (; run != other.runs_.end() && run->begin < end; ++run)
    Mark(base + std::max<size_t>(run->begin, begin) - begin, base + std::min<size_t>(run->end, end) - begin,
         run->origin);
}

void MarkedText::Truncate(size_t size) {
  if (size >= bytes_.size()) return;
  bytes_.resize(size);
  while (!runs_.empty() && runs_.back().begin >= size) runs_.pop_back();
  if (!runs_.empty()) runs_.back().end = std::min(runs_.back().end, static_cast<uint32_t>(size));
}

void MarkedText::Mark(size_t begin, size_t end, Origin origin) {
  if (begin == end) return;
  if (!runs_.empty() && runs_.back().end == begin && runs_.back().origin == origin) {
    runs_.back().end = static_cast<uint32_t>(end);
  } else {
    runs_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end), origin});
  }
}

}  // namespace qwen::text
