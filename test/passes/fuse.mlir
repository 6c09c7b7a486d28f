// RUN: qwen-opt %s --fuse --verify-stage=stage=fuse --split-input-file --mlir-print-local-scope | FileCheck %s

// Two layers of a dense hybrid model: a delta-rule layer and an attention layer are five dispatches each.
// CHECK-LABEL: func.func @step
// CHECK: kernel.dispatch @embed({{.*}} attributes {origin = "embed"}
// CHECK: %[[IN:.+]]:4 = kernel.dispatch @linear({{.*}} -> (tensor<?x60xbf16>, tensor<?x12xbf16>, tensor<?x3xf32>, tensor<?x3xf32>) attributes {origin = "layers.0.gdn.in"}
// CHECK: model.rms_norm
// CHECK-COUNT-4: model.linear
// CHECK: %[[O:.+]] = kernel.dispatch @gdn({{.*}} -> (tensor<?x12xbf16>) attributes {origin = "layers.0.gdn.mixer"}
// CHECK: %[[X1:.+]] = kernel.dispatch @linear({{.*}} attributes {origin = "layers.0.gdn.out"}
// CHECK: model.gated_rms_norm
// CHECK: model.linear
// CHECK: model.add
// CHECK: %[[M:.+]] = kernel.dispatch @linear({{.*}}%[[X1]]{{.*}} attributes {origin = "layers.0.mlp.in"}
// CHECK: model.rms_norm
// CHECK-COUNT-2: model.linear
// CHECK: model.silu_mul
// CHECK: %[[X2:.+]] = kernel.dispatch @linear({{.*}}%[[M]]{{.*}}%[[X1]]{{.*}} attributes {origin = "layers.0.mlp.out"}
// CHECK: %[[QKV:.+]]:3 = kernel.dispatch @linear({{.*}}%[[X2]]{{.*}} attributes {origin = "layers.1.attn.in"}
// CHECK: %[[Y:.+]] = kernel.dispatch @attention({{.*}} -> (tensor<?x32xbf16>) attributes {origin = "layers.1.attn.mixer"}
// CHECK: kernel.dispatch @linear({{.*}}%[[Y]]{{.*}} attributes {origin = "layers.1.attn.out"}
// CHECK: kernel.dispatch @linear({{.*}} attributes {origin = "layers.1.mlp.in"}
// CHECK: kernel.dispatch @linear({{.*}} attributes {origin = "layers.1.mlp.out"}
// CHECK: %[[HEAD:.+]]:2 = kernel.dispatch @lm_head({{.*}} -> (tensor<?x101xf32>, tensor<?xi32>) attributes {origin = "lm_head"}
// CHECK-NOT: kernel.dispatch
// CHECK: return %[[HEAD]]#1, %[[HEAD]]#0
module {
  model.param @embed group "model" transform "none" sources [[]] : tensor<101x40xbf16>
  model.param @lm_head group "model" transform "none" sources [[]] : tensor<101x40xbf16>
  model.param @norm group "model" transform "one_plus" sources [[]] : tensor<40xf32>
  model.param @gdn.qkv group "model" transform "none" sources [[]] : tensor<60x40xbf16>
  model.param @gdn.z group "model" transform "none" sources [[]] : tensor<12x40xbf16>
  model.param @gdn.ba group "model" transform "none" sources [[]] : tensor<3x40xbf16>
  model.param @gdn.conv group "model" transform "to_f32" sources [[]] : tensor<60x4xf32>
  model.param @gdn.a_log group "model" transform "to_f32" sources [[]] : tensor<3xf32>
  model.param @gdn.gated_norm group "model" transform "to_f32" sources [[]] : tensor<4xf32>
  model.param @gdn.out group "model" transform "none" sources [[]] : tensor<40x12xbf16>
  model.param @attn.q group "model" transform "none" sources [[]] : tensor<64x40xbf16>
  model.param @attn.kv group "model" transform "none" sources [[]] : tensor<16x40xbf16>
  model.param @attn.o group "model" transform "none" sources [[]] : tensor<40x32xbf16>
  model.param @attn.q_norm group "model" transform "one_plus" sources [[]] : tensor<8xf32>
  model.param @mlp.in group "model" transform "none" sources [[]] : tensor<56x40xbf16>
  model.param @mlp.down group "model" transform "none" sources [[]] : tensor<40x56xbf16>
  func.func @step(%batch: !model.batch, %ids: tensor<?xi32>) -> (tensor<?xi32>, tensor<?x101xf32>)
      attributes {model.program = "step", model.rank = 0 : i64} {
    %table = model.weight @embed : tensor<101x40xbf16>
    %x0 = model.embed %ids, %table : (tensor<?xi32>, tensor<101x40xbf16>) -> tensor<?x40xbf16> loc("embed")
    %norm = model.weight @norm : tensor<40xf32>

    %h0 = model.rms_norm %x0, %norm eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.0.norm1")
    %wqkv = model.weight @gdn.qkv : tensor<60x40xbf16>
    %qkv = model.linear %h0, %wqkv : (tensor<?x40xbf16>, tensor<60x40xbf16>) -> tensor<?x60xbf16> loc("layers.0.gdn.in")
    %wz = model.weight @gdn.z : tensor<12x40xbf16>
    %z = model.linear %h0, %wz : (tensor<?x40xbf16>, tensor<12x40xbf16>) -> tensor<?x12xbf16> loc("layers.0.gdn.in")
    %wb = model.weight @gdn.ba : tensor<3x40xbf16>
    %b = model.linear %h0, %wb : (tensor<?x40xbf16>, tensor<3x40xbf16>) -> tensor<?x3xf32> loc("layers.0.gdn.in")
    %wa = model.weight @gdn.ba : tensor<3x40xbf16>
    %a = model.linear %h0, %wa : (tensor<?x40xbf16>, tensor<3x40xbf16>) -> tensor<?x3xf32> loc("layers.0.gdn.in")
    %s = model.state "layers.0.gdn" : !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, bf16>
    %wc = model.weight @gdn.conv : tensor<60x4xf32>
    %c = model.causal_conv1d %qkv, %wc, %s, %batch : tensor<?x60xbf16>, tensor<60x4xf32>, !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, bf16> loc("layers.0.gdn.mixer")
    %q, %k, %v = model.split %c heads 1 : (tensor<?x60xbf16>) -> (tensor<?x24xbf16>, tensor<?x24xbf16>, tensor<?x12xbf16>) loc("layers.0.gdn.mixer")
    %qn = model.l2_norm %q head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x24xbf16> loc("layers.0.gdn.mixer")
    %kn = model.l2_norm %k head_dim 8 eps 1.0e-06 scale 1.0 : tensor<?x24xbf16> loc("layers.0.gdn.mixer")
    %alog = model.weight @gdn.a_log : tensor<3xf32>
    %beta, %g = model.delta_gates %b, %a, %alog, %alog : (tensor<?x3xf32>, tensor<?x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>) loc("layers.0.gdn.mixer")
    %o = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s, %batch : (tensor<?x24xbf16>, tensor<?x24xbf16>, tensor<?x12xbf16>, tensor<?x3xf32>, tensor<?x3xf32>, !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, bf16>, !model.batch) -> tensor<?x12xbf16> loc("layers.0.gdn.mixer")
    %gn = model.weight @gdn.gated_norm : tensor<4xf32>
    %y = model.gated_rms_norm %o, %z, %gn eps 1.0e-06 activation "silu" : tensor<?x12xbf16>, tensor<4xf32> loc("layers.0.gdn.out")
    %wout = model.weight @gdn.out : tensor<40x12xbf16>
    %p = model.linear %y, %wout : (tensor<?x12xbf16>, tensor<40x12xbf16>) -> tensor<?x40xbf16> loc("layers.0.gdn.out")
    %x1 = model.add %p, %x0 : tensor<?x40xbf16> loc("layers.0.gdn.out")
    %h1 = model.rms_norm %x1, %norm eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.0.norm2")
    %wg = model.weight @mlp.in : tensor<56x40xbf16>
    %gate = model.linear %h1, %wg : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16> loc("layers.0.mlp.in")
    %wu = model.weight @mlp.in : tensor<56x40xbf16>
    %up = model.linear %h1, %wu : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16> loc("layers.0.mlp.in")
    %m = model.silu_mul %gate, %up : tensor<?x56xbf16> loc("layers.0.mlp.in")
    %wd = model.weight @mlp.down : tensor<40x56xbf16>
    %p1 = model.linear %m, %wd : (tensor<?x56xbf16>, tensor<40x56xbf16>) -> tensor<?x40xbf16> loc("layers.0.mlp.out")
    %x2 = model.add %p1, %x1 : tensor<?x40xbf16> loc("layers.0")

    %h2 = model.rms_norm %x2, %norm eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.1.norm1")
    %wq2 = model.weight @attn.q : tensor<64x40xbf16>
    %qg = model.linear %h2, %wq2 : (tensor<?x40xbf16>, tensor<64x40xbf16>) -> tensor<?x64xbf16> loc("layers.1.attn.in")
    %q2, %gate2 = model.split %qg heads 4 : (tensor<?x64xbf16>) -> (tensor<?x32xbf16>, tensor<?x32xbf16>) loc("layers.1.attn.in")
    %wk2 = model.weight @attn.kv : tensor<16x40xbf16>
    %k2 = model.linear %h2, %wk2 : (tensor<?x40xbf16>, tensor<16x40xbf16>) -> tensor<?x16xbf16> loc("layers.1.attn.in")
    %wv2 = model.weight @attn.kv : tensor<16x40xbf16>
    %v2 = model.linear %h2, %wv2 : (tensor<?x40xbf16>, tensor<16x40xbf16>) -> tensor<?x16xbf16> loc("layers.1.attn.in")
    %nq = model.weight @attn.q_norm : tensor<8xf32>
    %qn2 = model.qk_norm %q2, %nq eps 1.0e-06 : tensor<?x32xbf16>, tensor<8xf32> loc("layers.1.attn.mixer")
    %kn2 = model.qk_norm %k2, %nq eps 1.0e-06 : tensor<?x16xbf16>, tensor<8xf32> loc("layers.1.attn.mixer")
    %qr = model.rope %qn2, %batch head_dim 8 inv_freq [1.0] factor 1.0 : tensor<?x32xbf16> loc("layers.1.attn.mixer")
    %kr = model.rope %kn2, %batch head_dim 8 inv_freq [1.0] factor 1.0 : tensor<?x16xbf16> loc("layers.1.attn.mixer")
    %cache = model.state "layers.1.attn" : !model.kv_cache<2x8, bf16>
    model.kv_append %kr, %v2, %cache, %batch : tensor<?x16xbf16>, tensor<?x16xbf16>, !model.kv_cache<2x8, bf16> loc("layers.1.attn.mixer")
    %o2 = model.attention %qr, %cache, %batch kv_map [0, 0, 1, 1] scale 0.35 mask "causal" window 0 : tensor<?x32xbf16>, !model.kv_cache<2x8, bf16> loc("layers.1.attn.mixer")
    %y2 = model.sigmoid_gate %o2, %gate2 : tensor<?x32xbf16> loc("layers.1.attn.mixer")
    %wo2 = model.weight @attn.o : tensor<40x32xbf16>
    %p2 = model.linear %y2, %wo2 : (tensor<?x32xbf16>, tensor<40x32xbf16>) -> tensor<?x40xbf16> loc("layers.1.attn.out")
    %x3 = model.add %p2, %x2 : tensor<?x40xbf16> loc("layers.1.attn.out")
    %h3 = model.rms_norm %x3, %norm eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.1.norm2")
    %gate3 = model.linear %h3, %wg : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16> loc("layers.1.mlp.in")
    %up3 = model.linear %h3, %wu : (tensor<?x40xbf16>, tensor<56x40xbf16>) -> tensor<?x56xbf16> loc("layers.1.mlp.in")
    %m3 = model.silu_mul %gate3, %up3 : tensor<?x56xbf16> loc("layers.1.mlp.in")
    %p3 = model.linear %m3, %wd : (tensor<?x56xbf16>, tensor<40x56xbf16>) -> tensor<?x40xbf16> loc("layers.1.mlp.out")
    %x4 = model.add %p3, %x3 : tensor<?x40xbf16> loc("layers.1")

    %r = model.logit_rows %x4, %batch : tensor<?x40xbf16> -> tensor<?x40xbf16> loc("final_norm")
    %n = model.rms_norm %r, %norm eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("final_norm")
    %head = model.weight @lm_head : tensor<101x40xbf16>
    %l = model.lm_head %n, %head : (tensor<?x40xbf16>, tensor<101x40xbf16>) -> tensor<?x101xf32> loc("lm_head")
    %next = model.sample %l, %batch : tensor<?x101xf32> -> tensor<?xi32> loc("sample")
    return %next, %l : tensor<?xi32>, tensor<?x101xf32>
  }
}

