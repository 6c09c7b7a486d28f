#include "runtime/plan/dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "runtime/base/json.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/layout.h"

namespace qwen::plan {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::string_view kGroupNames[] = {"model", "mtp", "draft"};
constexpr std::string_view kTransformNames[] = {"none", "one_plus", "to_f32"};
constexpr std::string_view kLayoutNames[] = {"rows", "vector", "tile16"};
constexpr std::string_view kBufferNames[] = {"arena", "cache", "weight", "input", "output"};
constexpr std::string_view kStepNames[] = {"launch", "collective"};
constexpr std::string_view kPartNames[] = {"all", "short", "long", "logit_rows"};
constexpr std::string_view kBlobNames[] = {"ir", "config", "tokenizer", "template", "generation_config", "ptx"};
constexpr std::string_view kCountNames[] = {"one", "rows", "seqs", "short_seqs", "long_seqs"};

template <class Enum, size_t N>
std::string Name(const std::string_view (&names)[N], Enum value) {
  return std::string(names[static_cast<size_t>(value)]);
}

std::string Hex(uint64_t value) { return fmt::format("{:016x}", value); }

/// "12.3 M": a count with its thousands cut off.
std::string Short(double count) {
  for (const auto& [limit, unit] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}})
    if (count >= limit) return fmt::format("{:.1f} {}", count / limit, unit);
  return fmt::format("{:.0f}", count);
}

// --- JSON as text ----------------------------------------------------------------------------------------------------

constexpr size_t kLineWidth = 160;  // a step fits

/// Indented, but what fits on a line stays on one: a step, a shape, a slice.
void Print(const OrderedJson& value, size_t indent, std::string* out) {
  std::string line = value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  const bool nested = value.is_structured() && !value.empty();
  if (!nested || indent + line.size() <= kLineWidth) {
    // "a":1,"b":2 with a blank behind each comma and colon, outside of strings.
    bool quoted = false;
    for (size_t i = 0; i < line.size(); ++i) {
      *out += line[i];
      if (line[i] == '\\')
        *out += line[++i];
      else if (line[i] == '"')
        quoted = !quoted;
      else if (!quoted && (line[i] == ',' || line[i] == ':'))
        *out += ' ';
    }
    return;
  }
  const bool object = value.is_object();
  *out += object ? "{\n" : "[\n";
  bool first = true;
  for (auto it = value.begin(); it != value.end(); ++it) {
    if (!first) *out += ",\n";
    first = false;
    out->append(indent + 2, ' ');
    if (object) *out += OrderedJson(it.key()).dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + ": ";
    Print(*it, indent + 2, out);
  }
  *out += "\n";
  out->append(indent, ' ');
  *out += object ? "}" : "]";
}

std::string Text(const OrderedJson& value) {
  std::string out;
  Print(value, 0, &out);
  return out + "\n";
}

// --- The plan as a tree ----------------------------------------------------------------------------------------------

OrderedJson ToJson(const Model& m) {
  return {{"family", m.family},
          {"dtype", DTypeName(m.dtype)},
          {"hidden", m.hidden},
          {"layers", m.layers},
          {"vocab", m.vocab},
          {"max_model_len", m.max_model_len},
          {"eos_ids", m.eos_ids},
          {"prefixes", m.prefixes},
          {"weights_dir", m.weights_dir}};
}

OrderedJson ToJson(const Capacity& c) {
  return {{"max_num_seqs", c.max_num_seqs},
          {"max_num_batched_tokens", c.max_num_batched_tokens},
          {"max_rows", c.max_rows},
          {"max_logit_rows", c.max_logit_rows}};
}

OrderedJson SpecJson(const Fields& fields) {
  OrderedJson spec = OrderedJson::object();
  for (const Field& field : fields) {
    switch (field.kind) {
      case Field::Kind::kInt:
        spec[field.name] = field.ints.at(0);
        break;
      case Field::Kind::kReal:
        spec[field.name] = field.reals.at(0);
        break;
      case Field::Kind::kInts:
        spec[field.name] = field.ints;
        break;
      case Field::Kind::kReals:
        spec[field.name] = field.reals;
        break;
    }
  }
  return spec;
}

OrderedJson ToJson(const Kernel& k) {
  OrderedJson json = {
      {"name", k.name}, {"family", k.family}, {"entry", k.entry}, {"target", k.target}, {"spec", SpecJson(k.spec)}};
  if (k.ptx < 0) return json;
  json["ptx"] = k.ptx;
  json["threads"] = k.launch.threads;
  json["shared_bytes"] = k.launch.shared_bytes;
  for (const GridDim& dim : k.launch.grid)
    json["grid"].push_back(
        {{"count", Name(kCountNames, dim.count)}, {"mul", dim.mul}, {"div", dim.div}, {"max", dim.max}});
  return json;
}

