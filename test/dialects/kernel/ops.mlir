// Every op prints as it parses, as text, in the generic form and as bytecode.
// RUN: qwen-opt %s | FileCheck %s
// RUN: qwen-opt %s | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --mlir-print-op-generic | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --emit-bytecode | qwen-opt | FileCheck %s

// CHECK: kernel.kernel @linear__k40_n96 family "linear" entry "linear" target "cpu" part "all" {k = 40 : i64}
kernel.kernel @linear__k40_n96 family "linear" entry "linear" target "cpu" part "all" {k = 40 : i64}

// CHECK-LABEL: @dispatch
// CHECK-SAME: %[[X:[^:]+]]: {{.*}}, %[[W:[^:]+]]:
func.func @dispatch(%x: tensor<?x40xf32>, %w: tensor<96x40xf32>) -> tensor<?x96xf32> {
  // CHECK: %[[Y:.+]] = kernel.dispatch @linear(%[[A:.+]] = %[[X]] : tensor<?x40xf32>, %[[B:.+]] = %[[W]] : tensor<96x40xf32>) -> (tensor<?x96xf32>) attributes {origin = "layers.0.in"} {
  // CHECK-NEXT: %[[L:.+]] = model.linear %[[A]], %[[B]]
  // CHECK-NEXT: kernel.yield %[[L]] : tensor<?x96xf32>
  // CHECK-NEXT: }
  %y = kernel.dispatch @linear(%a = %x : tensor<?x40xf32>, %b = %w : tensor<96x40xf32>) -> (tensor<?x96xf32>)
      attributes {origin = "layers.0.in"} {
    %l = model.linear %a, %b : (tensor<?x40xf32>, tensor<96x40xf32>) -> tensor<?x96xf32>
    kernel.yield %l : tensor<?x96xf32>
  }
  // CHECK: return %[[Y]]
  return %y : tensor<?x96xf32>
}

// Selected: kernels by name, their arguments, the layouts of weights.
// CHECK-LABEL: @selected
func.func @selected(%x: tensor<?x40xf32>, %w: tensor<96x40xf32>) -> tensor<?x96xf32> {
  // CHECK: kernel.dispatch @linear{{.*}} attributes {args = [array<i32: 0, 1, 2, -1, 3>], kernels = [@linear__k40_n96], layouts = ["", "tile16"]}
  %y = kernel.dispatch @linear(%a = %x : tensor<?x40xf32>, %b = %w : tensor<96x40xf32>) -> (tensor<?x96xf32>)
      attributes {kernels = [@linear__k40_n96], args = [array<i32: 0, 1, 2, -1, 3>], layouts = ["", "tile16"]} {
    %l = model.linear %a, %b : (tensor<?x40xf32>, tensor<96x40xf32>) -> tensor<?x96xf32>
    kernel.yield %l : tensor<?x96xf32>
  }
  return %y : tensor<?x96xf32>
}

// Effects only: no results, an empty yield.
// CHECK-LABEL: @effects
func.func @effects(%k: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // CHECK: kernel.dispatch @attention(
  // CHECK-SAME: : !model.batch) {
  // CHECK: kernel.yield{{$}}
  kernel.dispatch @attention(%ik = %k : tensor<?x32xf32>, %ic = %c : !model.kv_cache<2x16, f32>, %ib = %batch : !model.batch) {
    model.kv_append %ik, %ik, %ic, %ib : tensor<?x32xf32>, tensor<?x32xf32>, !model.kv_cache<2x16, f32>
    kernel.yield
  }
  return
}
