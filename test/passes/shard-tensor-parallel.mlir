// RUN: qwen-opt %s --shard-tensor-parallel=tp=3 --verify-stage=stage=shard --split-input-file | FileCheck %s
// RUN: qwen-opt %s --shard-tensor-parallel=tp=1 --verify-stage=stage=shard --split-input-file | FileCheck %s --check-prefix=ONE

// Attention: 5 query heads are 2, 2 and 1; a rank keeps the KV heads its queries read, the middle one both. Query and
// gate of a head lie side by side, so a head is 8 rows of @q. The output projection's parts are summed in f32.
// ONE: module attributes {model.tp = 1 : i64}
// ONE: func.func @attention
// ONE-SAME: model.rank = 0
// ONE-NOT: slices
// ONE-NOT: model.all_reduce
// CHECK: module attributes {model.tp = 3 : i64}
// CHECK-NOT: func.func @attention(
// CHECK-LABEL: func.func @attention_r0
// CHECK-SAME: model.program = "step", model.rank = 0
// CHECK: model.weight @layers.0.attn.q slices {{\[\[}}0, 16], []] : tensor<16x20xbf16>
// CHECK: model.weight @layers.0.attn.kv slices {{\[\[}}0, 4], []] : tensor<4x20xbf16>
// CHECK: model.state "layers.0.attn" : !model.kv_cache<1x4, bf16>
// CHECK: kv_map [0, 0]
// CHECK: model.weight @layers.0.attn.o slices {{\[\[}}], [0, 8]] : tensor<20x8xbf16>
// CHECK-LABEL: func.func @attention_r1
// CHECK-SAME: %[[B:[^:]+]]: !model.batch, %[[X:[^:]+]]: tensor<?x20xbf16>
// CHECK: %[[WQ:.+]] = model.weight @layers.0.attn.q slices {{\[\[}}16, 32], []] : tensor<16x20xbf16>
// CHECK: model.linear %[[X]], %[[WQ]] : {{.*}} -> tensor<?x16xbf16>
// CHECK: %[[Q:.+]]:2 = model.split %{{.+}} heads 2 : (tensor<?x16xbf16>) -> (tensor<?x8xbf16>, tensor<?x8xbf16>)
// CHECK: model.weight @layers.0.attn.kv : tensor<8x20xbf16>
// CHECK: %[[C:.+]] = model.state "layers.0.attn" : !model.kv_cache<2x4, bf16>
// CHECK: model.kv_append %{{.+}}, %{{.+}}, %[[C]], %[[B]]
// CHECK: %[[O:.+]] = model.attention %{{.+}}, %[[C]], %[[B]] kv_map [0, 1] scale
// CHECK: %[[Y:.+]] = model.sigmoid_gate %[[O]], %[[Q]]#1 : tensor<?x8xbf16>
// CHECK: %[[WO:.+]] = model.weight @layers.0.attn.o slices {{\[\[}}], [8, 16]] : tensor<20x8xbf16>
// CHECK: %[[P:.+]] = model.linear %[[Y]], %[[WO]] : {{.*}} -> tensor<?x20xf32>
// CHECK: %[[S:.+]] = model.all_reduce %[[P]] : tensor<?x20xf32> -> tensor<?x20xbf16>
// CHECK: model.add %[[S]], %[[X]]
// CHECK-LABEL: func.func @attention_r2
// CHECK: model.weight @layers.0.attn.q slices {{\[\[}}32, 40], []] : tensor<8x20xbf16>
// CHECK: model.split %{{.+}} heads 1 :
// CHECK: model.weight @layers.0.attn.kv slices {{\[\[}}4, 8], []] : tensor<4x20xbf16>
// CHECK: model.state "layers.0.attn" : !model.kv_cache<1x4, bf16>
// CHECK: kv_map [0] scale
module {
  model.param @layers.0.attn.q group "model" transform "none" sources [[]] : tensor<40x20xbf16>
  model.param @layers.0.attn.kv group "model" transform "none" sources [[]] : tensor<8x20xbf16>
  model.param @layers.0.attn.o group "model" transform "none" sources [[]] : tensor<20x20xbf16>
  func.func @attention(%batch: !model.batch, %x: tensor<?x20xbf16>, %n: tensor<4xf32>) -> tensor<?x20xbf16>
      attributes {model.program = "step", model.rank = 0 : i64} {
    %wq = model.weight @layers.0.attn.q : tensor<40x20xbf16>
    %qg = model.linear %x, %wq : (tensor<?x20xbf16>, tensor<40x20xbf16>) -> tensor<?x40xbf16>
    %q, %gate = model.split %qg heads 5 : (tensor<?x40xbf16>) -> (tensor<?x20xbf16>, tensor<?x20xbf16>)
    %wk = model.weight @layers.0.attn.kv : tensor<8x20xbf16>
    %k = model.linear %x, %wk : (tensor<?x20xbf16>, tensor<8x20xbf16>) -> tensor<?x8xbf16>
    %v = model.linear %x, %wk : (tensor<?x20xbf16>, tensor<8x20xbf16>) -> tensor<?x8xbf16>
    %qn = model.qk_norm %q, %n eps 1.0e-06 : tensor<?x20xbf16>, tensor<4xf32>
    %kn = model.qk_norm %k, %n eps 1.0e-06 : tensor<?x8xbf16>, tensor<4xf32>
    %qr = model.rope %qn, %batch head_dim 4 inv_freq [1.0] factor 1.0 : tensor<?x20xbf16>
    %kr = model.rope %kn, %batch head_dim 4 inv_freq [1.0] factor 1.0 : tensor<?x8xbf16>
    %c = model.state "layers.0.attn" : !model.kv_cache<2x4, bf16>
    model.kv_append %kr, %v, %c, %batch : tensor<?x8xbf16>, tensor<?x8xbf16>, !model.kv_cache<2x4, bf16>
    %o = model.attention %qr, %c, %batch kv_map [0, 0, 0, 1, 1] scale 0.5 mask "causal" window 0 : tensor<?x20xbf16>, !model.kv_cache<2x4, bf16>
    %y = model.sigmoid_gate %o, %gate : tensor<?x20xbf16>
    %wo = model.weight @layers.0.attn.o : tensor<20x20xbf16>
    %p = model.linear %y, %wo : (tensor<?x20xbf16>, tensor<20x20xbf16>) -> tensor<?x20xbf16>
    %x1 = model.add %p, %x : tensor<?x20xbf16>
    return %x1 : tensor<?x20xbf16>
  }
}