OrderedJson ToJson(const Piece& p) {
  return {{"tensor", p.tensor},
          {"e_count", p.e_count},
          {"dtypes", p.dtypes},
          {"shape", p.shape},
          {"view_rows", p.view_rows},
          {"view_cols", p.view_cols},
          {"src_row", p.src_row},
          {"src_col", p.src_col},
          {"rows", p.rows},
          {"cols", p.cols},
          {"dst_row", p.dst_row},
          {"dst_col", p.dst_col},
          {"dst_row_step", p.dst_row_step}};
}

OrderedJson ToJson(const Plan& plan, const Weight& w) {
  OrderedJson alternatives = OrderedJson::array();
  for (const Alternative& alternative : w.alternatives) {
    OrderedJson pieces = OrderedJson::array();
    for (const Piece& piece : alternative.pieces) pieces.push_back(ToJson(piece));
    alternatives.push_back(std::move(pieces));
  }
  OrderedJson alias;
  if (w.alias >= 0) alias = plan.weights[w.alias].name;
  return {{"name", w.name},
          {"scheme", w.scheme},
          {"dtype", DTypeName(w.dtype)},
          {"shape", w.shape},
          {"group", Name(kGroupNames, w.group)},
          {"transform", Name(kTransformNames, w.transform)},
          {"alias", alias},
          {"alternatives", alternatives}};
}

OrderedJson ToJson(const Plan& plan, const Packed& p) {
  OrderedJson slices = OrderedJson::array();
  for (const std::vector<Range>& list : p.slices) {
    OrderedJson ranges = OrderedJson::array();
    for (const Range& range : list) ranges.push_back({range.begin, range.end});
    slices.push_back(std::move(ranges));
  }
  return {{"weight", plan.weights[p.weight].name},
          {"rank", p.rank},
          {"layout", Name(kLayoutNames, p.layout)},
          {"slices", slices},
          {"bytes", p.bytes},
          {"net_bytes", p.net_bytes}};
}

OrderedJson ToJson(const Buffer& b) {
  return {{"name", b.name},   {"kind", Name(kBufferNames, b.kind)}, {"index", b.index}, {"offset", b.offset},
          {"bytes", b.bytes}, {"dtype", DTypeName(b.dtype)},        {"shape", b.shape}};
}

OrderedJson ToJson(const Plan& plan, const Step& s) {
  return {{"kind", Name(kStepNames, s.kind)},
          {"kernel", plan.kernels[s.kernel].name},
          {"args", s.args},
          {"part", Name(kPartNames, s.part)},
          {"waits", s.waits},
          {"bytes", s.bytes},
          {"flops", s.flops},
          {"origin", s.origin}};
}

OrderedJson ProgramHead(const Program& p) {
  return {{"name", p.name},
          {"target", p.target},
          {"rank", p.rank},
          {"max_rows", p.max_rows},
          {"arena_bytes", p.arena_bytes},
          {"scratch_bytes", p.scratch_bytes},
          {"shared_bytes", p.shared_bytes}};
}

OrderedJson ToJson(const Plan& plan, const Program& p) {
  OrderedJson json = ProgramHead(p);
  auto ports = [](const std::vector<Port>& list) {
    OrderedJson out = OrderedJson::array();
    for (const Port& port : list) out.push_back({{"name", port.name}, {"buffer", port.buffer}});
    return out;
  };
  json["inputs"] = ports(p.inputs);
  json["outputs"] = ports(p.outputs);
  json["buffers"] = OrderedJson::array();
  for (const Buffer& buffer : p.buffers) json["buffers"].push_back(ToJson(buffer));
  json["steps"] = OrderedJson::array();
  for (const Step& step : p.steps) json["steps"].push_back(ToJson(plan, step));
  return json;
}

OrderedJson ToJson(const State& s) {
  OrderedJson kv = OrderedJson::array(), delta = OrderedJson::array();
  for (const KvLayer& l : s.kv_layers)
    kv.push_back({{"name", l.name},
                  {"offset", l.offset},
                  {"bytes", KvLayerBytes(l)},
                  {"kv_heads", l.kv_heads},
                  {"head_dim", l.head_dim},
                  {"dtype", DTypeName(l.dtype)}});
  for (const DeltaLayer& l : s.delta_layers)
    delta.push_back({{"name", l.name},
                     {"offset", l.offset},
                     {"bytes", DeltaLayerBytes(l, s.ring_rows, s.conv_rows).bytes()},
                     {"key_heads", l.key_heads},
                     {"value_heads", l.value_heads},
                     {"key_dim", l.key_dim},
                     {"value_dim", l.value_dim},
                     {"width", l.width},
                     {"dtype", DTypeName(l.dtype)}});
  return {{"max_rows", s.max_rows},
          {"fold_rows", s.fold_rows},
          {"ring_rows", s.ring_rows},
          {"conv_rows", s.conv_rows},
          {"page_tokens", kPageTokens},
          {"page_bytes", s.page_bytes},
          {"slot_bytes", s.slot_bytes},
          {"base_bytes", s.base_bytes},
          {"ring_bytes", s.ring_bytes},
          {"conv_bytes", s.conv_bytes},
          {"kv_layers", kv},
          {"delta_layers", delta}};
}

OrderedJson ToJson(const Blob& b) {
  return {{"kind", Name(kBlobNames, b.kind)}, {"bytes", b.bytes.size()}, {"xxh3", Hex(Xxh3(b.bytes))}};
}