// -----

// A block of experts is two dispatches: the norm goes with the router, shared expert and residual with the experts.
// CHECK-LABEL: func.func @experts
// CHECK-SAME: %[[X:[^:]+]]: tensor<?x40xbf16>
// CHECK: %[[R:.+]]:3 = kernel.dispatch @router(%{{.+}} = %[[X]] : {{.*}} -> (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>) attributes {origin = "layers.0.router"}
// CHECK: %[[Y:.+]] = kernel.dispatch @experts(%{{.+}} = %[[R]]#0 : {{.*}}, %{{.+}} = %[[R]]#1 : {{.*}}, %{{.+}} = %[[R]]#2 : {{.*}}, %{{.+}} = %[[X]] : tensor<?x40xbf16>) -> (tensor<?x40xbf16>) attributes {origin = "layers.0.moe"}
// CHECK: model.combine
// CHECK: model.add
// CHECK-NOT: kernel.dispatch
// CHECK: return %[[Y]]
module {
  func.func @experts(%x: tensor<?x40xbf16>, %n: tensor<40xf32>, %wr: tensor<7x40xbf16>, %gu: tensor<7x32x40xbf16>,
                     %d: tensor<7x40x16xbf16>, %sgu: tensor<24x40xbf16>, %sd: tensor<40x24xbf16>, %sg: tensor<1x40xbf16>)
      -> tensor<?x40xbf16> attributes {model.program = "step", model.rank = 0 : i64} {
    %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32> loc("layers.0.norm2")
    %w, %ids = model.router %h, %wr renormalize : (tensor<?x40xbf16>, tensor<7x40xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>) loc("layers.0.router")
    %r = model.experts %h, %w, %ids, %gu, %d first_expert 0
      : (tensor<?x40xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xbf16>, tensor<7x40x16xbf16>) -> tensor<?x40xbf16> loc("layers.0.moe")
    %g = model.linear %h, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16> loc("layers.0.shared")
    %u = model.linear %h, %sgu : (tensor<?x40xbf16>, tensor<24x40xbf16>) -> tensor<?x24xbf16> loc("layers.0.shared")
    %m = model.silu_mul %g, %u : tensor<?x24xbf16> loc("layers.0.shared")
    %s = model.linear %m, %sd : (tensor<?x24xbf16>, tensor<40x24xbf16>) -> tensor<?x40xbf16> loc("layers.0.shared")
    %gate = model.linear %h, %sg : (tensor<?x40xbf16>, tensor<1x40xbf16>) -> tensor<?x1xf32> loc("layers.0.shared")
    %y = model.combine %r, %s, %gate : tensor<?x40xbf16>, tensor<?x1xf32> loc("layers.0.moe")
    %x2 = model.add %y, %x : tensor<?x40xbf16> loc("layers.0")
    return %x2 : tensor<?x40xbf16>
  }
}

