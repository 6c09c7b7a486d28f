// Every op prints as it parses, as text, in the generic form and as bytecode.
// RUN: qwen-opt %s | FileCheck %s
// RUN: qwen-opt %s | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --mlir-print-op-generic | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --emit-bytecode | qwen-opt | FileCheck %s

// CHECK: model.param @layers.0.norm1 group "model" transform "one_plus" sources {{\[\[}}{tensor = "norm"}]] : tensor<40xf32>
model.param @"layers.0.norm1" group "model" transform "one_plus" sources [[{tensor = "norm"}]] : tensor<40xf32>
// CHECK: model.param @lm_head group "model" transform "none" sources [] alias @embed : tensor<101x40xbf16>
model.param @embed group "model" transform "none" sources [[]] : tensor<101x40xbf16>
model.param @lm_head group "model" transform "none" sources [] alias @embed : tensor<101x40xbf16>
// CHECK: model.param @experts group "mtp" transform "to_f32" sources {{\[\[}}]] : tensor<7x32x40xf32>
model.param @experts group "mtp" transform "to_f32" sources [[]] : tensor<7x32x40xf32>
// A stored scheme is the encoding of the tensor type.
// CHECK: model.param @fp8 group "draft" transform "none" sources {{\[\[}}]] : tensor<128x128xbf16, #model.scheme<"fp8_block", 128, 128>>
model.param @fp8 group "draft" transform "none" sources [[]] : tensor<128x128xbf16, #model.scheme<"fp8_block", 128, 128>>

// CHECK-LABEL: @weights
func.func @weights() {
  // CHECK: model.weight @embed : tensor<101x40xbf16>
  %0 = model.weight @embed : tensor<101x40xbf16>
  // CHECK: model.weight @embed slices {{\[\[}}0, 8, 16, 24], []] : tensor<16x40xbf16>
  %1 = model.weight @embed slices [[0, 8, 16, 24], []] : tensor<16x40xbf16>
  // CHECK: model.weight @embed slices {{\[\[}}0, 0], [8, 40]] : tensor<0x32xbf16>
  %2 = model.weight @embed slices [[0, 0], [8, 40]] : tensor<0x32xbf16>
  // CHECK: model.weight @fp8 slices {{\[\[}}], [0, 64]] : tensor<128x64xbf16, #model.scheme<"fp8_block", 128, 128>>
  %3 = model.weight @fp8 slices [[], [0, 64]] : tensor<128x64xbf16, #model.scheme<"fp8_block", 128, 128>>
  return
}

// CHECK-LABEL: @states
func.func @states() {
  // CHECK: model.state "layers.3.attn" : !model.kv_cache<2x256, bf16>
  %0 = model.state "layers.3.attn" : !model.kv_cache<2x256, bf16>
  // CHECK: model.state "layers.4.attn" : !model.kv_cache<0x256, bf16>
  %1 = model.state "layers.4.attn" : !model.kv_cache<0 x 256, bf16>
  // CHECK: model.state "layers.0.gdn" : !model.recurrent_state<k 3 v 6 dk 8 dv 4 w 4, f32>
  %2 = model.state "layers.0.gdn" : !model.recurrent_state<k 3 v 6 dk 8 dv 4 w 4, f32>
  return
}