// --- Tables ----------------------------------------------------------------------------------------------------------

/// Columns as wide as their widest cell, two blanks apart; numbers right.
class Table {
 public:
  explicit Table(std::vector<std::pair<std::string, bool>> columns) {
    std::vector<std::string> head;
    for (auto& [name, right] : columns) {
      head.push_back(name);
      right_.push_back(right);
    }
    Add(std::move(head));
  }
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Text() const {
    std::vector<size_t> widths(right_.size());
    for (const auto& row : rows_)
      for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
    std::string out;
    for (const auto& row : rows_) {
      std::string line;
      for (size_t c = 0; c < row.size(); ++c) {
        const std::string padding(widths[c] - row[c].size(), ' ');
        line += (c ? "  " : "") + (right_[c] ? padding + row[c] : row[c] + padding);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
    return out;
  }

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

std::string LayerOf(const std::string& origin) {
  // "layers.3.gdn.in" and "layers.3" are layer 3, "mtp.layers.0.attn.in" is the MTP head's.
  size_t at = origin.rfind("layers.", 0) == 0 ? 0 : origin.find(".layers.");
  if (at == std::string::npos) return origin.substr(0, origin.find('.'));
  at = origin.find("layers.", at) + std::string_view("layers.").size();
  return origin.substr(0, origin.find('.', at));
}

bool InLayer(const std::string& layer) { return layer.find("layers.") != std::string::npos; }

int MostBarriers(const std::vector<LayerBarriers>& barriers) {
  int most = 0;
  for (const LayerBarriers& b : barriers)
    if (InLayer(b.layer)) most = std::max(most, b.barriers);
  return most;
}

struct Floor {
  std::vector<double> seconds;  // by step
  double total = 0;
  int64_t bytes = 0, flops = 0;
};

Floor FloorOf(const Program& program, const StepsOptions& options) {
  Floor floor;
  double bytes = 0, flops = 0;
  for (const Step& step : program.steps) {
    // A decode token meets no long part.
    const bool counts = step.part != Part::kLong;
    const double seconds = std::max(static_cast<double>(step.bytes) / options.bytes_per_second,
                                    static_cast<double>(step.flops) / options.flops_per_second);
    floor.seconds.push_back(counts ? seconds : 0);
    floor.total += floor.seconds.back();
    if (counts) bytes += static_cast<double>(step.bytes), flops += static_cast<double>(step.flops);
  }
  constexpr double kMost = 9e18;  // below the largest integer
  floor.bytes = static_cast<int64_t>(std::min(bytes, kMost));
  floor.flops = static_cast<int64_t>(std::min(flops, kMost));
  return floor;
}

double Share(double part, double all) { return all > 0 ? part / all : 0; }

std::vector<const Program*> Chosen(const Plan& plan, const StepsOptions& options) {
  std::vector<const Program*> programs;
  for (const Program& program : plan.programs)
    if ((options.program.empty() || program.name == options.program) &&
        (options.rank < 0 || program.rank == options.rank))
      programs.push_back(&program);
  return programs;
}

std::vector<std::pair<std::string, int>> StepsByFamily(const Plan& plan, const Program& program) {
  std::map<std::string, int> count;
  for (const Step& step : program.steps) ++count[plan.kernels[step.kernel].family];
  return {count.begin(), count.end()};
}

std::string SpecText(const Fields& fields) {
  std::string text;
  for (const Field& field : fields) {
    const bool real = field.kind == Field::Kind::kReal || field.kind == Field::Kind::kReals;
    const size_t count = real ? field.reals.size() : field.ints.size();
    text += fmt::format("{}{}=", text.empty() ? "" : " ", field.name);
    // The head map and the frequencies of attention are long; JSON has all of them.
    for (size_t i = 0; i < std::min<size_t>(count, 8); ++i)
      text += (i ? "," : "") + (real ? fmt::format("{:g}", field.reals[i]) : fmt::format("{}", field.ints[i]));
    if (count > 8) text += fmt::format(",... ({})", count);
  }
  return text;
}

std::vector<int> UsesOf(const Plan& plan) {
  std::vector<int> uses(plan.kernels.size());
  for (const Program& program : plan.programs)
    for (const Step& step : program.steps) ++uses[step.kernel];
  return uses;
}

}  // namespace

std::string DumpJson(const Plan& plan) {
  OrderedJson json = {{"version", kPlanVersion},     {"producer", plan.producer},
                      {"digest", Hex(plan.digest)},  {"weights_digest", Hex(plan.weights_digest)},
                      {"model", ToJson(plan.model)}, {"capacity", ToJson(plan.capacity)},
                      {"targets", plan.targets},     {"tp", plan.tp}};
  auto list = [&](const char* key, const auto& items, auto make) {
    json[key] = OrderedJson::array();
    for (const auto& item : items) json[key].push_back(make(item));
  };
  list("kernels", plan.kernels, [](const Kernel& k) { return ToJson(k); });
  list("weights", plan.weights, [&](const Weight& w) { return ToJson(plan, w); });
  list("packed", plan.packed, [&](const Packed& p) { return ToJson(plan, p); });
  list("programs", plan.programs, [&](const Program& p) { return ToJson(plan, p); });
  list("states", plan.states, [](const State& s) { return ToJson(s); });
  list("blobs", plan.blobs, [](const Blob& b) { return ToJson(b); });
  return Text(json);
}

std::string DumpSummary(const Plan& plan) {
  const Model& m = plan.model;
  const Capacity& c = plan.capacity;
  std::string out;
  auto line = [&out](const char* what, const std::string& text) { out += fmt::format("{:<11}{}\n", what, text); };
  line("plan", fmt::format("version {}, {}, digest {}", kPlanVersion, plan.producer, Hex(plan.digest)));
  line("model", fmt::format("{} {}, {} layers, hidden {}, vocab {}, up to {} tokens", m.family, DTypeName(m.dtype),
                            m.layers, m.hidden, m.vocab, m.max_model_len));
  line("weights", fmt::format("{} in {}, digest {}", plan.weights.size(),
                              JsonQuote(m.weights_dir.empty() ? "." : m.weights_dir), Hex(plan.weights_digest)));
  line("capacity", fmt::format("{} sequences, {} tokens, {} logit rows, {} rows a short sequence", c.max_num_seqs,
                               c.max_num_batched_tokens,
                               c.max_logit_rows > 0 ? c.max_logit_rows : c.max_num_batched_tokens, c.max_rows));
  line("targets", fmt::format("{}; {} rank{}", fmt::join(plan.targets, ", "), plan.tp, plan.tp == 1 ? "" : "s"));
  for (size_t rank = 0; rank < plan.states.size(); ++rank) {
    const State& s = plan.states[rank];
    line("state",
         fmt::format("rank {}: page {} of {} tokens in {} layers, slot {} in {} layers", rank, HumanBytes(s.page_bytes),
                     kPageTokens, s.kv_layers.size(), HumanBytes(s.slot_bytes), s.delta_layers.size()));
  }
  for (const Blob& b : plan.blobs)
    line("blob", fmt::format("{}, {}", Name(kBlobNames, b.kind), HumanBytes(static_cast<int64_t>(b.bytes.size()))));

  Table programs({{"program", false},
                  {"target", false},
                  {"rank", true},
                  {"steps", true},
                  {"barriers a layer", true},
                  {"arena", true},
                  {"scratch a thread", true},
                  {"shared", true}});
  for (const Program& p : plan.programs)
    programs.Add({p.name, p.target, std::to_string(p.rank), std::to_string(p.steps.size()),
                  std::to_string(MostBarriers(CountBarriers(plan, p))), HumanBytes(p.arena_bytes),
                  HumanBytes(p.scratch_bytes), HumanBytes(p.shared_bytes)});
  out += "\n" + programs.Text();

  std::map<std::pair<std::string, std::string>, std::pair<int, int>> families;  // records, steps
  const std::vector<int> uses = UsesOf(plan);
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    auto& [records, steps] = families[{plan.kernels[i].target, plan.kernels[i].family}];
    ++records;
    steps += uses[i];
  }
  Table kernels({{"family", false}, {"target", false}, {"kernels", true}, {"steps", true}});
  for (const auto& [key, count] : families)
    kernels.Add({key.second, key.first, std::to_string(count.first), std::to_string(count.second)});
  out += "\n" + kernels.Text();

  Table ranks({{"rank", true}, {"packed weights", true}, {"bytes", true}, {"without padding", true}});
  for (int32_t rank = 0; rank < plan.tp; ++rank) {
    int64_t count = 0, bytes = 0, net = 0;
    for (const Packed& p : plan.packed)
      if (p.rank == rank) ++count, bytes = AddBytes(bytes, p.bytes), net = AddBytes(net, p.net_bytes);
    ranks.Add({std::to_string(rank), std::to_string(count), HumanBytes(bytes), HumanBytes(net)});
  }
  return out + "\n" + ranks.Text();
}

std::vector<LayerBarriers> CountBarriers(const Plan& plan, const Program& program) {
  std::vector<LayerBarriers> result;
  std::unordered_map<std::string, size_t> index;
  bool waiting = false;
  for (const Step& step : program.steps) {
    auto [it, inserted] = index.try_emplace(LayerOf(step.origin), result.size());
    if (inserted) result.push_back({it->first, 0});
    waiting |= step.waits || step.kind == StepKind::kCollective;
    // The barrier in front of a long step is also the one of a short step beside it.
    if (step.part == Part::kLong || !waiting) continue;
    ++result[it->second].barriers;
    waiting = false;
  }
  return result;
}

std::string DumpSteps(const Plan& plan, const StepsOptions& options) {
  std::string out;
  for (const Program* program : Chosen(plan, options)) {
    const Floor floor = FloorOf(*program, options);
    if (!out.empty()) out += "\n";
    out += fmt::format("program {}, {}, rank {}: {} steps; a decode token moves {} and takes {} flops", program->name,
                       program->target, program->rank, program->steps.size(), HumanBytes(floor.bytes),
                       Short(static_cast<double>(floor.flops)));
    out += fmt::format("\nfloor at {:.1f} GB/s and {:.1f} Gflop/s: {:.1f} us\n", options.bytes_per_second / 1e9,
                       options.flops_per_second / 1e9, floor.total * 1e6);
    Table table({{"step", true},
                 {"", false},
                 {"part", false},
                 {"origin", false},
                 {"kernel", false},
                 {"bytes", true},
                 {"flops", true},
                 {"floor us", true},
                 {"share", true}});
    for (size_t i = 0; i < program->steps.size(); ++i) {
      const Step& step = program->steps[i];
      const char* mark = step.kind == StepKind::kCollective ? "=" : step.waits ? "|" : "";
      table.Add({std::to_string(i), mark, Name(kPartNames, step.part), step.origin, plan.kernels[step.kernel].name,
                 HumanBytes(step.bytes), Short(static_cast<double>(step.flops)),
                 fmt::format("{:.2f}", floor.seconds[i] * 1e6),
                 fmt::format("{:.1f}%", 100 * Share(floor.seconds[i], floor.total))});
    }
    out += table.Text();
    out += "| waits for a barrier, = meets the other ranks\nsteps by family:";
    for (const auto& [family, count] : StepsByFamily(plan, *program)) out += fmt::format(" {} {}", family, count);
    const std::vector<LayerBarriers> barriers = CountBarriers(plan, *program);
    out += fmt::format("\nbarriers: at most {} a layer;", MostBarriers(barriers));
    for (const LayerBarriers& b : barriers) out += fmt::format(" {} {}", b.layer, b.barriers);
    out += "\n";
  }
  return out;
}

std::string DumpStepsJson(const Plan& plan, const StepsOptions& options) {
  OrderedJson programs = OrderedJson::array();
  for (const Program* program : Chosen(plan, options)) {
    const Floor floor = FloorOf(*program, options);
    OrderedJson steps = OrderedJson::array();
    for (size_t i = 0; i < program->steps.size(); ++i) {
      const Step& step = program->steps[i];
      const Kernel& kernel = plan.kernels[step.kernel];
      steps.push_back({{"step", i},
                       {"kind", Name(kStepNames, step.kind)},
                       {"kernel", kernel.name},
                       {"family", kernel.family},
                       {"origin", step.origin},
                       {"part", Name(kPartNames, step.part)},
                       {"waits", step.waits},
                       {"bytes", step.bytes},
                       {"flops", step.flops},
                       {"floor_us", floor.seconds[i] * 1e6},
                       {"share", Share(floor.seconds[i], floor.total)}});
    }
    OrderedJson families = OrderedJson::object(), barriers = OrderedJson::object();
    for (const auto& [family, count] : StepsByFamily(plan, *program)) families[family] = count;
    const std::vector<LayerBarriers> layers = CountBarriers(plan, *program);
    for (const LayerBarriers& b : layers) barriers[b.layer] = b.barriers;
    programs.push_back({{"program", program->name},
                        {"target", program->target},
                        {"rank", program->rank},
                        {"bytes", floor.bytes},
                        {"flops", floor.flops},
                        {"floor_us", floor.total * 1e6},
                        {"steps_by_family", families},
                        {"max_layer_barriers", MostBarriers(layers)},
                        {"barriers", barriers},
                        {"steps", steps}});
  }
  return Text({{"bytes_per_second", options.bytes_per_second},
               {"flops_per_second", options.flops_per_second},
               {"programs", programs}});
}

std::string DumpKernels(const Plan& plan, std::span<const KernelOnCard> cards) {
  const std::vector<int> uses = UsesOf(plan);
  Table table({{"family", false}, {"entry", false}, {"target", false}, {"steps", true}, {"spec", false}});
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const Kernel& k = plan.kernels[i];
    table.Add({k.family, k.entry, k.target, std::to_string(uses[i]), SpecText(k.spec)});
  }
  if (cards.empty()) return table.Text();
  Table figures({{"kernel", false},
                 {"threads", true},
                 {"registers", true},
                 {"spills", true},
                 {"stack", true},
                 {"shared", true},
                 {"blocks/SM", true},
                 {"occupancy", true},
                 {"bytes", true},
                 {"flops", true},
                 {"floor us", true}});
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const Kernel& k = plan.kernels[i];
    if (k.ptx < 0) continue;
    const KernelOnCard& c = cards[i];
    const auto known = [&](std::string text) { return c.registers < 0 ? std::string("-") : text; };
    figures.Add({k.name, std::to_string(k.launch.threads), known(std::to_string(c.registers)),
                 known(std::to_string(c.spill_bytes)), known(std::to_string(c.stack_bytes)),
                 known(std::to_string(c.shared_bytes)), known(std::to_string(c.blocks)),
                 known(fmt::format("{:.0f}%", 100 * c.occupancy)), HumanBytes(c.bytes),
                 Short(static_cast<double>(c.flops)), fmt::format("{:.2f}", c.floor_us)});
  }
  return table.Text() + "\n" + figures.Text();
}

