// RUN: qwen-opt %s --shard-tensor-parallel=tp=2 | FileCheck %s

// Two programs share a cache: the one that only writes it follows the heads of the one that reads it. A convolution
// over whole rows behind the output projection sees the sum.
// CHECK-LABEL: func.func @context_r1
// CHECK: model.weight @draft.layers.0.attn.k slices {{\[\[}}4, 8], []] : tensor<4x20xf32>
// CHECK: model.state "draft.layers.0.attn" : !model.kv_cache<1x4, f32>
// CHECK: model.kv_append
// CHECK-LABEL: func.func @draft_r1
// CHECK: kv_map [0, 0] scale
// CHECK: %[[P:.+]] = model.linear {{.*}} -> tensor<?x20xf32>
// CHECK: %[[S:.+]] = model.all_reduce %[[P]]
// CHECK: model.dynamic_conv %[[S]]
module {
  model.param @draft.layers.0.attn.q group "draft" transform "none" sources [[]] : tensor<16x20xf32>
  model.param @draft.layers.0.attn.k group "draft" transform "none" sources [[]] : tensor<8x20xf32>
  model.param @draft.layers.0.attn.o group "draft" transform "none" sources [[]] : tensor<20x16xf32>
  func.func @context(%batch: !model.batch, %x: tensor<?x20xf32>)
      attributes {model.program = "draft_dflash_context", model.rank = 0 : i64} {
    %wk = model.weight @draft.layers.0.attn.k : tensor<8x20xf32>
    %k = model.linear %x, %wk : (tensor<?x20xf32>, tensor<8x20xf32>) -> tensor<?x8xf32>
    %c = model.state "draft.layers.0.attn" : !model.kv_cache<2x4, f32>
    model.kv_append %k, %k, %c, %batch : tensor<?x8xf32>, tensor<?x8xf32>, !model.kv_cache<2x4, f32>
    return
  }
  func.func @draft(%batch: !model.batch, %x: tensor<?x20xf32>, %coef: tensor<?x20xf32>, %base: tensor<2x1x20xf32>) -> tensor<?x20xf32>
      attributes {model.program = "draft_dflash", model.rank = 0 : i64} {
    %wq = model.weight @draft.layers.0.attn.q : tensor<16x20xf32>
    %q = model.linear %x, %wq : (tensor<?x20xf32>, tensor<16x20xf32>) -> tensor<?x16xf32>
    %c = model.state "draft.layers.0.attn" : !model.kv_cache<2x4, f32>
    %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.5 mask "block" window 0 : tensor<?x16xf32>, !model.kv_cache<2x4, f32>
    %wo = model.weight @draft.layers.0.attn.o : tensor<20x16xf32>
    %p = model.linear %o, %wo : (tensor<?x16xf32>, tensor<20x16xf32>) -> tensor<?x20xf32>
    %y = model.dynamic_conv %p, %coef, %base, %batch group 2 index 1 : (tensor<?x20xf32>, tensor<?x20xf32>, tensor<2x1x20xf32>, !model.batch) -> tensor<?x20xf32>
    %x1 = model.add %y, %x : tensor<?x20xf32>
    return %x1 : tensor<?x20xf32>
  }
}