// CHECK-LABEL: @norms
func.func @norms(%x: tensor<?x64xbf16>, %w: tensor<64xf32>, %h: tensor<8xf32>) {
  // CHECK: model.add %{{.*}}, %{{.*}} : tensor<?x64xbf16>
  %0 = model.add %x, %x : tensor<?x64xbf16>
  // CHECK: model.rms_norm %{{.*}}, %{{.*}} eps {{.*}} : tensor<?x64xbf16>, tensor<64xf32>
  %1 = model.rms_norm %x, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>
  // CHECK: model.rms_norm {{.*}} round_first :
  %2 = model.rms_norm %x, %w eps 1.0e-06 round_first : tensor<?x64xbf16>, tensor<64xf32>
  // CHECK: model.qk_norm %{{.*}}, %{{.*}} eps {{.*}} round_first : tensor<?x64xbf16>, tensor<8xf32>
  %3 = model.qk_norm %x, %h eps 1.0e-06 round_first : tensor<?x64xbf16>, tensor<8xf32>
  // CHECK: model.gated_rms_norm %{{.*}}, %{{.*}}, %{{.*}} eps {{.*}} activation "sigmoid" : tensor<?x64xbf16>, tensor<8xf32>
  %4 = model.gated_rms_norm %x, %x, %h eps 1.0e-06 activation "sigmoid" : tensor<?x64xbf16>, tensor<8xf32>
  // CHECK: model.l2_norm %{{.*}} head_dim 8 eps {{.*}} scale {{.*}} : tensor<?x64xbf16>
  %5 = model.l2_norm %x head_dim 8 eps 1.0e-06 scale 0.35 : tensor<?x64xbf16>
  return
}

// CHECK-LABEL: @linears
func.func @linears(%ids: tensor<?xi32>, %x: tensor<?x64xbf16>, %table: tensor<101x64xbf16>, %w: tensor<12x64xbf16>,
                   %coef: tensor<?x16xbf16>, %base: tensor<2x2x64xbf16>, %batch: !model.batch) {
  // CHECK: model.embed %{{.*}}, %{{.*}} : (tensor<?xi32>, tensor<101x64xbf16>) -> tensor<?x64xbf16>
  %0 = model.embed %ids, %table : (tensor<?xi32>, tensor<101x64xbf16>) -> tensor<?x64xbf16>
  // CHECK: model.linear %{{.*}}, %{{.*}} : (tensor<?x64xbf16>, tensor<12x64xbf16>) -> tensor<?x12xf32>
  %1 = model.linear %x, %w : (tensor<?x64xbf16>, tensor<12x64xbf16>) -> tensor<?x12xf32>
  // CHECK: model.silu_mul %{{.*}}, %{{.*}} : tensor<?x64xbf16>
  %2 = model.silu_mul %x, %x : tensor<?x64xbf16>
  // CHECK: model.sigmoid_gate %{{.*}}, %{{.*}} : tensor<?x64xbf16>
  %3 = model.sigmoid_gate %x, %x : tensor<?x64xbf16>
  // CHECK: model.split %{{.*}} heads 4 : (tensor<?x64xbf16>) -> (tensor<?x48xbf16>, tensor<?x16xbf16>)
  %4, %5 = model.split %x heads 4 : (tensor<?x64xbf16>) -> (tensor<?x48xbf16>, tensor<?x16xbf16>)
  // CHECK: model.concat %{{.*}}, %{{.*}} : (tensor<?x48xbf16>, tensor<?x16xbf16>) -> tensor<?x64xbf16>
  %6 = model.concat %4, %5 : (tensor<?x48xbf16>, tensor<?x16xbf16>) -> tensor<?x64xbf16>
  // CHECK: model.dynamic_conv %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} group 16 index 1 :
  %7 = model.dynamic_conv %x, %coef, %base, %batch group 16 index 1 : (tensor<?x64xbf16>, tensor<?x16xbf16>, tensor<2x2x64xbf16>, !model.batch) -> tensor<?x64xbf16>
  return
}