std::string DumpKernelsJson(const Plan& plan, std::span<const KernelOnCard> cards) {
  const std::vector<int> uses = UsesOf(plan);
  OrderedJson kernels = OrderedJson::array();
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    OrderedJson kernel = ToJson(plan.kernels[i]);
    kernel["steps"] = uses[i];
    if (!cards.empty() && plan.kernels[i].ptx >= 0) {
      const KernelOnCard& c = cards[i];
      if (c.registers >= 0) {
        kernel["registers"] = c.registers;
        kernel["spill_bytes"] = c.spill_bytes;
        kernel["stack_bytes"] = c.stack_bytes;
        kernel["block_shared_bytes"] = c.shared_bytes;
        kernel["blocks_per_multiprocessor"] = c.blocks;
        kernel["occupancy"] = c.occupancy;
      }
      kernel["bytes"] = c.bytes;
      kernel["flops"] = c.flops;
      kernel["floor_us"] = c.floor_us;
    }
    kernels.push_back(std::move(kernel));
  }
  return Text({{"kernels", kernels}});
}

namespace {

OrderedJson ReplicatedJson(const Plan& plan) {
  OrderedJson list = OrderedJson::array();
  for (const Replicated& r : ReplicatedWeights(plan))
    list.push_back({{"weight", r.weight},
                    {"layout", Name(kLayoutNames, r.layout)},
                    {"net_bytes", r.net_bytes},
                    {"distinct_bytes", r.distinct_bytes},
                    {"net_bytes_by_rank", r.by_rank}});
  return list;
}

/// The rows of the statement that every rank has, in its order.
std::vector<std::pair<const char*, int64_t>> RankRows(const RankMemory& m) {
  return {{"weights_bytes", m.weights_bytes},
          {"weights_net_bytes", m.weights_net_bytes},
          {"weights_shared_bytes", m.weights_shared_bytes},
          {"weights_mapped_bytes", m.weights_mapped_bytes},
          {"arena_bytes", m.arena_bytes},
          {"workspace_bytes", m.workspace_bytes},
          {"output_bytes", m.output_bytes},
          {"page_bytes", m.page_bytes},
          {"slot_bytes", m.slot_bytes},
          {"base_bytes", m.base_bytes},
          {"ring_bytes", m.ring_bytes},
          {"conv_bytes", m.conv_bytes},
          {"snapshot_bytes", m.snapshot_bytes},
          {"kernel_bytes", m.kernel_bytes}};
}

}  // namespace

