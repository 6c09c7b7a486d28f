// RUN: qwen-opt %s --fuse-residual --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-residual=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// A bare linear.
// CHECK-LABEL: @linear
// CHECK-SAME: %[[H:[^:]+]]: {{.*}}, %[[W:[^:]+]]: {{.*}}, %[[X:[^:]+]]:
func.func @linear(%h: tensor<?x12xbf16>, %w: tensor<40x12xbf16>, %x: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  // CHECK-NEXT: kernel.dispatch @linear(%[[IH:.+]] = %[[H]] : {{.*}}, %[[IW:.+]] = %[[W]] : {{.*}}, %[[IX:.+]] = %[[X]] : {{.*}}) -> (tensor<?x40xbf16>)
  // CHECK: %[[P:.+]] = model.linear %[[IH]], %[[IW]]
  // CHECK: model.add %[[P]], %[[IX]]
  %p = model.linear %h, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
  %x1 = model.add %p, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// Experts keep their family.
// CHECK-LABEL: @experts
func.func @experts(%h: tensor<?x40xbf16>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %gu: tensor<7x32x40xbf16>,
                   %d: tensor<7x40x16xbf16>, %x: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  // CHECK: kernel.dispatch @experts
  // CHECK: %[[P:.+]] = model.experts
  // CHECK: model.add %[[P]]
  %p = model.experts %h, %w, %ids, %gu, %d first_expert 0
    : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16>
  %x1 = model.add %p, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// A dispatch that was formed before grows.
// CHECK-LABEL: @dispatch
func.func @dispatch(%o: tensor<?x12xbf16>, %n: tensor<4xf32>, %w: tensor<40x12xbf16>, %x: tensor<?x40xbf16>)
    -> tensor<?x40xbf16> {
  // CHECK: kernel.dispatch @linear
  // CHECK: model.gated_rms_norm
  // CHECK: model.linear
  // CHECK: model.add
  // CHECK-NOT: kernel.dispatch
  %p = kernel.dispatch @linear(%io = %o : tensor<?x12xbf16>, %in = %n : tensor<4xf32>, %iw = %w : tensor<40x12xbf16>)
      -> (tensor<?x40xbf16>) {
    %y = model.gated_rms_norm %io, %io, %in eps 1.0e-06 activation "silu" : tensor<?x12xbf16>, tensor<4xf32>
    %q = model.linear %y, %iw : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
    kernel.yield %q : tensor<?x40xbf16>
  }
  %x1 = model.add %p, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// The residual is made after the projection: the dispatch stands where both exist.
// CHECK-LABEL: @late_residual
func.func @late_residual(%h: tensor<?x12xbf16>, %w: tensor<40x12xbf16>, %x: tensor<?x40xbf16>, %n: tensor<40xf32>)
    -> tensor<?x40xbf16> {
  // CHECK: %[[R:.+]] = model.rms_norm
  // CHECK: kernel.dispatch @linear({{.*}} = %[[R]] :
  %p = model.linear %h, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
  %r = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %x1 = model.add %p, %r : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// The residual is made from the projection itself, so there is nothing to add at its end.
// CHECK-LABEL: @own_residual
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: something else than the residual add reads the projection
func.func @own_residual(%h: tensor<?x12xbf16>, %w: tensor<40x12xbf16>, %n: tensor<40xf32>) -> tensor<?x40xbf16> {
  %p = model.linear %h, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16>
  %r = model.rms_norm %p, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %x1 = model.add %p, %r : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// The ranks' parts must be summed first.
// CHECK-LABEL: @partial
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: x is summed over the ranks after its projection
func.func @partial(%h: tensor<?x12xbf16>, %w: tensor<40x12xbf16>, %x: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %p = model.linear %h, %w : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xf32>
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
  %x1 = model.add %s, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @no_projection
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: x is from neither a linear nor experts
func.func @no_projection(%h: tensor<?x40xbf16>, %x: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %x1 = model.add %h, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// silu_mul is an epilogue; there is one.
// CHECK-LABEL: @second_epilogue
// CHECK: model.silu_mul
// CHECK: kernel.yield
// CHECK: model.add
// WHY: remark: not fused: ends in an epilogue already
func.func @second_epilogue(%h: tensor<?x40xbf16>, %w: tensor<40x40xbf16>, %x: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %p = kernel.dispatch @linear(%ih = %h : tensor<?x40xbf16>, %iw = %w : tensor<40x40xbf16>) -> (tensor<?x40xbf16>) {
    %q = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<40x40xbf16>) -> tensor<?x40xbf16>
    %m = model.silu_mul %q, %q : tensor<?x40xbf16>
    kernel.yield %m : tensor<?x40xbf16>
  }
  %x1 = model.add %p, %x : tensor<?x40xbf16>
  return %x1 : tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @several_results
// CHECK: kernel.yield
// CHECK: model.add
// WHY: remark: not fused: gives several results
func.func @several_results(%h: tensor<?x40xbf16>, %w: tensor<40x40xbf16>, %x: tensor<?x40xbf16>)
    -> (tensor<?x40xbf16>, tensor<?x40xbf16>) {
  %p, %o = kernel.dispatch @linear(%ih = %h : tensor<?x40xbf16>, %iw = %w : tensor<40x40xbf16>)
      -> (tensor<?x40xbf16>, tensor<?x40xbf16>) {
    %q = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<40x40xbf16>) -> tensor<?x40xbf16>
    %r = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<40x40xbf16>) -> tensor<?x40xbf16>
    kernel.yield %q, %r : tensor<?x40xbf16>, tensor<?x40xbf16>
  }
  %x1 = model.add %p, %x : tensor<?x40xbf16>
  return %x1, %o : tensor<?x40xbf16>, tensor<?x40xbf16>
}
