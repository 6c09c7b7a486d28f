// RUN: qwen-opt %s --fuse-input-projections --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-input-projections=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// Three linears of the same rows, in the order they stand; a weight read between them moves up.
// CHECK-LABEL: func.func @three
// CHECK-SAME: %[[H:[^:]+]]: {{.*}}, %[[W0:[^:]+]]: {{.*}}, %[[W1:[^:]+]]:
module {
  model.param @p group "model" transform "none" sources [[]] : tensor<3x40xbf16>
  func.func @three(%h: tensor<?x40xbf16>, %w0: tensor<60x40xbf16>, %w1: tensor<12x40xbf16>)
      -> (tensor<?x60xbf16>, tensor<?x12xbf16>, tensor<?x3xf32>) {
    // CHECK: %[[W2:.+]] = model.weight @p
    // CHECK: %[[OUT:.+]]:3 = kernel.dispatch @linear(%[[IH:.+]] = %[[H]] : {{.*}}, %[[I0:.+]] = %[[W0]] : {{.*}}, %[[I1:.+]] = %[[W1]] : {{.*}}, %[[I2:.+]] = %[[W2]] : {{.*}})
    // CHECK: model.linear %[[IH]], %[[I0]]
    // CHECK: model.linear %[[IH]], %[[I1]]
    // CHECK: model.linear %[[IH]], %[[I2]]
    // CHECK: return %[[OUT]]#0, %[[OUT]]#1, %[[OUT]]#2
    %a = model.linear %h, %w0 : (tensor<?x40xbf16>, tensor<60x40xbf16>) -> tensor<?x60xbf16>
    %b = model.linear %h, %w1 : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
    %w2 = model.weight @p : tensor<3x40xbf16>
    %c = model.linear %h, %w2 : (tensor<?x40xbf16>, tensor<3x40xbf16>) -> tensor<?x3xf32>
    return %a, %b, %c : tensor<?x60xbf16>, tensor<?x12xbf16>, tensor<?x3xf32>
  }
}

// -----

// Nine of the same rows: eight, as many as a kernel takes, and one.
// CHECK-LABEL: @nine
// CHECK: %[[OUT:.+]]:8 = kernel.dispatch @linear
// CHECK-COUNT-8: model.linear
// CHECK: kernel.yield
// CHECK: %[[LAST:.+]] = model.linear
// CHECK-NOT: kernel.dispatch
// CHECK: return %[[OUT]]#0, {{.*}}, %[[OUT]]#7, %[[LAST]]
func.func @nine(%h: tensor<?x40xf32>, %w: tensor<4x40xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>,
    tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %a = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %b = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %c = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %d = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %e = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %f = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %g = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %i = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  %j = model.linear %h, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
  return %a, %b, %c, %d, %e, %f, %g, %i, %j : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>,
    tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// Alone with its rows.
// CHECK-LABEL: @single
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: no other linear reads its rows
func.func @single(%h: tensor<?x40xbf16>, %w: tensor<12x40xbf16>) -> tensor<?x12xbf16> {
  %a = model.linear %h, %w : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
  return %a : tensor<?x12xbf16>
}

// -----

// What the second linear multiplies by is made from the first one's rows: they cannot run as one.
// CHECK-LABEL: @depends
// CHECK-NOT: kernel.dispatch @linear
// WHY: remark: not fused: reads a result of the fusion before kernel.dispatch, which the fusion reads
func.func @depends(%h: tensor<?x40xbf16>, %w: tensor<12x40xbf16>, %m: tensor<12x40xbf16>) -> tensor<?x12xbf16> {
  %a = model.linear %h, %w : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
  %v = kernel.dispatch @elementwise(%ia = %a : tensor<?x12xbf16>, %im = %m : tensor<12x40xbf16>) -> (tensor<12x40xbf16>) {
    %s = model.silu_mul %im, %im : tensor<12x40xbf16>
    kernel.yield %s : tensor<12x40xbf16>
  }
  %b = model.linear %h, %v : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
  return %b : tensor<?x12xbf16>
}

// -----

// A collective stands between them: ranks must not start the second before the sum.
// CHECK-LABEL: @collective_between
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: is a collective between the ops to fuse
func.func @collective_between(%h: tensor<?x40xf32>, %w: tensor<12x40xf32>, %p: tensor<?x40xf32>)
    -> (tensor<?x12xf32>, tensor<?x12xf32>, tensor<?x40xf32>) {
  %a = model.linear %h, %w : (tensor<?x40xf32>, tensor<12x40xf32>) -> tensor<?x12xf32>
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xf32>
  %b = model.linear %h, %w : (tensor<?x40xf32>, tensor<12x40xf32>) -> tensor<?x12xf32>
  return %a, %b, %s : tensor<?x12xf32>, tensor<?x12xf32>, tensor<?x40xf32>
}