// -----

// One query head on three ranks: the other two have no heads, not all of them.
// CHECK-LABEL: func.func @one_head_r0
// CHECK: model.weight @layers.0.attn.q : tensor<8x20xbf16>
// CHECK: kv_map [0] scale
// CHECK-LABEL: func.func @one_head_r2
// CHECK: %[[W:.+]] = model.weight @layers.0.attn.q slices {{\[\[}}0, 0], []] : tensor<0x20xbf16>
// CHECK: %[[Q:.+]] = model.linear %{{.+}}, %[[W]] : {{.*}} -> tensor<?x0xbf16>
// CHECK: %[[C:.+]] = model.state "layers.0.attn" : !model.kv_cache<0x8, bf16>
// CHECK: model.kv_append %[[Q]], %[[Q]], %[[C]]
// CHECK: model.attention %[[Q]], %[[C]], %{{.+}} kv_map [] scale
// CHECK: model.weight @layers.0.attn.o slices {{\[\[}}], [0, 0]] : tensor<20x0xbf16>
// CHECK: model.all_reduce
module {
  model.param @layers.0.attn.q group "model" transform "none" sources [[]] : tensor<8x20xbf16>
  model.param @layers.0.attn.o group "model" transform "none" sources [[]] : tensor<20x8xbf16>
  func.func @one_head(%batch: !model.batch, %x: tensor<?x20xbf16>) -> tensor<?x20xbf16>
      attributes {model.program = "step", model.rank = 0 : i64} {
    %w = model.weight @layers.0.attn.q : tensor<8x20xbf16>
    %q = model.linear %x, %w : (tensor<?x20xbf16>, tensor<8x20xbf16>) -> tensor<?x8xbf16>
    %c = model.state "layers.0.attn" : !model.kv_cache<1x8, bf16>
    model.kv_append %q, %q, %c, %batch : tensor<?x8xbf16>, tensor<?x8xbf16>, !model.kv_cache<1x8, bf16>
    %o = model.attention %q, %c, %batch kv_map [0] scale 0.5 mask "causal" window 0 : tensor<?x8xbf16>, !model.kv_cache<1x8, bf16>
    %wo = model.weight @layers.0.attn.o : tensor<20x8xbf16>
    %p = model.linear %o, %wo : (tensor<?x8xbf16>, tensor<20x8xbf16>) -> tensor<?x20xbf16>
    return %p : tensor<?x20xbf16>
  }
}

// -----

