// RUN: qwen-opt %s --fuse-router --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-router=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// The experts read the normed rows too, so the dispatch yields them, before the picks.
// CHECK-LABEL: @norm
// CHECK-SAME: %[[X:[^:]+]]: {{.*}}, %[[N:[^:]+]]: {{.*}}, %[[R:[^:]+]]: tensor<7x40xbf16>
func.func @norm(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %r: tensor<7x40xbf16>, %gu: tensor<7x32x40xbf16>,
                %d: tensor<7x40x16xbf16>) -> tensor<?x40xbf16> {
  // CHECK-NEXT: %[[OUT:.+]]:3 = kernel.dispatch @router(%[[IX:.+]] = %[[X]] : {{.*}}, %[[IN:.+]] = %[[N]] : {{.*}}, %[[IR:.+]] = %[[R]] : {{.*}}) -> (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>)
  // CHECK: %[[H:.+]] = model.rms_norm %[[IX]], %[[IN]]
  // CHECK: %[[W:.+]], %[[IDS:.+]] = model.router %[[H]], %[[IR]]
  // CHECK: kernel.yield %[[H]], %[[W]], %[[IDS]]
  // CHECK: model.experts %[[OUT]]#0, %[[OUT]]#1, %[[OUT]]#2
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %w, %ids = model.router %h, %r renormalize
    : (tensor<?x40xbf16>, tensor<7x40xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %y = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  return %y : tensor<?x40xbf16>
}

// -----

// A collective made the norm.
// CHECK-LABEL: @no_norm
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: x is not a model.rms_norm
func.func @no_norm(%h: tensor<?x40xbf16>, %r: tensor<7x40xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %ids = model.router %h, %r
    : (tensor<?x40xbf16>, tensor<7x40xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return %w, %ids : tensor<?x2xf32>, tensor<?x2xi32>
}