std::string DumpMemory(const Plan& plan, const MemoryOptions& options) {
  std::string out;
  for (const std::string& target : plan.targets) {
    const MemoryStatement s = StateMemory(plan, target, options);
    out += fmt::format("target {}, {} thread{} a rank\n", target, s.threads, s.threads == 1 ? "" : "s");
    std::vector<std::pair<std::string, bool>> columns = {{"", false}};
    for (const RankMemory& m : s.ranks) columns.emplace_back(fmt::format("rank {}", m.rank), true);
    Table table(columns);
    std::vector<std::vector<std::string>> rows;
    for (const RankMemory& m : s.ranks) {
      const auto cells = RankRows(m);
      if (rows.empty())
        for (const auto& [name, bytes] : cells) rows.push_back({name});
      for (size_t i = 0; i < cells.size(); ++i) rows[i].push_back(HumanBytes(cells[i].second));
    }
    for (std::vector<std::string>& row : rows) table.Add(std::move(row));
    out += table.Text();
    out += fmt::format("batch_bytes {}, text_bytes {}, runtime_bytes {}, snapshots {}\n", HumanBytes(s.batch_bytes),
                       HumanBytes(s.text_bytes), HumanBytes(s.runtime_bytes), HumanBytes(s.snapshot_bytes));
    out += fmt::format("without pages and slots {}; with {} slots and {} pages, {} sequences of {} tokens, {}\n",
                       HumanBytes(s.fixed_bytes), s.num_slots, s.num_pages, s.max_num_seqs, s.max_model_len,
                       HumanBytes(s.total_bytes));
    int64_t page = 0, slot = 0, snapshot = 0;
    for (const RankMemory& m : s.ranks)
      page = AddBytes(page, m.page_bytes), slot = AddBytes(slot, m.slot_bytes),
      snapshot = AddBytes(snapshot, m.snapshot_bytes);
    out += fmt::format("a token takes {} of KV cache, a sequence {} of recurrent state, a snapshot up to {}\n",
                       HumanBytes(page / s.page_tokens), HumanBytes(slot), HumanBytes(snapshot));
    if (s.fit && !s.fit->fits)
      out += fmt::format("{} do not hold {} slots: with them it is {}\n", HumanBytes(options.memory_bytes),
                         s.num_slots, HumanBytes(s.fit->least_bytes));
    if (s.fit && s.fit->fits)
      out += fmt::format("{} hold {} slots and {} pages, {} tokens; or {} sequences of {} tokens\n",
                         HumanBytes(options.memory_bytes), s.num_slots, s.fit->pages, s.fit->tokens,
                         s.fit->sequences, s.max_model_len);
  }
  const std::vector<Replicated> replicated = ReplicatedWeights(plan);
  if (replicated.empty()) return out;
  int64_t extra = 0;
  Table table(
      {{"replicated weight", false}, {"layout", false}, {"kept", true}, {"distinct", true}, {"by rank", false}});
  for (const Replicated& r : replicated) {
    extra = AddBytes(extra, r.net_bytes - r.distinct_bytes);
    std::vector<std::string> by_rank;
    for (int64_t bytes : r.by_rank) by_rank.push_back(HumanBytes(bytes));
    table.Add({r.weight, Name(kLayoutNames, r.layout), HumanBytes(r.net_bytes), HumanBytes(r.distinct_bytes),
               fmt::format("{}", fmt::join(by_rank, ", "))});
  }
  return out + "\n" + table.Text() + fmt::format("replicas take {}\n", HumanBytes(extra));
}