// CHECK-LABEL: @attention
func.func @attention(%q: tensor<?x64xf32>, %k: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // CHECK: model.rope %{{.*}}, %{{.*}} head_dim 16 inv_freq [1.000000e+00, 2.500000e-01] factor 1.000000e+00 : tensor<?x64xf32>
  %0 = model.rope %q, %batch head_dim 16 inv_freq [1.0, 0.25] factor 1.0 : tensor<?x64xf32>
  // CHECK: model.kv_append %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x32xf32>, tensor<?x32xf32>, {{.*}}<2x16, f32>
  model.kv_append %k, %k, %c, %batch : tensor<?x32xf32>, tensor<?x32xf32>, !model.kv_cache<2x16, f32>
  // CHECK: model.attention %{{.*}}, %{{.*}}, %{{.*}} kv_map [0, 0, 1, 1] scale {{.*}} mask "causal" window 0 : tensor<?x64xf32>, {{.*}}<2x16, f32>
  %1 = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.25 mask "causal" window 0 : tensor<?x64xf32>, !model.kv_cache<2x16, f32>
  // CHECK: model.attention {{.*}} mask "block" window 128 :
  %2 = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.25 mask "block" window 128 : tensor<?x64xf32>, !model.kv_cache<2x16, f32>
  return
}

// A rank without a head.
// CHECK-LABEL: @no_heads
func.func @no_heads(%q: tensor<?x0xf32>, %c: !model.kv_cache<0x16, f32>, %h: tensor<16xf32>, %batch: !model.batch,
                    %w: tensor<0x4xf32>, %s: !model.recurrent_state<k 0 v 0 dk 8 dv 4 w 4, f32>, %a: tensor<0xf32>) {
  // CHECK: model.split %{{.*}} heads 1 : (tensor<?x0xf32>) -> (tensor<?x0xf32>, tensor<?x0xf32>)
  %0, %1 = model.split %q heads 1 : (tensor<?x0xf32>) -> (tensor<?x0xf32>, tensor<?x0xf32>)
  // CHECK: model.qk_norm
  %2 = model.qk_norm %0, %h eps 1.0e-06 : tensor<?x0xf32>, tensor<16xf32>
  // CHECK: model.kv_append
  model.kv_append %2, %q, %c, %batch : tensor<?x0xf32>, tensor<?x0xf32>, !model.kv_cache<0x16, f32>
  // CHECK: model.attention %{{.*}}, %{{.*}}, %{{.*}} kv_map [] scale
  %3 = model.attention %2, %c, %batch kv_map [] scale 0.25 mask "causal" window 0 : tensor<?x0xf32>, !model.kv_cache<0x16, f32>
  // CHECK: model.causal_conv1d
  %4 = model.causal_conv1d %q, %w, %s, %batch : tensor<?x0xf32>, tensor<0x4xf32>, !model.recurrent_state<k 0 v 0 dk 8 dv 4 w 4, f32>
  // CHECK: model.delta_gates
  %beta, %g = model.delta_gates %q, %q, %a, %a : (tensor<?x0xf32>, tensor<?x0xf32>, tensor<0xf32>, tensor<0xf32>) -> (tensor<?x0xf32>, tensor<?x0xf32>)
  // CHECK: model.gated_delta_rule
  %5 = model.gated_delta_rule %q, %q, %q, %beta, %g, %s, %batch : (tensor<?x0xf32>, tensor<?x0xf32>, tensor<?x0xf32>, tensor<?x0xf32>, tensor<?x0xf32>, !model.recurrent_state<k 0 v 0 dk 8 dv 4 w 4, f32>, !model.batch) -> tensor<?x0xf32>
  return
}

// CHECK-LABEL: @delta_net
func.func @delta_net(%x: tensor<?x60xf32>, %w: tensor<60x4xf32>, %s: !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>,
                     %batch: !model.batch, %b: tensor<?x3xf32>, %a: tensor<3xf32>, %q: tensor<?x24xf32>, %v: tensor<?x12xf32>) {
  // CHECK: model.causal_conv1d %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x60xf32>, tensor<60x4xf32>, {{.*}}<k 3 v 3 dk 8 dv 4 w 4, f32>
  %0 = model.causal_conv1d %x, %w, %s, %batch : tensor<?x60xf32>, tensor<60x4xf32>, !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>
  // CHECK: model.delta_gates %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<?x3xf32>, tensor<?x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>)
  %beta, %g = model.delta_gates %b, %b, %a, %a : (tensor<?x3xf32>, tensor<?x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>)
  // CHECK: model.gated_delta_rule {{.*}} -> tensor<?x12xf32>
  %1 = model.gated_delta_rule %q, %q, %v, %beta, %g, %s, %batch : (tensor<?x24xf32>, tensor<?x24xf32>, tensor<?x12xf32>, tensor<?x3xf32>, tensor<?x3xf32>, !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>, !model.batch) -> tensor<?x12xf32>
  return
}

