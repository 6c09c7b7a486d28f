//===- ModelOps.td - the model dialect: what is computed ---------------------===//
//
// Tensors are `[tokens, channels]`; `tokens` is dynamic, channels are static. Heads are
// flattened into channels, head-major, and named by attributes. Weights are symbols, caches are
// opaque states of a type. No op knows a device, a byte or a schedule.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_DIALECTS_MODEL_MODELOPS_TD
#define QWEN_DIALECTS_MODEL_MODELOPS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Model_Dialect : Dialect {
  let name = "model";
  let cppNamespace = "::qwen::ir::model";
  let summary = "What a model computes: tensors of [tokens, channels], no device";
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
}

class Model_Op<string mnemonic, list<Trait> traits = []> : Op<Model_Dialect, mnemonic, traits>;

//===----------------------------------------------------------------------===//
// Types and attributes
//===----------------------------------------------------------------------===//

class Model_Type<string name, string mnemonicName> : TypeDef<Model_Dialect, name> {
  let mnemonic = mnemonicName;
}

def Model_Batch : Model_Type<"Batch", "batch"> {
  let summary = "The ragged batch of one engine step: positions, sequence borders, slots, logit rows";
}

def Model_KvCache : Model_Type<"KvCache", "kv_cache"> {
  let summary = "Keys and values of one attention layer, by sequence and position";
  let parameters = (ins "int64_t":$kvHeads, "int64_t":$headDim, "::mlir::Type":$elementType);
  let assemblyFormat = "`<` custom<HeadShape>($kvHeads, $headDim) `,` $elementType `>`";
}

def Model_RecurrentState : Model_Type<"RecurrentState", "recurrent_state"> {
  let summary = "Delta-rule state and convolution history of one layer, by sequence";
  let description = [{
    `value_heads` matrices of `[value_dim, key_dim]` in f32, and the last `width - 1` inputs of the
    convolution (`2 * key_heads * key_dim + value_heads * value_dim` channels of the element type).
  }];
  let parameters = (ins "int64_t":$keyHeads, "int64_t":$valueHeads, "int64_t":$keyDim,
                        "int64_t":$valueDim, "int64_t":$width, "::mlir::Type":$elementType);
  let assemblyFormat = [{
    `<` `k` $keyHeads `v` $valueHeads `dk` $keyDim `dv` $valueDim `w` $width `,` $elementType `>`
  }];
  let extraClassDeclaration = [{
    int64_t getConvChannels() {
      return 2 * getKeyHeads() * getKeyDim() + getValueHeads() * getValueDim();
    }
  }];
}

// A tensor type without it holds its element type plainly.
def Model_Scheme : AttrDef<Model_Dialect, "Scheme"> {
  let mnemonic = "scheme";
  let summary = "How a checkpoint stores a weight: the encoding of the weight's tensor type";
  let description = [{
    `format` is one of `fp8_block fp8_channel fp8_tensor int4_group int8_channel int8_group nvfp4 mxfp8`
    (quantisation design, section 1); `group_n`, `group_k` are the rows and columns that share a scale.

    Example: `tensor<4096x2048xbf16, #model.scheme<"fp8_block", 128, 128>>`
  }];
  let parameters = (ins StringRefParameter<"">:$format, "int64_t":$groupN, "int64_t":$groupK);
  let assemblyFormat = "`<` $format `,` $groupN `,` $groupK `>`";
}

def Model_Float : AnyTypeOf<[F32, F64, BF16, F16]>;
class Model_TensorOf<list<Type> types, int rank>
    : TensorRankOf<types, [rank]>;
def Model_Rows : Model_TensorOf<[F32, BF16], 2>;       // [tokens, channels]
def Model_RowsF32 : Model_TensorOf<[F32], 2>;
def Model_RowsI32 : Model_TensorOf<[I32], 2>;
def Model_Ids : Model_TensorOf<[I32], 1>;              // [tokens]
def Model_Matrix : Model_TensorOf<[F32, BF16], 2>;     // [out, in]
def Model_Cube : Model_TensorOf<[F32, BF16], 3>;       // [experts, out, in]
def Model_Vector : Model_TensorOf<[F32], 1>;

//===----------------------------------------------------------------------===//
// Weights and states
//===----------------------------------------------------------------------===//

def Model_ParamOp : Model_Op<"param", [Symbol]> {
  let summary = "Declares a weight: canonical name and shape, and where a checkpoint keeps it";
  let description = [{
    `sources` lists alternatives, the first whose tensors all exist is taken; an alternative is a list of
    pieces, each a rectangle copied out of a named tensor (contracts, section 6). `transform` is `none`,
    `one_plus` (zero-centred norms: 1 + w in f32) or `to_f32`. `group` is `model`, `mtp` or `draft`.
    `alias` names a param whose bytes this one shares (tied embeddings).

    - (C1) the type is a static tensor of rank 1, 2 or 3.
    - (C2) `group` is one of the three; `transform` is one of the three.
    - (C3) `sources` is not empty unless `alias` is given.

    Example: `model.param @"layers.0.norm1" group "model" transform "one_plus" sources [...] : tensor<64xf32>`
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<AnyRankedTensor>:$type, StrAttr:$group,
                       StrAttr:$transform, ArrayAttr:$sources, OptionalAttr<FlatSymbolRefAttr>:$alias);
  let assemblyFormat = [{
    $sym_name `group` $group `transform` $transform `sources` $sources (`alias` $alias^)? attr-dict `:` $type
  }];
  let hasVerifier = 1;
}

def Model_WeightOp : Model_Op<"weight", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "Reads a param, whole or the slice that one rank owns";
  let description = [{
    `slices` holds one list of `[begin, end)` pairs a dimension, flattened; an empty list takes all of it.
    Several pairs in a dimension are concatenated: the q, k and v channels of a rank are three.

    - (C1) the symbol names a `model.param`.
    - (C2) `slices` is absent or has one list a dimension, each of even length, with
      `0 <= begin <= end <= size`.
    - (C3) the result is the param's type with each sliced dimension as long as its pairs together.

    Example: `%w = model.weight @"layers.0.gdn.z" slices [[0, 64], []] : tensor<64x40xf32>`
  }];
  let arguments = (ins FlatSymbolRefAttr:$param, OptionalAttr<ArrayAttr>:$slices);
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = "$param (`slices` $slices^)? attr-dict `:` type($result)";
}

def Model_StateOp : Model_Op<"state", [Pure]> {
  let summary = "Names the cache of one layer";
  let description = [{
    The handle of a cache that outlives the step: a `!model.kv_cache` or a `!model.recurrent_state`. Ops that
    take it read and append to it (contracts, section 5).

    - (C1) the result is one of the two state types.

    Example: `%s = model.state "layers.3.attn" : !model.kv_cache<2x256, bf16>`
  }];
  let arguments = (ins StrAttr:$name);
  let results = (outs AnyType:$result);
  let assemblyFormat = "$name attr-dict `:` type($result)";
  let hasVerifier = 1;
}

include "dialects/model/Norm.td"
include "dialects/model/Linear.td"
include "dialects/model/Attention.td"
include "dialects/model/DeltaNet.td"
include "dialects/model/MoE.td"
include "dialects/model/Sampling.td"
include "dialects/model/Collective.td"

#endif
