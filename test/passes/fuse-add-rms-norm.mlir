// RUN: qwen-opt %s --fuse-add-rms-norm --split-input-file | FileCheck %s

// The sum feeds the norm and the next residual: one op gives both.
// CHECK-LABEL: @residual
// CHECK-SAME: %[[X:[^:]+]]: {{.*}}, %[[R:[^:]+]]: {{.*}}, %[[W:[^:]+]]:
func.func @residual(%x: tensor<?x64xbf16>, %r: tensor<?x64xbf16>, %w: tensor<64xf32>)
    -> (tensor<?x64xbf16>, tensor<?x64xbf16>) {
  // CHECK-NEXT: %[[OUT:.+]]:2 = kernel.dispatch @rms_norm(%[[IX:.+]] = %[[X]] : {{.*}}, %[[IR:.+]] = %[[R]] : {{.*}}, %[[IW:.+]] = %[[W]] : tensor<64xf32>)
  // CHECK: %[[S:.+]] = model.add %[[IX]], %[[IR]]
  // CHECK: %[[Y:.+]] = model.rms_norm %[[S]], %[[IW]]
  // CHECK: kernel.yield %[[S]], %[[Y]]
  // CHECK: return %[[OUT]]#0, %[[OUT]]#1
  %s = model.add %x, %r : tensor<?x64xbf16>
  %y = model.rms_norm %s, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>
  return %s, %y : tensor<?x64xbf16>, tensor<?x64xbf16>
}

// -----

// Nothing else reads the sum: it does not leave the dispatch.
// CHECK-LABEL: @norm_only
func.func @norm_only(%x: tensor<?x64xbf16>, %r: tensor<?x64xbf16>, %w: tensor<64xf32>) -> tensor<?x64xbf16> {
  // CHECK: kernel.dispatch @rms_norm({{.*}}) -> (tensor<?x64xbf16>)
  %s = model.add %x, %r : tensor<?x64xbf16>
  %y = model.rms_norm %s, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>
  return %y : tensor<?x64xbf16>
}

// -----

// An op between the two reads the sum: the dispatch stands before it, where both inputs exist.
// CHECK-LABEL: @early_reader
func.func @early_reader(%x: tensor<?x64xbf16>, %r: tensor<?x64xbf16>, %w: tensor<64xf32>) -> tensor<?x64xbf16> {
  // CHECK: %[[OUT:.+]]:2 = kernel.dispatch @rms_norm
  // CHECK: model.silu_mul %[[OUT]]#0, %[[OUT]]#0
  %s = model.add %x, %r : tensor<?x64xbf16>
  %m = model.silu_mul %s, %s : tensor<?x64xbf16>
  %y = model.rms_norm %s, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>
  %t = model.add %m, %y : tensor<?x64xbf16>
  return %t : tensor<?x64xbf16>
}

// -----

// No sum: left alone.
// CHECK-LABEL: @no_sum
// CHECK-NOT: kernel.dispatch
func.func @no_sum(%x: tensor<?x64xbf16>, %w: tensor<64xf32>) -> tensor<?x64xbf16> {
  %y = model.rms_norm %x, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>
  return %y : tensor<?x64xbf16>
}