// -----

// On a rank the residual and the next norm move to the sums; the projections around them stand without.
// CHECK-LABEL: func.func @dense_r0
// CHECK-SAME: %[[P:[^:]+]]: tensor<?x40xf32>, %[[X:[^:]+]]: tensor<?x40xbf16>
// CHECK: %[[S:.+]]:2 = kernel.dispatch @all_reduce(%{{.+}} = %[[P]] : {{.*}}, %{{.+}} = %[[X]] : {{.*}} -> (tensor<?x40xbf16>, tensor<?x40xbf16>)
// CHECK: %[[M:.+]] = kernel.dispatch @linear(%{{.+}} = %[[S]]#1 :
// CHECK: model.silu_mul
// CHECK: %[[D:.+]] = kernel.dispatch @linear(%{{.+}} = %[[M]] : {{.*}} -> (tensor<?x40xf32>)
// CHECK: %[[X2:.+]] = kernel.dispatch @all_reduce(%{{.+}} = %[[D]] : {{.*}}, %{{.+}} = %[[S]]#0 : {{.*}} -> (tensor<?x40xbf16>)
// CHECK: %[[L:.+]] = kernel.dispatch @lm_head(%{{.+}} = %[[X2]] : {{.*}} -> (tensor<?x64xf32>)
// CHECK: %[[A:.+]] = kernel.dispatch @all_reduce(%{{.+}} = %[[L]] :
// CHECK-NEXT: model.all_gather
// CHECK: kernel.dispatch @lm_head(%{{.+}} = %[[A]] :
// CHECK-NEXT: model.sample
// CHECK-NOT: kernel.dispatch
module {
  func.func @dense_r0(%p: tensor<?x40xf32>, %x: tensor<?x40xbf16>, %n: tensor<40xf32>, %wg: tensor<16x40xbf16>,
                      %wd: tensor<40x16xbf16>, %wl: tensor<64x40xbf16>, %batch: !model.batch) -> tensor<?xi32>
      attributes {model.program = "step", model.rank = 0 : i64} {
    %s = model.all_reduce %p : tensor<?x40xf32> -> tensor<?x40xbf16>
    %x1 = model.add %s, %x : tensor<?x40xbf16>
    %h = model.rms_norm %x1, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
    %g = model.linear %h, %wg : (tensor<?x40xbf16>, tensor<16x40xbf16>) -> tensor<?x16xbf16>
    %u = model.linear %h, %wg : (tensor<?x40xbf16>, tensor<16x40xbf16>) -> tensor<?x16xbf16>
    %m = model.silu_mul %g, %u : tensor<?x16xbf16>
    %d = model.linear %m, %wd : (tensor<?x16xbf16>, tensor<40x16xbf16>) -> tensor<?x40xf32>
    %t = model.all_reduce %d : tensor<?x40xf32> -> tensor<?x40xbf16>
    %x2 = model.add %t, %x1 : tensor<?x40xbf16>
    %r = model.logit_rows %x2, %batch : tensor<?x40xbf16> -> tensor<?x40xbf16>
    %f = model.rms_norm %r, %n eps 1.0e-06 : tensor<?x40xbf16>, tensor<40xf32>
    %l = model.lm_head %f, %wl : (tensor<?x40xbf16>, tensor<64x40xbf16>) -> tensor<?x64xf32>
    %a = model.all_gather %l counts [64, 37] : tensor<?x64xf32> -> tensor<?x101xf32>
    %next = model.sample %a, %batch : tensor<?x101xf32> -> tensor<?xi32>
    return %next : tensor<?xi32>
  }
}
