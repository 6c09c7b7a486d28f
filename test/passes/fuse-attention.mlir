// RUN: qwen-opt %s --fuse-attention --split-input-file | FileCheck %s
// RUN: qwen-opt %s --fuse-attention=explain --split-input-file 2>&1 | FileCheck %s --check-prefix=WHY

// All optional parts: gate beside the query, norms, rotations, output gate.
// CHECK-LABEL: @gated
// CHECK-SAME: %[[QG:[^:]+]]: tensor<?x64xf32>, %[[K:[^:]+]]: {{.*}}, %[[V:[^:]+]]: {{.*}}, %[[N:[^:]+]]: tensor<8xf32>
func.func @gated(%qg: tensor<?x64xf32>, %k: tensor<?x16xf32>, %v: tensor<?x16xf32>, %n: tensor<8xf32>,
                 %batch: !model.batch) -> tensor<?x32xf32> {
  // CHECK: %[[C:.+]] = model.state "layers.3.attn"
  // CHECK: %[[OUT:.+]] = kernel.dispatch @attention(%{{.+}} = %[[QG]] : {{.*}}, %{{.+}} = %[[N]] : {{.*}}, %{{.+}} = %[[K]] : {{.*}}, %{{.+}} = %{{.+}} : !model.batch, %{{.+}} = %[[V]] : {{.*}}, %{{.+}} = %[[C]] : {{.*}}) -> (tensor<?x32xf32>)
  // CHECK: model.split
  // CHECK-COUNT-2: model.qk_norm
  // CHECK-COUNT-2: model.rope
  // CHECK: model.kv_append
  // CHECK: model.attention
  // CHECK: %[[Y:.+]] = model.sigmoid_gate
  // CHECK: kernel.yield %[[Y]]
  // CHECK: return %[[OUT]]
  %q, %gate = model.split %qg heads 4 : (tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>)
  %qn = model.qk_norm %q, %n eps 1.0e-06 : tensor<?x32xf32>, tensor<8xf32>
  %kn = model.qk_norm %k, %n eps 1.0e-06 : tensor<?x16xf32>, tensor<8xf32>
  %qr = model.rope %qn, %batch head_dim 8 inv_freq [1.0] factor 1.0 : tensor<?x32xf32>
  %kr = model.rope %kn, %batch head_dim 8 inv_freq [1.0] factor 1.0 : tensor<?x16xf32>
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %kr, %v, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  %o = model.attention %qr, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  %y = model.sigmoid_gate %o, %gate : tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// -----

// None of them: rows as the projections give them.
// CHECK-LABEL: @plain
func.func @plain(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %v: tensor<?x16xf32>, %batch: !model.batch) -> tensor<?x32xf32> {
  // CHECK: kernel.dispatch @attention
  // CHECK-NEXT: model.kv_append
  // CHECK-NEXT: model.attention
  // CHECK-NEXT: kernel.yield
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %k, %v, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  return %o : tensor<?x32xf32>
}

// -----

// A drafter's context program only writes the cache.
// CHECK-LABEL: @context
func.func @context(%k: tensor<?x16xf32>, %v: tensor<?x16xf32>, %n: tensor<8xf32>, %batch: !model.batch) {
  // CHECK: kernel.dispatch @attention({{.*}}) attributes
  // CHECK-NEXT: model.qk_norm
  // CHECK-NEXT: model.rope
  // CHECK-NEXT: model.kv_append
  // CHECK-NEXT: kernel.yield{{$}}
  %kn = model.qk_norm %k, %n eps 1.0e-06 : tensor<?x16xf32>, tensor<8xf32>
  %kr = model.rope %kn, %batch head_dim 8 inv_freq [1.0] factor 1.0 : tensor<?x16xf32>
  %c = model.state "draft.layers.0.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %kr, %v, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  return
}

// -----

// The normed keys are handed out: norm and rotation stay outside, the rest is fused.
// CHECK-LABEL: @keys_read_outside
func.func @keys_read_outside(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %n: tensor<8xf32>, %batch: !model.batch)
    -> (tensor<?x32xf32>, tensor<?x16xf32>) {
  // CHECK: %[[KN:.+]] = model.qk_norm
  // CHECK: kernel.dispatch @attention({{.*}} = %[[KN]] :
  // CHECK-NOT: model.qk_norm
  %kn = model.qk_norm %k, %n eps 1.0e-06 : tensor<?x16xf32>, tensor<8xf32>
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %kn, %kn, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  return %o, %kn : tensor<?x32xf32>, tensor<?x16xf32>
}

// -----

// CHECK-LABEL: @two_appends
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: 2 ops append to its cache, a region takes one
func.func @two_appends(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %batch: !model.batch) -> tensor<?x32xf32> {
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  return %o : tensor<?x32xf32>
}

// -----

// CHECK-LABEL: @late_append
// CHECK-NOT: kernel.dispatch
// WHY: remark: not fused: appends to the cache only after the attention
func.func @late_append(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %batch: !model.batch) -> tensor<?x32xf32> {
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  return %o : tensor<?x32xf32>
}

// -----

// Something reads the cache between the write and the attention: it would see the cache without the rows.
// CHECK-LABEL: @reader_between
// CHECK: model.kv_append
// CHECK: kernel.dispatch
// CHECK: kernel.yield
// CHECK: model.attention
// WHY: remark: not fused: uses the same state between the ops to fuse
func.func @reader_between(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %batch: !model.batch) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %c = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  %d = model.state "layers.3.attn" : !model.kv_cache<2x8, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x16xf32>, tensor<?x16xf32>, !model.kv_cache<2x8, f32>
  %o = kernel.dispatch @attention(%iq = %q : tensor<?x32xf32>, %ic = %d : !model.kv_cache<2x8, f32>, %ib = %batch : !model.batch)
      -> (tensor<?x32xf32>) {
    %y = model.attention %iq, %ic, %ib kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
    kernel.yield %y : tensor<?x32xf32>
  }
  %p = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 8 : tensor<?x32xf32>, !model.kv_cache<2x8, f32>
  return %o, %p : tensor<?x32xf32>, tensor<?x32xf32>
}