// CHECK-LABEL: @moe
func.func @moe(%x: tensor<?x40xf32>, %r: tensor<7x40xf32>, %gu: tensor<7x32x40xf32>, %d: tensor<7x40x16xf32>, %g: tensor<?x1xf32>) {
  // CHECK: model.router %{{.*}}, %{{.*}} renormalize : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %w, %ids = model.router %x, %r renormalize : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  // CHECK: model.router %{{.*}}, %{{.*}} : (
  %w1, %ids1 = model.router %x, %r : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  // CHECK: model.experts %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} first_expert 4 :
  %y = model.experts %x, %w, %ids, %gu, %d first_expert 4
    : (tensor<?x40xf32>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xf32>, tensor<7x40x16xf32>) -> tensor<?x40xf32>
  // CHECK: model.combine %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x40xf32>, tensor<?x1xf32>
  %z = model.combine %y, %x, %g : tensor<?x40xf32>, tensor<?x1xf32>
  return
}

// CHECK-LABEL: @end
func.func @end(%x: tensor<?x40xbf16>, %w: tensor<101x40xbf16>, %ids: tensor<?xi32>, %hp: tensor<?x8xbf16>, %book: tensor<101x8xbf16>,
               %batch: !model.batch) {
  // CHECK: model.logit_rows %{{.*}}, %{{.*}} : tensor<?x40xbf16> -> tensor<?x40xbf16>
  %r = model.logit_rows %x, %batch : tensor<?x40xbf16> -> tensor<?x40xbf16>
  // CHECK: model.lm_head %{{.*}}, %{{.*}} : (tensor<?x40xbf16>, tensor<101x40xbf16>) -> tensor<?x101xf32>
  %l = model.lm_head %r, %w : (tensor<?x40xbf16>, tensor<101x40xbf16>) -> tensor<?x101xf32>
  // CHECK: model.sample %{{.*}}, %{{.*}} : tensor<?x101xf32> -> tensor<?xi32>
  %next = model.sample %l, %batch : tensor<?x101xf32> -> tensor<?xi32>
  // CHECK: model.accept %{{.*}}, %{{.*}}, %{{.*}} : tensor<?xi32>, tensor<?xi32> -> tensor<?xi32>, tensor<?xi32>
  %n, %t = model.accept %next, %ids, %batch : tensor<?xi32>, tensor<?xi32> -> tensor<?xi32>, tensor<?xi32>
  // CHECK: model.candidate_walk {{.*}} candidates 16 :
  %walk = model.candidate_walk %l, %hp, %ids, %book, %book, %batch candidates 16 : (tensor<?x101xf32>, tensor<?x8xbf16>, tensor<?xi32>, tensor<101x8xbf16>, tensor<101x8xbf16>, !model.batch) -> tensor<?xi32>
  return
}

// CHECK-LABEL: @collectives
func.func @collectives(%x: tensor<?x40xf32>, %l: tensor<?x64xf32>) {
  // CHECK: model.all_reduce %{{.*}} : tensor<?x40xf32> -> tensor<?x40xbf16>
  %0 = model.all_reduce %x : tensor<?x40xf32> -> tensor<?x40xbf16>
  // CHECK: model.all_gather %{{.*}} counts [64, 37, 0] : tensor<?x64xf32> -> tensor<?x101xf32>
  %1 = model.all_gather %l counts [64, 37, 0] : tensor<?x64xf32> -> tensor<?x101xf32>
  return
}
