// RUN: qwen-opt %s --fuse-gated-delta-net --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-gated-delta-net=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

!state = !model.recurrent_state<k 1 v 2 dk 8 dv 4 w 4, f32>
// Convolution to recurrence; only the rule's rows leave the region.
// CHECK-LABEL: @mixer
// CHECK-SAME: %[[QKV:[^:]+]]: tensor<?x24xf32>, %[[B:[^:]+]]: {{.*}}, %[[A:[^:]+]]: {{.*}}, %[[CW:[^:]+]]: tensor<24x4xf32>
func.func @mixer(%qkv: tensor<?x24xf32>, %b: tensor<?x2xf32>, %a: tensor<?x2xf32>, %cw: tensor<24x4xf32>,
                 %al: tensor<2xf32>, %dt: tensor<2xf32>, %batch: !model.batch) -> tensor<?x8xf32> {
  // CHECK: %[[S:.+]] = model.state "layers.0.gdn"
  // CHECK: %[[OUT:.+]] = kernel.dispatch @gdn(%{{.+}} = %[[QKV]] : {{.*}}, %{{.+}} = %[[CW]] : {{.*}}, %{{.+}} = %[[S]] : {{.*}}, %{{.+}} = %{{.+}} : !model.batch, %{{.+}} = %[[B]] : {{.*}}, %{{.+}} = %[[A]] : {{.*}}) -> (tensor<?x8xf32>)
  // CHECK: model.causal_conv1d
  // CHECK: model.split
  // CHECK-COUNT-2: model.l2_norm
  // CHECK: model.delta_gates
  // CHECK: %[[Y:.+]] = model.gated_delta_rule
  // CHECK: kernel.yield %[[Y]]
  // CHECK: return %[[OUT]]
  %s = model.state "layers.0.gdn" : !state
  %c = model.causal_conv1d %qkv, %cw, %s, %batch : tensor<?x24xf32>, tensor<24x4xf32>, !state
  %q, %k, %v = model.split %c heads 1 : (tensor<?x24xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>)
  %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x8xf32>
  %kn = model.l2_norm %k head_dim 8 eps 1.0e-06 scale 1.0 : tensor<?x8xf32>
  %beta, %g = model.delta_gates %b, %a, %al, %dt : (tensor<?x2xf32>, tensor<?x2xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>)
  %y = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s, %batch : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xf32>, tensor<?x2xf32>, !state, !model.batch) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

!state = !model.recurrent_state<k 1 v 2 dk 8 dv 4 w 4, f32>
// The convolved rows are handed out.
// CHECK-LABEL: @read_outside
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: is read from outside the mixer
func.func @read_outside(%qkv: tensor<?x24xf32>, %cw: tensor<24x4xf32>, %b: tensor<?x2xf32>, %al: tensor<2xf32>, %batch: !model.batch)
    -> (tensor<?x8xf32>, tensor<?x24xf32>) {
  %s = model.state "layers.0.gdn" : !state
  %c = model.causal_conv1d %qkv, %cw, %s, %batch : tensor<?x24xf32>, tensor<24x4xf32>, !state
  %q, %k, %v = model.split %c heads 1 : (tensor<?x24xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>)
  %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x8xf32>
  %kn = model.l2_norm %k head_dim 8 eps 1.0e-06 scale 1.0 : tensor<?x8xf32>
  %beta, %g = model.delta_gates %b, %b, %al, %al : (tensor<?x2xf32>, tensor<?x2xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>)
  %y = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s, %batch : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xf32>, tensor<?x2xf32>, !state, !model.batch) -> tensor<?x8xf32>
  return %y, %c : tensor<?x8xf32>, tensor<?x24xf32>
}

// -----

!state = !model.recurrent_state<k 1 v 2 dk 8 dv 4 w 4, f32>
// The convolution reads another layer's history.
// CHECK-LABEL: @other_state
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: has another state than the rule
func.func @other_state(%qkv: tensor<?x24xf32>, %cw: tensor<24x4xf32>, %b: tensor<?x2xf32>, %al: tensor<2xf32>, %batch: !model.batch)
    -> tensor<?x8xf32> {
  %s0 = model.state "layers.0.gdn" : !state
  %s1 = model.state "layers.1.gdn" : !state
  %c = model.causal_conv1d %qkv, %cw, %s0, %batch : tensor<?x24xf32>, tensor<24x4xf32>, !state
  %q, %k, %v = model.split %c heads 1 : (tensor<?x24xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>)
  %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x8xf32>
  %kn = model.l2_norm %k head_dim 8 eps 1.0e-06 scale 1.0 : tensor<?x8xf32>
  %beta, %g = model.delta_gates %b, %b, %al, %al : (tensor<?x2xf32>, tensor<?x2xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>)
  %y = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s1, %batch : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xf32>, tensor<?x2xf32>, !state, !model.batch) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

!state = !model.recurrent_state<k 1 v 2 dk 8 dv 4 w 4, f32>
// Keys without their norm are another rule.
// CHECK-LABEL: @no_key_norm
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: q and k are not both from a model.l2_norm
func.func @no_key_norm(%q: tensor<?x8xf32>, %g: tensor<?x2xf32>, %batch: !model.batch) -> tensor<?x8xf32> {
  %s = model.state "layers.0.gdn" : !state
  %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x8xf32>
  %y = model.gated_delta_rule %qn, %q, %q, %g, %g, %s, %batch : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xf32>, tensor<?x2xf32>, !state, !model.batch) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