std::string DumpMemoryJson(const Plan& plan, const MemoryOptions& options) {
  OrderedJson targets = OrderedJson::array();
  for (const std::string& target : plan.targets) {
    const MemoryStatement s = StateMemory(plan, target, options);
    OrderedJson ranks = OrderedJson::array();
    for (const RankMemory& m : s.ranks) {
      OrderedJson rank = {{"rank", m.rank}};
      for (const auto& [name, bytes] : RankRows(m)) rank[name] = bytes;
      ranks.push_back(std::move(rank));
    }
    OrderedJson statement = {{"target", target},
                             {"threads", s.threads},
                             {"page_tokens", s.page_tokens},
                             {"max_num_seqs", s.max_num_seqs},
                             {"max_model_len", s.max_model_len},
                             {"num_slots", s.num_slots},
                             {"num_pages", s.num_pages},
                             {"batch_bytes", s.batch_bytes},
                             {"text_bytes", s.text_bytes},
                             {"runtime_bytes", s.runtime_bytes},
                             {"snapshot_bytes", s.snapshot_bytes},
                             {"fixed_bytes", s.fixed_bytes},
                             {"total_bytes", s.total_bytes},
                             {"ranks", ranks}};
    if (s.fit)
      statement["fit"] = {{"memory_bytes", options.memory_bytes},
                          {"least_bytes", s.fit->least_bytes},
                          {"total_bytes", s.fit->total_bytes},
                          {"fits", s.fit->fits},
                          {"pages", s.fit->pages},
                          {"tokens", s.fit->tokens},
                          {"sequences", s.fit->sequences}};
    targets.push_back(std::move(statement));
  }
  return Text({{"targets", targets}, {"replicated", ReplicatedJson(plan)}});
}

