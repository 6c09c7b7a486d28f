//===- StateLayout.cpp - pages and slots ----------------------------------===//

#include "passes/memory/StateLayout.h"

#include "passes/select/Bind.h"
#include "runtime/plan/layout.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;
namespace model = qwen::ir::model;


namespace qwen::passes {

plan::State layoutStates(ArrayRef<func::FuncOp> programs, int64_t maxRows) {
  plan::State layout;
  layout.max_rows = int(maxRows);
  llvm::StringSet<> seen;
  for (func::FuncOp program : programs)
    program.walk([&](model::StateOp op) {
      if (!seen.insert(op.getName()).second)
        return;
      if (auto type = dyn_cast<model::KvCacheType>(op.getType()))
        layout.kv_layers.push_back({.name = op.getName().str(), .kv_heads = int(type.getKvHeads()),
                                    .head_dim = int(type.getHeadDim()), .dtype = dtypeOf(type.getElementType())});
      else if (auto type = dyn_cast<model::RecurrentStateType>(op.getType()))
        layout.delta_layers.push_back({.name = op.getName().str(), .key_heads = int(type.getKeyHeads()),
                                       .value_heads = int(type.getValueHeads()), .key_dim = int(type.getKeyDim()),
                                       .value_dim = int(type.getValueDim()), .width = int(type.getWidth()),
                                       .dtype = dtypeOf(type.getElementType())});
    });
  plan::LayOutState(&layout);
  return layout;
}

DictionaryAttr stateAttr(Builder &builder, const plan::State &state) {
  auto integer = [&](StringRef name, int64_t value) {
    return builder.getNamedAttr(name, builder.getI64IntegerAttr(value));
  };
  SmallVector<Attribute> kv, delta;
  for (const plan::KvLayer &layer : state.kv_layers)
    kv.push_back(builder.getDictionaryAttr({builder.getNamedAttr("name", builder.getStringAttr(layer.name)),
                                            integer("offset", layer.offset), integer("kv_heads", layer.kv_heads),
                                            integer("head_dim", layer.head_dim), integer("dtype", int(layer.dtype))}));
  for (const plan::DeltaLayer &layer : state.delta_layers)
    delta.push_back(builder.getDictionaryAttr(
        {builder.getNamedAttr("name", builder.getStringAttr(layer.name)), integer("offset", layer.offset),
         integer("key_heads", layer.key_heads), integer("value_heads", layer.value_heads),
         integer("key_dim", layer.key_dim), integer("value_dim", layer.value_dim), integer("width", layer.width),
         integer("dtype", int(layer.dtype))}));
  return builder.getDictionaryAttr(
      {integer("max_rows", state.max_rows), integer("fold_rows", state.fold_rows),
       integer("ring_rows", state.ring_rows), integer("conv_rows", state.conv_rows),
       integer("page_bytes", state.page_bytes), integer("slot_bytes", state.slot_bytes),
       integer("base_bytes", state.base_bytes), integer("ring_bytes", state.ring_bytes),
       integer("conv_bytes", state.conv_bytes), builder.getNamedAttr("kv_layers", builder.getArrayAttr(kv)),
       builder.getNamedAttr("delta_layers", builder.getArrayAttr(delta))});
}

plan::State stateOf(DictionaryAttr attr) {
  auto integer = [](DictionaryAttr from, StringRef name) { return from.getAs<IntegerAttr>(name).getInt(); };
  plan::State state;
  state.max_rows = int(integer(attr, "max_rows"));
  state.fold_rows = int(integer(attr, "fold_rows"));
  state.ring_rows = int(integer(attr, "ring_rows"));
  state.conv_rows = int(integer(attr, "conv_rows"));
  state.page_bytes = integer(attr, "page_bytes");
  state.slot_bytes = integer(attr, "slot_bytes");
  state.base_bytes = integer(attr, "base_bytes");
  state.ring_bytes = integer(attr, "ring_bytes");
  state.conv_bytes = integer(attr, "conv_bytes");
  for (auto layer : attr.getAs<ArrayAttr>("kv_layers").getAsRange<DictionaryAttr>())
    state.kv_layers.push_back({layer.getAs<StringAttr>("name").str(), integer(layer, "offset"),
                               int(integer(layer, "kv_heads")), int(integer(layer, "head_dim")),
                               DType(integer(layer, "dtype"))});
  for (auto layer : attr.getAs<ArrayAttr>("delta_layers").getAsRange<DictionaryAttr>())
    state.delta_layers.push_back({layer.getAs<StringAttr>("name").str(), integer(layer, "offset"),
                                  int(integer(layer, "key_heads")), int(integer(layer, "value_heads")),
                                  int(integer(layer, "key_dim")), int(integer(layer, "value_dim")),
                                  int(integer(layer, "width")), DType(integer(layer, "dtype"))});
  return state;
}

} // namespace qwen::passes
