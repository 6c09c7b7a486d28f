// RUN: qwen-opt %s --dispatch-remaining --split-input-file | FileCheck %s

// Each op in the family that names it; weights, states and what is dispatched already stay.
// CHECK-LABEL: func.func @ops
module {
  model.param @embed group "model" transform "none" sources [[]] : tensor<101x40xf32>
  func.func @ops(%ids: tensor<?xi32>, %n: tensor<40xf32>, %m: tensor<40x40xf32>, %p: tensor<?x40xf32>,
                 %batch: !model.batch) -> (tensor<?xi32>, tensor<?xi32>) {
    // CHECK-NEXT: model.weight @embed
    %w = model.weight @embed : tensor<101x40xf32>
    // CHECK-NEXT: kernel.dispatch @embed
    %x = model.embed %ids, %w : (tensor<?xi32>, tensor<101x40xf32>) -> tensor<?x40xf32>
    // CHECK: kernel.dispatch @rms_norm
    %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xf32>, tensor<40xf32>
    // CHECK: kernel.dispatch @linear
    %y = model.linear %h, %m : (tensor<?x40xf32>, tensor<40x40xf32>) -> tensor<?x40xf32>
    // CHECK: kernel.dispatch @elementwise
    // CHECK-NEXT: model.concat
    %c = model.concat %h, %y : (tensor<?x40xf32>, tensor<?x40xf32>) -> tensor<?x80xf32>
    // CHECK: kernel.dispatch @elementwise
    // CHECK-NEXT: model.split
    %a, %b = model.split %c heads 1 : (tensor<?x80xf32>) -> (tensor<?x40xf32>, tensor<?x40xf32>)
    // CHECK: kernel.dispatch @elementwise
    // CHECK-NEXT: model.add
    %d = model.add %a, %b : tensor<?x40xf32>
    // CHECK: kernel.dispatch @all_reduce
    // CHECK-NEXT: model.all_reduce
    %e = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xf32>
    // CHECK: kernel.dispatch @linear
    // CHECK-NEXT: model.linear
    // CHECK-NEXT: model.add
    // CHECK-NEXT: kernel.yield
    %f = kernel.dispatch @linear(%ie = %e : tensor<?x40xf32>, %im = %m : tensor<40x40xf32>, %id = %d : tensor<?x40xf32>)
        -> (tensor<?x40xf32>) {
      %g = model.linear %ie, %im : (tensor<?x40xf32>, tensor<40x40xf32>) -> tensor<?x40xf32>
      %i = model.add %g, %id : tensor<?x40xf32>
      kernel.yield %i : tensor<?x40xf32>
    }
    // CHECK: kernel.dispatch @lm_head
    // CHECK-NEXT: model.lm_head
    %l = model.lm_head %f, %w : (tensor<?x40xf32>, tensor<101x40xf32>) -> tensor<?x101xf32>
    // CHECK: kernel.dispatch @all_reduce
    // CHECK-NEXT: model.all_gather
    %j = model.all_gather %l counts [101, 0] : tensor<?x101xf32> -> tensor<?x101xf32>
    // CHECK: kernel.dispatch @lm_head
    // CHECK-NEXT: model.sample
    %next = model.sample %j, %batch : tensor<?x101xf32> -> tensor<?xi32>
    // CHECK: kernel.dispatch @elementwise
    // CHECK-NEXT: model.accept
    %acc, %emit = model.accept %next, %ids, %batch : tensor<?xi32>, tensor<?xi32> -> tensor<?xi32>, tensor<?xi32>
    return %acc, %emit : tensor<?xi32>, tensor<?xi32>
  }
}

// -----

// An op with effects and without results.
// CHECK-LABEL: func.func @effects
func.func @effects(%k: tensor<?x16xf32>, %batch: !model.batch) {
  // CHECK: model.state
  // CHECK-NEXT: kernel.dispatch @attention
  // CHECK-NEXT: model.kv_append
  %c = model.state "layers.0.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  return
}