// --- Differences -----------------------------------------------------------------------------------------------------

namespace {

// Sorted keys: found in log n, and the order of the lines does not depend on the plans.
using Tree = nlohmann::json;

/// `key`, and from its second time on `key #2` and so on.
class Occurrences {
 public:
  std::string operator()(const std::string& key) {
    const int n = ++seen_[key];
    return n == 1 ? key : fmt::format("{} #{}", key, n);
  }

 private:
  std::unordered_map<std::string, int> seen_;
};

/// An object of `items` under the names that `key` gives; `value` is their tree without that name.
template <class Items, class Key, class Value>
Tree Keyed(const Items& items, Key key, Value value) {
  Tree tree = Tree::object();
  Occurrences unique;
  for (const auto& item : items) tree[unique(key(item))] = Tree(value(item));
  return tree;
}

/// Numbers that refer to other entries are left out or become names: an entry more would change them all.
Tree ProgramTree(const Plan& plan, const Program& p) {
  Tree tree(ProgramHead(p));
  std::vector<std::string> names;
  Occurrences unique;
  for (const Buffer& b : p.buffers) names.push_back(unique(b.name));
  auto name_of = [&](int32_t buffer) { return buffer < 0 ? Tree() : Tree(names[buffer]); };
  Tree buffers = Tree::object();
  for (size_t i = 0; i < p.buffers.size(); ++i) {
    Tree buffer(ToJson(p.buffers[i]));
    buffer.erase("index");
    if (p.buffers[i].kind == BufferKind::kWeight) {
      const Packed& packed = plan.packed[p.buffers[i].index];
      buffer["weight"] = fmt::format("{} {}", plan.weights[packed.weight].name, Name(kLayoutNames, packed.layout));
    }
    buffers[names[i]] = std::move(buffer);
  }
  tree["buffers"] = std::move(buffers);
  auto ports = [&](const std::vector<Port>& list) {
    return Keyed(
        list, [](const Port& port) { return port.name; }, [&](const Port& port) { return name_of(port.buffer); });
  };
  tree["inputs"] = ports(p.inputs);
  tree["outputs"] = ports(p.outputs);
  tree["steps"] = Keyed(
      p.steps, [&](const Step& s) { return s.origin + " " + plan.kernels[s.kernel].entry; },
      [&](const Step& s) {
        Tree step(ToJson(plan, s));
        step["args"] = Tree::array();
        for (int32_t arg : s.args) step["args"].push_back(name_of(arg));
        return step;
      });
  return tree;
}

Tree PlanTree(const Plan& plan) {
  Tree tree = {{"producer", plan.producer},
               {"model", Tree(ToJson(plan.model))},
               {"capacity", Tree(ToJson(plan.capacity))},
               {"targets", plan.targets},
               {"tp", plan.tp}};
  tree["kernels"] =
      Keyed(plan.kernels, [](const Kernel& k) { return k.name; }, [](const Kernel& k) { return ToJson(k); });
  tree["weights"] =
      Keyed(plan.weights, [](const Weight& w) { return w.name; }, [&](const Weight& w) { return ToJson(plan, w); });
  tree["packed"] = Keyed(
      plan.packed,
      [&](const Packed& p) {
        return fmt::format("{} {} rank {}", plan.weights[p.weight].name, Name(kLayoutNames, p.layout), p.rank);
      },
      [&](const Packed& p) { return ToJson(plan, p); });
  tree["programs"] = Keyed(
      plan.programs, [](const Program& p) { return fmt::format("{} {} rank {}", p.name, p.target, p.rank); },
      [&](const Program& p) { return ProgramTree(plan, p); });
  tree["states"] = Keyed(
      plan.states, [&](const State& s) { return fmt::format("rank {}", &s - plan.states.data()); },
      [](const State& s) { return ToJson(s); });
  tree["blobs"] = Keyed(
      plan.blobs, [](const Blob& b) { return Name(kBlobNames, b.kind); }, [](const Blob& b) { return ToJson(b); });
  return tree;
}

struct Difference {
  std::string path;
  const Tree* a;  // null: only in b
  const Tree* b;
};

void Compare(const std::string& path, const Tree& a, const Tree& b, std::vector<Difference>* out) {
  if (!a.is_object() || !b.is_object()) {
    if (a != b) out->push_back({path, &a, &b});
    return;
  }
  std::set<std::string> keys;
  for (const auto& [key, value] : a.items()) keys.insert(key);
  for (const auto& [key, value] : b.items()) keys.insert(key);
  for (const std::string& key : keys) {
    const std::string below = path.empty() ? key : path + "/" + key;
    auto in_a = a.find(key), in_b = b.find(key);
    if (in_a == a.end()) {
      out->push_back({below, nullptr, &*in_b});
    } else if (in_b == b.end()) {
      out->push_back({below, &*in_a, nullptr});
    } else {
      Compare(below, *in_a, *in_b, out);
    }
  }
}

/// The programs that hold the same steps in another order, which a comparison by key does not see.
std::vector<std::string> Reordered(const Plan& a, const Plan& b) {
  auto keys = [](const Plan& plan, const Program& p) {
    std::vector<std::string> list;
    for (const Step& s : p.steps) list.push_back(s.origin + " " + plan.kernels[s.kernel].entry);
    return list;
  };
  std::vector<std::string> result;
  for (const Program& p : a.programs)
    for (const Program& q : b.programs) {
      if (p.name != q.name || p.target != q.target || p.rank != q.rank) continue;
      std::vector<std::string> in_a = keys(a, p), in_b = keys(b, q);
      if (in_a == in_b) continue;
      std::sort(in_a.begin(), in_a.end());
      std::sort(in_b.begin(), in_b.end());
      if (in_a == in_b) result.push_back(fmt::format("programs/{} {} rank {}/steps", p.name, p.target, p.rank));
    }
  return result;
}

}  // namespace

