// RUN: qwen-opt %s --fuse-gate-up --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-gate-up=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// Only the product leaves the dispatch.
// CHECK-LABEL: @dense
// CHECK-SAME: %[[H:[^:]+]]: {{.*}}, %[[WG:[^:]+]]: {{.*}}, %[[WU:[^:]+]]:
func.func @dense(%h: tensor<?x40xbf16>, %wg: tensor<56x40xbf16>, %wu: tensor<56x40xbf16>) -> tensor<?x56xbf16> {
  // CHECK-NEXT: %[[M:.+]] = kernel.dispatch @linear(%[[IH:.+]] = %[[H]] : {{.*}}, %[[IG:.+]] = %[[WG]] : {{.*}}, %[[IU:.+]] = %[[WU]] : {{.*}}) -> (tensor<?x56xbf16>)
  // CHECK: %[[G:.+]] = model.linear %[[IH]], %[[IG]]
  // CHECK: %[[U:.+]] = model.linear %[[IH]], %[[IU]]
  // CHECK: model.silu_mul %[[G]], %[[U]]
  // CHECK: return %[[M]]
  %g = model.linear %h, %wg : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %u = model.linear %h, %wu : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %m = model.silu_mul %g, %u : tensor<?x56xbf16>
  return %m : tensor<?x56xbf16>
}

// -----

// CHECK-LABEL: @other_rows
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: gate and up read different rows
func.func @other_rows(%h: tensor<?x40xbf16>, %k: tensor<?x40xbf16>, %w: tensor<56x40xbf16>) -> tensor<?x56xbf16> {
  %g = model.linear %h, %w : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %u = model.linear %k, %w : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %m = model.silu_mul %g, %u : tensor<?x56xbf16>
  return %m : tensor<?x56xbf16>
}

// -----

// CHECK-LABEL: @read_outside
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: something else than the product reads the projection
func.func @read_outside(%h: tensor<?x40xbf16>, %w: tensor<56x40xbf16>) -> (tensor<?x56xbf16>, tensor<?x56xbf16>) {
  %g = model.linear %h, %w : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %u = model.linear %h, %w : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16>
  %m = model.silu_mul %g, %u : tensor<?x56xbf16>
  return %m, %u : tensor<?x56xbf16>, tensor<?x56xbf16>
}

// -----

// CHECK-LABEL: @no_linear
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: gate and up are not both from a model.linear
func.func @no_linear(%g: tensor<?x56xbf16>, %u: tensor<?x56xbf16>) -> tensor<?x56xbf16> {
  %m = model.silu_mul %g, %u : tensor<?x56xbf16>
  return %m : tensor<?x56xbf16>
}
