// RUN: qwen-opt %s --fuse-all-reduce --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-all-reduce=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// Sum, residual add and norm are one region; the sum goes on as the residual.
// CHECK-LABEL: @mixer
// CHECK-SAME: %[[P:[^:]+]]: {{.*}}, %[[X:[^:]+]]: {{.*}}, %[[W:[^:]+]]:
func.func @mixer(%p: tensor<?x40xf32>, %x: tensor<?x40xbf16>, %w: tensor<40xf32>)
    -> (tensor<?x40xbf16>, tensor<?x40xbf16>) {
  // CHECK: %[[OUT:.+]]:2 = kernel.dispatch @all_reduce(%[[IP:.+]] = %[[P]] : {{.*}}, %[[IX:.+]] = %[[X]] : {{.*}}, %[[IW:.+]] = %[[W]] : tensor<40xf32>)
  // CHECK: %[[S:.+]] = model.all_reduce %[[IP]]
  // CHECK: %[[X1:.+]] = model.add %[[S]], %[[IX]]
  // CHECK: %[[H:.+]] = model.rms_norm %[[X1]], %[[IW]]
  // CHECK: kernel.yield %[[X1]], %[[H]]
  // CHECK: return %[[OUT]]#0, %[[OUT]]#1
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
  %x1 = model.add %s, %x : tensor<?x40xbf16>
  %h = model.rms_norm %x1, %w eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  return %x1, %h : tensor<?x40xbf16>, tensor<?x40xbf16>
}

// -----

// The last layer: rows are chosen before the final norm, so only the add comes along.
// CHECK-LABEL: @last
func.func @last(%p: tensor<?x40xf32>, %x: tensor<?x40xbf16>, %w: tensor<40xf32>, %batch: !model.batch)
    -> tensor<?x40xbf16> {
  // CHECK: %[[X1:.+]] = kernel.dispatch @all_reduce
  // CHECK: model.all_reduce
  // CHECK: model.add
  // CHECK-NOT: model.rms_norm
  // CHECK: kernel.yield
  // CHECK: model.logit_rows %[[X1]]
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
  %x1 = model.add %s, %x : tensor<?x40xbf16>
  %r = model.logit_rows %x1, %batch : tensor<?x40xbf16> -> tensor<?x40xbf16>
  %h = model.rms_norm %r, %w eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  return %h : tensor<?x40xbf16>
}

// -----

// Two readers: the sum itself must exist.
// CHECK-LABEL: @two_readers
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: something else than one residual add reads the sum
func.func @two_readers(%p: tensor<?x40xf32>, %x: tensor<?x40xbf16>) -> (tensor<?x40xbf16>, tensor<?x40xbf16>) {
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
  %x1 = model.add %s, %x : tensor<?x40xbf16>
  return %x1, %s : tensor<?x40xbf16>, tensor<?x40xbf16>
}

// -----

// CHECK-LABEL: @no_add
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: no residual add reads the sum
func.func @no_add(%p: tensor<?x40xf32>, %w: tensor<40xf32>) -> tensor<?x40xbf16> {
  %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
  %h = model.rms_norm %s, %w eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
  return %h : tensor<?x40xbf16>
}
