// RUN: qwen-opt %s --fuse-norm-linear --split-input-file --mlir-print-debuginfo --mlir-print-local-scope | FileCheck %s
// RUN: qwen-opt %s --fuse-norm-linear=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// The norm goes in front of what the dispatch holds; the dispatch keeps its origin, its location tells of both.
// CHECK-LABEL: @merged
// CHECK-SAME: %[[X:[^:]+]]: tensor<?x40xbf16> {{.*}}, %[[N:[^:]+]]: tensor<40xf32> {{.*}}, %[[W:[^:]+]]: tensor<12x40xbf16>
func.func @merged(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %w: tensor<12x40xbf16>)
    -> (tensor<?x12xbf16>, tensor<?x12xbf16>) {
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.3.norm1")
  // CHECK: kernel.dispatch @linear(%[[IX:.+]] = %[[X]] : {{.*}}, %[[IN:.+]] = %[[N]] : {{.*}}, %[[IW:.+]] = %[[W]] : {{.*}}) -> (tensor<?x12xbf16>, tensor<?x12xbf16>) attributes {origin = "layers.3.attn.in"}
  // CHECK: %[[H:.+]] = model.rms_norm %[[IX]], %[[IN]]
  // CHECK: model.linear %[[H]], %[[IW]]
  // CHECK: model.linear %[[H]], %[[IW]]
  // CHECK: loc(fused["layers.3.norm1", "layers.3.attn.in"])
  %a, %b = kernel.dispatch @linear(%ih = %h : tensor<?x40xbf16>, %iw = %w : tensor<12x40xbf16>)
      -> (tensor<?x12xbf16>, tensor<?x12xbf16>) attributes {origin = "layers.3.attn.in"} {
    %y = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
    %z = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
    kernel.yield %y, %z : tensor<?x12xbf16>, tensor<?x12xbf16>
  } loc("layers.3.attn.in")
  return %a, %b : tensor<?x12xbf16>, tensor<?x12xbf16>
}

// -----

// A single linear, not dispatched yet.
// CHECK-LABEL: @single
func.func @single(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %w: tensor<12x40xbf16>) -> tensor<?x12xbf16> {
  // CHECK: kernel.dispatch @linear
  // CHECK: model.rms_norm
  // CHECK: model.linear
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %a = model.linear %h, %w : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
  return %a : tensor<?x12xbf16>
}

// -----

// CHECK-LABEL: @two_readers
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: has not one reader
func.func @two_readers(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %w: tensor<12x40xbf16>)
    -> (tensor<?x12xbf16>, tensor<?x40xbf16>) {
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %a = model.linear %h, %w : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16>
  return %a, %h : tensor<?x12xbf16>, tensor<?x40xbf16>
}

// -----

// A head reads it: fuse-lm-head is for that.
// CHECK-LABEL: @other_family
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: its reader is no linear
func.func @other_family(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %w: tensor<101x40xbf16>) -> tensor<?x101xf32> {
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %a = model.lm_head %h, %w : (tensor<?x40xbf16>, tensor<101x40xbf16>) -> tensor<?x101xf32>
  return %a : tensor<?x101xf32>
}

// -----

// The norm is the residual of an epilogue as well: the kernel normalises on the way in and keeps no copy.
// CHECK-LABEL: @as_residual
// CHECK: model.rms_norm
// CHECK: kernel.dispatch
// WHY: remark: not fused: an epilogue reads the norm
func.func @as_residual(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %w: tensor<40x40xbf16>) -> tensor<?x40xbf16> {
  %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  %a = kernel.dispatch @linear(%ih = %h : tensor<?x40xbf16>, %iw = %w : tensor<40x40xbf16>) -> (tensor<?x40xbf16>) {
    %y = model.linear %ih, %iw : (tensor<?x40xbf16>, tensor<40x40xbf16>) -> tensor<?x40xbf16>
    %z = model.add %y, %ih : tensor<?x40xbf16>
    kernel.yield %z : tensor<?x40xbf16>
  }
  return %a : tensor<?x40xbf16>
}