std::string Diff(const Plan& a, const Plan& b) {
  const Tree tree_a = PlanTree(a), tree_b = PlanTree(b);
  std::vector<Difference> differences;
  Compare("", tree_a, tree_b, &differences);
  std::string out;
  auto line = [&](const std::string& text) { out += text + "\n"; };
  auto show = [](const Tree& value) { return value.dump(-1, ' ', false, Tree::error_handler_t::replace); };
  for (const Difference& d : differences) {
    if (!d.a || !d.b)
      line(fmt::format("{}: only in {}", d.path, d.a ? "the first" : "the second"));
    else
      line(fmt::format("{}: {} -> {}", d.path, show(*d.a), show(*d.b)));
  }
  for (const std::string& path : Reordered(a, b)) line(path + ": in another order");
  return out.empty() ? "no difference\n" : out;
}

std::string DiffJson(const Plan& a, const Plan& b) {
  const Tree tree_a = PlanTree(a), tree_b = PlanTree(b);
  std::vector<Difference> differences;
  Compare("", tree_a, tree_b, &differences);
  OrderedJson list = OrderedJson::array();
  for (const Difference& d : differences) {
    OrderedJson entry = {{"path", d.path}};
    if (d.a) entry["a"] = OrderedJson(*d.a);
    if (d.b) entry["b"] = OrderedJson(*d.b);
    list.push_back(std::move(entry));
  }
  for (const std::string& path : Reordered(a, b)) list.push_back({{"path", path}, {"order", "differs"}});
  return Text({{"equal", list.empty()}, {"differences", list}});
}

}  // namespace qwen::plan
