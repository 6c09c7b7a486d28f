// RUN: qwen-opt %s --fuse-experts --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-experts=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// Routed and shared experts are one region; only the combined rows leave it.
// CHECK-LABEL: @shared
// CHECK-SAME: %[[H:[^:]+]]: {{.*}}, %[[W:[^:]+]]: tensor<?x2xf32>
func.func @shared(%h: tensor<?x40xbf16>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %gu: tensor<7x32x40xbf16>,
                  %d: tensor<7x40x16xbf16>, %sgu: tensor<24x40xbf16>, %sd: tensor<40x24xbf16>, %sg: tensor<1x40xbf16>)
    -> tensor<?x40xbf16> {
  // CHECK-NEXT: %[[OUT:.+]] = kernel.dispatch @experts(%[[IH:.+]] = %[[H]] : {{.*}}, %{{.+}} = %[[W]] : {{.*}}) -> (tensor<?x40xbf16>)
  // CHECK: %[[R:.+]] = model.experts %[[IH]]
  // CHECK: %[[G:.+]] = model.linear %[[IH]]
  // CHECK: %[[U:.+]] = model.linear %[[IH]]
  // CHECK: %[[M:.+]] = model.silu_mul %[[G]], %[[U]]
  // CHECK: %[[S:.+]] = model.linear %[[M]]
  // CHECK: %[[GATE:.+]] = model.linear %[[IH]]
  // CHECK: %[[Y:.+]] = model.combine %[[R]], %[[S]], %[[GATE]]
  // CHECK: kernel.yield %[[Y]]
  // CHECK: return %[[OUT]]
  %r = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  %g = model.linear %h, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16>
  %u = model.linear %h, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16>
  %m = model.silu_mul %g, %u : tensor<?x24xbf16>
  %s = model.linear %m, %sd : (tensor<?x24xbf16>, tensor<40x24xbf16>) -> tensor<?x40xbf16>
  %gate = model.linear %h, %sg : (tensor<?x40xbf16>, tensor<1x40xbf16>) -> tensor<?x1xf32>
  %y = model.combine %r, %s, %gate : tensor<?x40xbf16>, tensor<?x1xf32>
  return %y : tensor<?x40xbf16>
}

// -----

// The shared expert reads other rows than the routed ones.
// CHECK-LABEL: @other_rows
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: reads other rows than the routed experts
func.func @other_rows(%h: tensor<?x40xbf16>, %k: tensor<?x40xbf16>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>,
                      %gu: tensor<7x32x40xbf16>, %d: tensor<7x40x16xbf16>, %sgu: tensor<24x40xbf16>,
                      %sd: tensor<40x24xbf16>, %sg: tensor<1x40xbf16>) -> tensor<?x40xbf16> {
  %r = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  %g = model.linear %k, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16>
  %m = model.silu_mul %g, %g : tensor<?x24xbf16>
  %s = model.linear %m, %sd : (tensor<?x24xbf16>, tensor<40x24xbf16>) -> tensor<?x40xbf16>
  %gate = model.linear %h, %sg : (tensor<?x40xbf16>, tensor<1x40xbf16>) -> tensor<?x1xf32>
  %y = model.combine %r, %s, %gate : tensor<?x40xbf16>, tensor<?x1xf32>
  return %y : tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @read_outside
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: is read from outside the experts
func.func @read_outside(%h: tensor<?x40xbf16>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %gu: tensor<7x32x40xbf16>,
                        %d: tensor<7x40x16xbf16>, %sgu: tensor<24x40xbf16>, %sd: tensor<40x24xbf16>,
                        %sg: tensor<1x40xbf16>) -> (tensor<?x40xbf16>, tensor<?x40xbf16>) {
  %r = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  %g = model.linear %h, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16>
  %m = model.silu_mul %g, %g : tensor<?x24xbf16>
  %s = model.linear %m, %sd : (tensor<?x24xbf16>, tensor<40x24xbf16>) -> tensor<?x40xbf16>
  %gate = model.linear %h, %sg : (tensor<?x40xbf16>, tensor<1x40xbf16>) -> tensor<?x1xf32>
  %y = model.combine %r, %s, %gate : tensor<?x40xbf16>, tensor<?x1xf32>
  return %y, %r : tensor<?x40xbf16>, tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @no_experts
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: the routed rows are not from model.experts
func.func @no_experts(%r: tensor<?x40xbf16>, %s: tensor<?x40xbf16>, %g: tensor<?x1xf32>) -> tensor<?x40xbf16> {
  %y = model.combine %r, %s, %g : tensor<?x40xbf16>, tensor<?x1xf32>
  return %y : tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @no_shared_chain
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: the shared rows are not linear, silu_mul, linear with a linear gate
func.func @no_shared_chain(%h: tensor<?x40xbf16>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>,
                           %gu: tensor<7x32x40xbf16>, %d: tensor<7x40x16xbf16>, %g: tensor<?x1xf32>) -> tensor<?x40xbf16> {
  %r = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  %y = model.combine %r, %h, %g : tensor<?x40xbf16>, tensor<?x1xf32>
  return %y : tensor<?x40xbf16>
}
