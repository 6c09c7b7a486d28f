// RUN: qwen-opt %s --fuse-gated-norm-out --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-gated-norm-out=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// CHECK-LABEL: @out
// CHECK-SAME: %[[O:[^:]+]]: {{.*}}, %[[Z:[^:]+]]: {{.*}}, %[[N:[^:]+]]: {{.*}}, %[[W:[^:]+]]:
func.func @out(%o: tensor<?x12xbf16>, %z: tensor<?x12xbf16>, %n: tensor<4xf32>, %w: tensor<40x12xbf16>)
    -> tensor<?x40xbf16> {
  // CHECK-NEXT: kernel.dispatch @linear(%[[IO:.+]] = %[[O]] : {{.*}}, %[[IZ:.+]] = %[[Z]] : {{.*}}, %[[IN:.+]] = %[[N]] : {{.*}}, %[[IW:.+]] = %[[W]] : {{.*}}) -> (tensor<?x40xbf16>)
  // CHECK: %[[Y:.+]] = model.gated_rms_norm %[[IO]], %[[IZ]], %[[IN]]
  // CHECK: model.linear %[[Y]], %[[IW]]
  %y = model.gated_rms_norm %o, %z, %n eps 1.0e-06 activation "silu" : tensor<?x12xbf16>, tensor<4xf32>
  %p = model.linear %y, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
  return %p : tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @two_readers
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: has not one reader
func.func @two_readers(%o: tensor<?x12xbf16>, %z: tensor<?x12xbf16>, %n: tensor<4xf32>, %w: tensor<40x12xbf16>)
    -> (tensor<?x40xbf16>, tensor<?x12xbf16>) {
  %y = model.gated_rms_norm %o, %z, %n eps 1.0e-06 activation "silu" : tensor<?x12xbf16>, tensor<4xf32>
  %p = model.linear %y, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
  return %p, %y : tensor<?x40xbf16>, tensor<?x12xbf16>
}

// -----

// CHECK-LABEL: @no_linear
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: its reader is no model.linear
func.func @no_linear(%o: tensor<?x12xbf16>, %z: tensor<?x12xbf16>, %n: tensor<4xf32>) -> tensor<?x12xbf16> {
  %y = model.gated_rms_norm %o, %z, %n eps 1.0e-06 activation "silu" : tensor<?x12xbf16>, tensor<4xf32>
  return %y : tensor<?x12xbf16>
}