!state = !model.recurrent_state<k 2 v 4 dk 8 dv 4 w 4, f32>
// The delta rule on three ranks with two key heads: the last rank has none. Its tensors have no channels and it adds
// zeros. The first has key head 0 with value heads 0 and 1, as three ranges of q | k | v, which the convolution and its
// state follow.
// CHECK-LABEL: func.func @delta_r0
// CHECK: model.weight @layers.1.gdn.qkv slices {{\[\[}}0, 8, 16, 24, 32, 40], []] : tensor<24x20xf32>
// CHECK: model.weight @layers.1.gdn.z slices {{\[\[}}0, 8], []] : tensor<8x20xf32>
// CHECK: model.weight @layers.1.gdn.ba slices {{\[\[}}0, 2], []] : tensor<2x20xf32>
// CHECK: model.state "layers.1.gdn" : !model.recurrent_state<k 1 v 2 dk 8 dv 4 w 4, f32>
// CHECK: model.weight @layers.1.gdn.conv slices {{\[\[}}0, 8, 16, 24, 32, 40], []] : tensor<24x4xf32>
// CHECK: model.split %{{.+}} heads 1 : (tensor<?x24xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>)
// CHECK: model.weight @layers.1.gdn.a_log slices {{\[\[}}0, 2]] : tensor<2xf32>
// CHECK: model.weight @layers.1.gdn.gated_norm : tensor<4xf32>
// CHECK: model.weight @layers.1.gdn.out slices {{\[\[}}], [0, 8]] : tensor<20x8xf32>
// CHECK-LABEL: func.func @delta_r1
// CHECK: model.weight @layers.1.gdn.qkv slices {{\[\[}}8, 16, 24, 32, 40, 48], []] : tensor<24x20xf32>
// CHECK-LABEL: func.func @delta_r2
// CHECK: model.weight @layers.1.gdn.qkv slices {{\[\[}}0, 0], []] : tensor<0x20xf32>
// CHECK: model.linear {{.*}} -> tensor<?x0xf32>
// CHECK: model.state "layers.1.gdn" : !model.recurrent_state<k 0 v 0 dk 8 dv 4 w 4, f32>
// CHECK: model.weight @layers.1.gdn.conv slices {{\[\[}}0, 0], []] : tensor<0x4xf32>
// CHECK: model.weight @layers.1.gdn.a_log slices {{\[\[}}0, 0]] : tensor<0xf32>
// CHECK: model.gated_delta_rule {{.*}} -> tensor<?x0xf32>
// CHECK: model.weight @layers.1.gdn.out slices {{\[\[}}], [0, 0]] : tensor<20x0xf32>
// CHECK: model.linear {{.*}} -> tensor<?x20xf32>
// CHECK: model.all_reduce
module {
  model.param @layers.1.gdn.qkv group "model" transform "none" sources [[]] : tensor<48x20xf32>
  model.param @layers.1.gdn.z group "model" transform "none" sources [[]] : tensor<16x20xf32>
  model.param @layers.1.gdn.ba group "model" transform "none" sources [[]] : tensor<4x20xf32>
  model.param @layers.1.gdn.conv group "model" transform "to_f32" sources [[]] : tensor<48x4xf32>
  model.param @layers.1.gdn.a_log group "model" transform "to_f32" sources [[]] : tensor<4xf32>
  model.param @layers.1.gdn.gated_norm group "model" transform "to_f32" sources [[]] : tensor<4xf32>
  model.param @layers.1.gdn.out group "model" transform "none" sources [[]] : tensor<20x16xf32>
  func.func @delta(%batch: !model.batch, %x: tensor<?x20xf32>) -> tensor<?x20xf32>
      attributes {model.program = "step", model.rank = 0 : i64} {
    %wqkv = model.weight @layers.1.gdn.qkv : tensor<48x20xf32>
    %qkv = model.linear %x, %wqkv : (tensor<?x20xf32>, tensor<48x20xf32>) -> tensor<?x48xf32>
    %wz = model.weight @layers.1.gdn.z : tensor<16x20xf32>
    %z = model.linear %x, %wz : (tensor<?x20xf32>, tensor<16x20xf32>) -> tensor<?x16xf32>
    %wb = model.weight @layers.1.gdn.ba : tensor<4x20xf32>
    %b = model.linear %x, %wb : (tensor<?x20xf32>, tensor<4x20xf32>) -> tensor<?x4xf32>
    %a = model.linear %x, %wb : (tensor<?x20xf32>, tensor<4x20xf32>) -> tensor<?x4xf32>
    %s = model.state "layers.1.gdn" : !state
    %cw = model.weight @layers.1.gdn.conv : tensor<48x4xf32>
    %c = model.causal_conv1d %qkv, %cw, %s, %batch : tensor<?x48xf32>, tensor<48x4xf32>, !state
    %q, %k, %v = model.split %c heads 1 : (tensor<?x48xf32>) -> (tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>)
    %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x16xf32>
    %kn = model.l2_norm %k head_dim 8 eps 1.0e-06 scale 1.0 : tensor<?x16xf32>
    %al = model.weight @layers.1.gdn.a_log : tensor<4xf32>
    %beta, %g = model.delta_gates %b, %a, %al, %al : (tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
    %o = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s, %batch : (tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x4xf32>, tensor<?x4xf32>, !state, !model.batch) -> tensor<?x16xf32>
    %n = model.weight @layers.1.gdn.gated_norm : tensor<4xf32>
    %y = model.gated_rms_norm %o, %z, %n eps 1.0e-06 activation "silu" : tensor<?x16xf32>, tensor<4xf32>
    %wo = model.weight @layers.1.gdn.out : tensor<20x16xf32>
    %p = model.linear %y, %wo : (tensor<?x16xf32>, tensor<20x16xf32>) -> tensor<?x20xf32>
    %x1 = model.add %p, %x : tensor<?x20xf32>
    return %x1 : tensor<?x20xf32>
  }
}

// -----

// Dense feed-forward of 40 channels: units of 16, the last of 8.
// CHECK-LABEL: func.func @dense_r0
// CHECK: model.weight @layers.0.mlp.gate slices {{\[\[}}0, 16], []]
// CHECK: model.weight @layers.0.mlp.down slices {{\[\[}}], [0, 16]]
// CHECK-LABEL: func.func @dense_r2
// CHECK: model.weight @layers.0.mlp.gate slices {{\[\[}}32, 40], []]
// CHECK: model.silu_mul {{.*}} : tensor<?x8xbf16>
// CHECK: model.weight @layers.0.mlp.down slices {{\[\[}}], [32, 40]]
// CHECK: model.all_reduce
module {
  model.param @layers.0.mlp.gate group "model" transform "none" sources [[]] : tensor<40x20xbf16>
  model.param @layers.0.mlp.down group "model" transform "none" sources [[]] : tensor<20x40xbf16>
  func.func @dense(%x: tensor<?x20xbf16>) -> tensor<?x20xbf16> attributes {model.program = "step", model.rank = 0 : i64} {
    %wg = model.weight @layers.0.mlp.gate : tensor<40x20xbf16>
    %g = model.linear %x, %wg : (tensor<?x20xbf16>, tensor<40x20xbf16>) -> tensor<?x40xbf16>
    %u = model.linear %x, %wg : (tensor<?x20xbf16>, tensor<40x20xbf16>) -> tensor<?x40xbf16>
    %m = model.silu_mul %g, %u : tensor<?x40xbf16>
    %wd = model.weight @layers.0.mlp.down : tensor<20x40xbf16>
    %p = model.linear %m, %wd : (tensor<?x40xbf16>, tensor<20x40xbf16>) -> tensor<?x20xbf16>
    %x1 = model.add %p, %x : tensor<?x20xbf16>
    return %x1 : tensor<?x20xbf16>
  }
}

// -----

// The vocabulary in units of 64 rows: 101 are 64 and 37, and nothing for the last. The logits are gathered before the
// draw; the tied embedding stays whole.
// CHECK-LABEL: func.func @head_r1
// CHECK: model.weight @embed : tensor<101x20xbf16>
// CHECK: model.embed
// CHECK: model.weight @lm_head slices {{\[\[}}64, 101], []] : tensor<37x20xbf16>
// CHECK: %[[L:.+]] = model.lm_head {{.*}} -> tensor<?x37xf32>
// CHECK: %[[A:.+]] = model.all_gather %[[L]] counts [64, 37, 0] : tensor<?x37xf32> -> tensor<?x101xf32>
// CHECK: %[[N:.+]] = model.sample %[[A]]
// CHECK: return %[[N]], %[[A]]
// CHECK-LABEL: func.func @head_r2
// CHECK: model.weight @lm_head slices {{\[\[}}0, 0], []] : tensor<0x20xbf16>
module {
  model.param @embed group "model" transform "none" sources [[]] : tensor<101x20xbf16>
  model.param @lm_head group "model" transform "none" sources [] alias @embed : tensor<101x20xbf16>
  func.func @head(%batch: !model.batch, %ids: tensor<?xi32>) -> (tensor<?xi32>, tensor<?x101xf32>)
      attributes {model.program = "step", model.rank = 0 : i64} {
    %we = model.weight @embed : tensor<101x20xbf16>
    %x = model.embed %ids, %we : (tensor<?xi32>, tensor<101x20xbf16>) -> tensor<?x20xbf16>
    %r = model.logit_rows %x, %batch : tensor<?x20xbf16> -> tensor<?x20xbf16>
    %wl = model.weight @lm_head : tensor<101x20xbf16>
    %l = model.lm_head %r, %wl : (tensor<?x20xbf16>, tensor<101x20xbf16>) -> tensor<?x101xf32>
    %next = model.sample %l, %batch : tensor<?x101xf32> -> tensor<?xi32>
    return %next, %l : tensor<?xi32>, tensor<?x101xf32>
  }
}
