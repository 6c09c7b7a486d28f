//===- KernelOps.td - the kernel dialect: who computes it --------------------===//

#ifndef QWEN_DIALECTS_KERNEL_KERNELOPS_TD
#define QWEN_DIALECTS_KERNEL_KERNELOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Kernel_Dialect : Dialect {
  let name = "kernel";
  let cppNamespace = "::qwen::ir::kernel";
  let summary = "Who computes it: dispatches to catalogued kernel families, still values";
  let dependentDialects = ["::qwen::ir::model::ModelDialect"];
}

class Kernel_Op<string mnemonic, list<Trait> traits = []> : Op<Kernel_Dialect, mnemonic, traits>;

def Kernel_DispatchOp : Kernel_Op<"dispatch", [IsolatedFromAbove, RecursiveMemoryEffects, SingleBlock]> {
  let summary = "Model ops that one kernel family computes together";
  let description = [{
    The region holds the very model ops the dispatch replaces, unchanged: it is the specification of the
    kernels that serve it, and the reference interpreter can run it (architecture, section 2). `family` is the
    catalogue's. `select` adds `kernels`, the records that serve it in order; `args`, for each of them what its
    arguments are: an index into operands, then results, then the dispatch's arena space (contracts, section 7), -1
    where the family's optional argument is absent; and `layouts`, how each operand that is a weight is packed.

    - (C1) the block's arguments have the types of `inputs`.
    - (C2) the region ends in `kernel.yield` with the types of `outputs`.
    - (C3) the region holds model ops only, at least one.
    - (C4) `args` has one list a kernel; every entry is -1 or names an operand, a result or the arena space.
    - (C5) `family` is one of the catalogue's families.

    Example:
    ```
    %h = kernel.dispatch @linear(%a = %x : tensor<?x40xf32>, %b = %w : tensor<96x40xf32>) -> (tensor<?x96xf32>) {
      %y = model.linear %a, %b : (tensor<?x40xf32>, tensor<96x40xf32>) -> tensor<?x96xf32>
      kernel.yield %y : tensor<?x96xf32>
    }
    ```
  }];
  let arguments = (ins FlatSymbolRefAttr:$family, Variadic<AnyType>:$inputs,
                       OptionalAttr<ArrayAttr>:$kernels, OptionalAttr<ArrayAttr>:$args,
                       OptionalAttr<StrArrayAttr>:$layouts, OptionalAttr<StrAttr>:$origin);
  let results = (outs Variadic<AnyType>:$outputs);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::Block &block() { return getBody().front(); }
    YieldOp yield();
  }];
}

def Kernel_YieldOp : Kernel_Op<"yield", [Pure, Terminator, ReturnLike, HasParent<"DispatchOp">]> {
  let summary = "Ends a dispatch: its results";
  let arguments = (ins Variadic<AnyType>:$values);
  let assemblyFormat = "($values^ `:` type($values))? attr-dict";
}

def Kernel_KernelOp : Kernel_Op<"kernel", [Symbol]> {
  let summary = "One kernel record: a catalogued kernel and its Spec";
  let description = [{
    `entry` is the catalogue's name, `spec` its compile-time constants. Two dispatches with equal Specs share one
    record; `select` makes the name from both: `linear__k40_n96_...`.

    - (C1) `family` is one of the catalogue's families.

    Example: `kernel.kernel @linear__k40_n96 family "linear" entry "linear" target "cpu" part "all" {k = 40}`
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$family, StrAttr:$entry, StrAttr:$target,
                       StrAttr:$part, DictionaryAttr:$spec);
  let assemblyFormat = [{
    $sym_name `family` $family `entry` $entry `target` $target `part` $part $spec attr-dict
  }];
  let hasVerifier = 1;
}

#endif
