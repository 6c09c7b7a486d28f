//===- PlanOps.td - the plan dialect: where and when -------------------------===//
//
// One to one with the file (runtime/plan/FORMAT.md): nothing here that the format cannot say.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_DIALECTS_PLAN_PLANOPS_TD
#define QWEN_DIALECTS_PLAN_PLANOPS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Plan_Dialect : Dialect {
  let name = "plan";
  let cppNamespace = "::qwen::ir::plan";
  let summary = "Where and when: buffers at byte offsets, ordered steps";
  let useDefaultTypePrinterParser = 1;
}

class Plan_Op<string mnemonic, list<Trait> traits = []> : Op<Plan_Dialect, mnemonic, traits>;

def Plan_Buffer : TypeDef<Plan_Dialect, "Buffer"> {
  let mnemonic = "buffer";
  let summary = "Bytes at a fixed place: arena, cache, weight, batch or output";
}

def Plan_ProgramOp : Plan_Op<"program", [Symbol, SingleBlock, NoTerminator, IsolatedFromAbove]> {
  let summary = "The steps of one program on one rank";
  let description = [{
    Holds buffers, then steps in order. `arena_bytes` is the end of the highest arena buffer.

    - (C1) every arena buffer ends within `arena_bytes`.
    - (C2) arena offsets are multiples of 64.

    Example: `plan.program @step__cpu_r0 name "step" target "cpu" rank 0 arena_bytes 4096 { ... }`
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$name, StrAttr:$target, I64Attr:$rank,
                       I64Attr:$arena_bytes);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $sym_name `name` $name `target` $target `rank` $rank `arena_bytes` $arena_bytes attr-dict-with-keyword $body
  }];
  let hasRegionVerifier = 1;
}

def Plan_PackedOp : Plan_Op<"packed", [Symbol]> {
  let summary = "A weight as one rank keeps it in memory";
  let description = [{
    The slices of a `model.param` in a kernel's layout: `rows` as in the file, `vector` f32, or `tile16`
    (contracts, section 6). `bytes` counts the tile padding, `net_bytes` does not.

    - (C1) `layout` is one of the three.
    - (C2) `net_bytes <= bytes`.

    Example: `plan.packed @"layers.0.gdn.z__r0" param "layers.0.gdn.z" rank 0 layout "tile16" slices [[0, 64], []] bytes 8192 net_bytes 7680`
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$param, I64Attr:$rank, StrAttr:$layout,
                       ArrayAttr:$slices, I64Attr:$bytes, I64Attr:$net_bytes);
  let assemblyFormat = [{
    $sym_name `param` $param `rank` $rank `layout` $layout `slices` $slices `bytes` $bytes `net_bytes` $net_bytes
    attr-dict
  }];
  let hasVerifier = 1;
}

def Plan_BufferOp : Plan_Op<"buffer", [Pure]> {
  let summary = "A place in memory";
  let description = [{
    `kind` is `arena` (offset in the program's arena), `cache` (offset of a layer in the page or the slot),
    `weight` (`symbol` names a `plan.packed`), `input` or `output` (`symbol` is the program's name for it) or
    `batch` (a field of the batch block). A dynamic dimension is printed as -1.

    - (C1) `kind` is one of the six.
    - (C2) `offset >= 0`, `bytes >= 0`.

    Example: `%b = plan.buffer "arena" "x" offset 0 bytes 4096 : tensor<?x40xf32>`
  }];
  let arguments = (ins StrAttr:$kind, StrAttr:$symbol, I64Attr:$offset, I64Attr:$bytes, TypeAttr:$type);
  let results = (outs Plan_Buffer:$result);
  let assemblyFormat = "$kind $symbol `offset` $offset `bytes` $bytes attr-dict `:` $type";
  let hasVerifier = 1;
}

def Plan_LaunchOp : Plan_Op<"launch"> {
  let summary = "Runs one kernel over its part of the batch";
  let description = [{
    `args` says which buffer is which argument of the kernel's contract, -1 for an absent one. `part` is `all`,
    `short`, `long` or `logit_rows`. `waits` is set when the step reads what the steps since the last barrier
    wrote: the executor puts one barrier in front of it.

    - (C1) every entry of `args` is -1 or names a buffer operand.
    - (C2) `part` is one of the four.

    Example: `plan.launch @linear__k40_n96 (%x, %w, %y) args [0, 1, 2] part "all" waits bytes 10 flops 20 origin "layers.0.in"`
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, Variadic<Plan_Buffer>:$buffers, DenseI32ArrayAttr:$args,
                       StrAttr:$part, UnitAttr:$waits, I64Attr:$bytes, I64Attr:$flops, StrAttr:$origin);
  let assemblyFormat = [{
    $kernel `(` $buffers `)` `args` $args `part` $part (`waits` $waits^)? `bytes` $bytes `flops` $flops
    `origin` $origin attr-dict
  }];
  let hasVerifier = 1;
}

def Plan_CollectiveOp : Plan_Op<"collective"> {
  let summary = "Exchanges rows between the ranks, then runs a kernel's epilogue";
  let description = [{
    Every rank arrives with its partial rows and leaves with the ordered sum (or the joined channels). Arguments
    as for `plan.launch`. Always waits.

    - (C1) every entry of `args` is -1 or names a buffer operand.

    Example: `plan.collective @all_reduce__c40 (%x, %y) args [0, 1] bytes 160 flops 40 origin "layers.0.mixer"`
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, Variadic<Plan_Buffer>:$buffers, DenseI32ArrayAttr:$args,
                       I64Attr:$bytes, I64Attr:$flops, StrAttr:$origin);
  let assemblyFormat = [{
    $kernel `(` $buffers `)` `args` $args `bytes` $bytes `flops` $flops `origin` $origin attr-dict
  }];
  let hasVerifier = 1;
}

#endif
