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

// K and V of a drafter's layers all read its context: as many as a kernel has outputs for, and the rest.
// CHECK-LABEL: @many
// CHECK: kernel.dispatch @linear
// CHECK-COUNT-32: model.linear
// CHECK: kernel.yield
// CHECK: model.linear
// CHECK-NOT: kernel.dispatch
func.func @many(%h: tensor<?x40xf32>, %w: tensor<1x40xf32>) -> tensor<?x33xf32> {
  %0 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %1 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %2 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %3 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %4 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %5 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %6 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %7 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %8 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %9 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %10 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %11 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %12 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %13 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %14 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %15 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %16 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %17 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %18 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %19 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %20 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %21 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %22 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %23 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %24 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %25 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %26 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %27 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %28 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %29 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %30 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %31 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %32 = model.linear %h, %w : (tensor<?x40xf32>, tensor<1x40xf32>) -> tensor<?x1xf32>
  %y = model.concat
    %0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24,
    %25, %26, %27, %28, %29, %30, %31, %32
    : (
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>,
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>,
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>,
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>,
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>,
    tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xf32>
    ) -> tensor<?x33xf32>
  return %y : tensor<?x33xf32>
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
