// One case a constraint, with its number.
// RUN: qwen-opt %s --split-input-file --verify-diagnostics

// param_c1
// expected-error @+1 {{type 'tensor<?x40xf32>' is not static of rank 1, 2 or 3}}
model.param @w group "model" transform "none" sources [[]] : tensor<?x40xf32>

// -----

// param_c1
// expected-error @+1 {{is not static of rank 1, 2 or 3}}
model.param @w group "model" transform "none" sources [[]] : tensor<1x2x3x4xf32>

// -----

// param_c2
// expected-error @+1 {{group "vision" is none of model, mtp, draft}}
model.param @w group "vision" transform "none" sources [[]] : tensor<40xf32>

// -----

// param_c2
// expected-error @+1 {{transform "transpose" is none of none, one_plus, to_f32}}
model.param @w group "model" transform "transpose" sources [[]] : tensor<40xf32>

// -----

// param_c3
// expected-error @+1 {{has neither sources nor an alias}}
model.param @w group "model" transform "none" sources [] : tensor<40xf32>

// -----

// weight_c1
func.func @weight_unknown() {
  // expected-error @+1 {{@w is not a model.param}}
  %w = model.weight @w : tensor<40xf32>
  return
}

// -----

// weight_c2
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @weight_rank() {
  // expected-error @+1 {{has 1 lists of slices, the param has 2 dimensions}}
  %w = model.weight @w slices [[0, 4]] : tensor<4x40xf32>
  return
}

// -----

// weight_c2
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @weight_odd() {
  // expected-error @+1 {{slices of dimension 1 are not [begin, end) pairs}}
  %w = model.weight @w slices [[], [0, 4, 8]] : tensor<12x4xf32>
  return
}

// -----

// weight_c2
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @weight_beyond() {
  // expected-error @+1 {{slice 1 of dimension 0 does not lie in [0, 12)}}
  %w = model.weight @w slices [[0, 4, 8, 13], []] : tensor<9x40xf32>
  return
}

// -----

// weight_c2
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @weight_backwards() {
  // expected-error @+1 {{slice 0 of dimension 0 does not lie in [0, 12)}}
  %w = model.weight @w slices [[8, 4], []] : tensor<4x40xf32>
  return
}

// -----

// weight_c3
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @weight_result() {
  // expected-error @+1 {{result is 'tensor<5x40xf32>', the slice of @w is 'tensor<4x40xf32>'}}
  %w = model.weight @w slices [[0, 4], []] : tensor<5x40xf32>
  return
}

// -----

// weight_c3
model.param @w group "model" transform "none" sources [[]] : tensor<12x40xbf16, #model.scheme<"fp8_block", 128, 128>>
func.func @weight_scheme() {
  // expected-error @+1 {{result is 'tensor<12x40xbf16>', the slice of @w is}}
  %w = model.weight @w : tensor<12x40xbf16>
  return
}

// -----

// state_c1
func.func @state() {
  // expected-error @+1 {{result 'tensor<4xf32>' is not a state type}}
  %s = model.state "layers.0.gdn" : tensor<4xf32>
  return
}

// -----

// expected-error @+1 {{expected heads x channels}}
func.func private @cache_shape(!model.kv_cache<2, f32>)

// -----

// add_c1
func.func @add(%x: tensor<?x40xf32>, %y: tensor<?x41xf32>) {
  // expected-error @+1 {{all of {x, residual, y} have same type}}
  %0 = "model.add"(%x, %y) : (tensor<?x40xf32>, tensor<?x41xf32>) -> tensor<?x40xf32>
  return
}

// -----

// rms_norm_c1
func.func @rms_norm_type(%x: tensor<?x40xbf16>, %w: tensor<40xf32>) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.rms_norm"(%x, %w) <{eps = 1.0e-06 : f64}> : (tensor<?x40xbf16>, tensor<40xf32>) -> tensor<?x40xf32>
  return
}

// -----

// rms_norm_c2
func.func @rms_norm_weight(%x: tensor<?x40xf32>, %w: tensor<20xf32>) {
  // expected-error @+1 {{weight has 20 channels, x has 40}}
  %0 = model.rms_norm %x, %w eps 1.0e-06 : tensor<?x40xf32>, tensor<20xf32>
  return
}

// -----

// rms_norm_c3
func.func @rms_norm_eps(%x: tensor<?x40xf32>, %w: tensor<40xf32>) {
  // expected-error @+1 {{must be above 0}}
  %0 = model.rms_norm %x, %w eps 0.0 : tensor<?x40xf32>, tensor<40xf32>
  return
}

// -----

// qk_norm_c1
func.func @qk_norm_type(%x: tensor<?x40xbf16>, %w: tensor<8xf32>) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.qk_norm"(%x, %w) <{eps = 1.0e-06 : f64}> : (tensor<?x40xbf16>, tensor<8xf32>) -> tensor<?x40xf32>
  return
}

// -----

// qk_norm_c2
func.func @qk_norm_heads(%x: tensor<?x40xf32>, %w: tensor<16xf32>) {
  // expected-error @+1 {{x has 40 channels, not a multiple of the weight's 16}}
  %0 = model.qk_norm %x, %w eps 1.0e-06 : tensor<?x40xf32>, tensor<16xf32>
  return
}

// -----

// qk_norm_c3
func.func @qk_norm_eps(%x: tensor<?x40xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{must be above 0}}
  %0 = model.qk_norm %x, %w eps -1.0 : tensor<?x40xf32>, tensor<8xf32>
  return
}

// -----

// gated_rms_norm_c1
func.func @gated_rms_norm_type(%x: tensor<?x40xf32>, %g: tensor<?x20xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{all of {x, gate, y} have same type}}
  %0 = "model.gated_rms_norm"(%x, %g, %w) <{eps = 1.0e-06 : f64, activation = "silu"}> : (tensor<?x40xf32>, tensor<?x20xf32>, tensor<8xf32>) -> tensor<?x40xf32>
  return
}

// -----

// gated_rms_norm_c2
func.func @gated_rms_norm_heads(%x: tensor<?x40xf32>, %w: tensor<16xf32>) {
  // expected-error @+1 {{x has 40 channels, not a multiple of the weight's 16}}
  %0 = model.gated_rms_norm %x, %x, %w eps 1.0e-06 activation "silu" : tensor<?x40xf32>, tensor<16xf32>
  return
}

// -----

// gated_rms_norm_c3
func.func @gated_rms_norm_eps(%x: tensor<?x40xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{must be above 0}}
  %0 = model.gated_rms_norm %x, %x, %w eps 0.0 activation "silu" : tensor<?x40xf32>, tensor<8xf32>
  return
}

// -----

// gated_rms_norm_c4
func.func @gated_rms_norm_activation(%x: tensor<?x40xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{activation "gelu" is neither silu nor sigmoid}}
  %0 = model.gated_rms_norm %x, %x, %w eps 1.0e-06 activation "gelu" : tensor<?x40xf32>, tensor<8xf32>
  return
}

// -----

// l2_norm_c1
func.func @l2_norm_type(%x: tensor<?x40xbf16>) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.l2_norm"(%x) <{head_dim = 8 : i64, eps = 1.0e-06 : f64, scale = 1.0 : f64}> : (tensor<?x40xbf16>) -> tensor<?x40xf32>
  return
}

// -----

// l2_norm_c2
func.func @l2_norm_heads(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{x has 40 channels, not a multiple of head_dim 16}}
  %0 = model.l2_norm %x head_dim 16 eps 1.0e-06 scale 1.0 : tensor<?x40xf32>
  return
}

// -----

// l2_norm_c2
func.func @l2_norm_no_head(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{x has 40 channels, not a multiple of head_dim 0}}
  %0 = model.l2_norm %x head_dim 0 eps 1.0e-06 scale 1.0 : tensor<?x40xf32>
  return
}

// -----

// l2_norm_c3
func.func @l2_norm_eps(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{must be above 0}}
  %0 = model.l2_norm %x head_dim 8 eps 0.0 scale 1.0 : tensor<?x40xf32>
  return
}

// -----

// embed_c1
func.func @embed_tokens(%ids: tensor<3xi32>, %t: tensor<101x40xf32>) {
  // expected-error @+1 {{ids and y differ in tokens}}
  %0 = model.embed %ids, %t : (tensor<3xi32>, tensor<101x40xf32>) -> tensor<4x40xf32>
  return
}

// -----

// embed_c2
func.func @embed_channels(%ids: tensor<?xi32>, %t: tensor<101x40xf32>) {
  // expected-error @+1 {{y has 41 channels, the table needs 40}}
  %0 = model.embed %ids, %t : (tensor<?xi32>, tensor<101x40xf32>) -> tensor<?x41xf32>
  return
}

// -----

// linear_c1
func.func @linear_in(%x: tensor<?x40xf32>, %w: tensor<12x41xf32>) {
  // expected-error @+1 {{weight has 41 columns, x has 40 channels}}
  %0 = model.linear %x, %w : (tensor<?x40xf32>, tensor<12x41xf32>) -> tensor<?x12xf32>
  return
}

// -----

// linear_c2
func.func @linear_out(%x: tensor<?x40xf32>, %w: tensor<12x40xf32>) {
  // expected-error @+1 {{y has 13 channels, the weight needs 12}}
  %0 = model.linear %x, %w : (tensor<?x40xf32>, tensor<12x40xf32>) -> tensor<?x13xf32>
  return
}

// -----

// silu_mul_c1
func.func @silu_mul(%x: tensor<?x40xf32>, %y: tensor<?x40xbf16>) {
  // expected-error @+1 {{all of {gate, up, y} have same type}}
  %0 = "model.silu_mul"(%x, %y) : (tensor<?x40xf32>, tensor<?x40xbf16>) -> tensor<?x40xf32>
  return
}

// -----

// sigmoid_gate_c1
func.func @sigmoid_gate(%x: tensor<?x40xf32>, %y: tensor<?x20xf32>) {
  // expected-error @+1 {{all of {x, gate, y} have same type}}
  %0 = "model.sigmoid_gate"(%x, %y) : (tensor<?x40xf32>, tensor<?x20xf32>) -> tensor<?x40xf32>
  return
}

// -----

// split_c1
func.func @split_heads(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{a part has 30 channels, not a multiple of 4 heads}}
  %0, %1 = model.split %x heads 4 : (tensor<?x40xf32>) -> (tensor<?x30xf32>, tensor<?x10xf32>)
  return
}

// -----

// split_c1
func.func @split_no_heads(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{a part has 20 channels, not a multiple of 0 heads}}
  %0, %1 = model.split %x heads 0 : (tensor<?x40xf32>) -> (tensor<?x20xf32>, tensor<?x20xf32>)
  return
}

// -----

// split_c2
func.func @split_sum(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{parts have 36 channels, x has 40}}
  %0, %1 = model.split %x heads 4 : (tensor<?x40xf32>) -> (tensor<?x20xf32>, tensor<?x16xf32>)
  return
}

// -----

// split_c2
func.func @split_type(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{a part and x differ in element type}}
  %0, %1 = model.split %x heads 4 : (tensor<?x40xf32>) -> (tensor<?x20xf32>, tensor<?x20xbf16>)
  return
}

// -----

// concat_c1
func.func @concat_sum(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{parts have 80 channels, y has 81}}
  %0 = model.concat %x, %x : (tensor<?x40xf32>, tensor<?x40xf32>) -> tensor<?x81xf32>
  return
}

// -----

// concat_c1
func.func @concat_type(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{a part and y differ in element type}}
  %0 = model.concat %x, %x : (tensor<?x40xf32>, tensor<?x40xf32>) -> tensor<?x80xbf16>
  return
}

// -----

// dynamic_conv_c1
func.func @dynamic_conv_type(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>, %b: tensor<2x2x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.dynamic_conv"(%x, %c, %b, %batch) <{group = 16 : i64, index = 0 : i64}> : (tensor<?x64xf32>, tensor<?x16xf32>, tensor<2x2x64xf32>, !model.batch) -> tensor<?x64xbf16>
  return
}

// -----

// dynamic_conv_c2
func.func @dynamic_conv_base(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>, %b: tensor<2x2x60xf32>, %batch: !model.batch) {
  // expected-error @+1 {{base is not [2, taps, 64]}}
  %0 = model.dynamic_conv %x, %c, %b, %batch group 16 index 0 : (tensor<?x64xf32>, tensor<?x16xf32>, tensor<2x2x60xf32>, !model.batch) -> tensor<?x64xf32>
  return
}

// -----

// dynamic_conv_c3
func.func @dynamic_conv_group(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>, %b: tensor<2x2x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{group 24 does not divide 64 channels}}
  %0 = model.dynamic_conv %x, %c, %b, %batch group 24 index 0 : (tensor<?x64xf32>, tensor<?x16xf32>, tensor<2x2x64xf32>, !model.batch) -> tensor<?x64xf32>
  return
}

// -----

// dynamic_conv_c3
func.func @dynamic_conv_coef(%x: tensor<?x64xf32>, %c: tensor<?x8xf32>, %b: tensor<2x2x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{coef has 8 channels, base needs 16}}
  %0 = model.dynamic_conv %x, %c, %b, %batch group 16 index 0 : (tensor<?x64xf32>, tensor<?x8xf32>, tensor<2x2x64xf32>, !model.batch) -> tensor<?x64xf32>
  return
}

// -----

// dynamic_conv_c4
func.func @dynamic_conv_index(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>, %b: tensor<2x2x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{index 2 is neither 0 nor 1}}
  %0 = model.dynamic_conv %x, %c, %b, %batch group 16 index 2 : (tensor<?x64xf32>, tensor<?x16xf32>, tensor<2x2x64xf32>, !model.batch) -> tensor<?x64xf32>
  return
}

// -----

// rope_c1
func.func @rope_type(%x: tensor<?x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.rope"(%x, %batch) <{head_dim = 16 : i64, inv_freq = array<f32: 1.0>, attention_factor = 1.0 : f64}> : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xbf16>
  return
}

// -----

// rope_c2
func.func @rope_heads(%x: tensor<?x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{x has 64 channels, not a multiple of head_dim 24}}
  %0 = model.rope %x, %batch head_dim 24 inv_freq [1.0] factor 1.0 : tensor<?x64xf32>
  return
}

// -----

// rope_c3
func.func @rope_many(%x: tensor<?x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{has 3 frequencies for a head of 4 channels}}
  %0 = model.rope %x, %batch head_dim 4 inv_freq [1.0, 0.5, 0.25] factor 1.0 : tensor<?x64xf32>
  return
}

// -----

// rope_c3
func.func @rope_none(%x: tensor<?x64xf32>, %batch: !model.batch) {
  // expected-error @+1 {{has 0 frequencies for a head of 16 channels}}
  %0 = model.rope %x, %batch head_dim 16 inv_freq [] factor 1.0 : tensor<?x64xf32>
  return
}

// -----

// kv_append_c1
func.func @kv_append_channels(%k: tensor<?x32xf32>, %v: tensor<?x16xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{v has 16 channels, the cache needs 32}}
  model.kv_append %k, %v, %c, %batch : tensor<?x32xf32>, tensor<?x16xf32>, !model.kv_cache<2x16, f32>
  return
}

// -----

// attention_c1
func.func @attention_type(%q: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{all of {q, y} have same type}}
  %0 = "model.attention"(%q, %c, %batch) <{kv_map = array<i64: 0, 1>, scale = 1.0 : f64, mask = "causal", window = 0 : i64}> : (tensor<?x32xf32>, !model.kv_cache<2x16, f32>, !model.batch) -> tensor<?x32xbf16>
  return
}

// -----

// attention_c2
func.func @attention_heads(%q: tensor<?x64xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{q has 64 channels, kv_map needs 48}}
  %0 = model.attention %q, %c, %batch kv_map [0, 0, 1] scale 0.25 mask "causal" window 0 : tensor<?x64xf32>, !model.kv_cache<2x16, f32>
  return
}

// -----

// attention_c3
func.func @attention_map(%q: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{kv_map names head 2, the cache has 2}}
  %0 = model.attention %q, %c, %batch kv_map [0, 2] scale 0.25 mask "causal" window 0 : tensor<?x32xf32>, !model.kv_cache<2x16, f32>
  return
}

// -----

// attention_c4
func.func @attention_mask(%q: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{mask "full" is neither causal nor block}}
  %0 = model.attention %q, %c, %batch kv_map [0, 1] scale 0.25 mask "full" window 0 : tensor<?x32xf32>, !model.kv_cache<2x16, f32>
  return
}

// -----

// attention_c4
func.func @attention_window(%q: tensor<?x32xf32>, %c: !model.kv_cache<2x16, f32>, %batch: !model.batch) {
  // expected-error @+1 {{window -1 is negative}}
  %0 = model.attention %q, %c, %batch kv_map [0, 1] scale 0.25 mask "causal" window -1 : tensor<?x32xf32>, !model.kv_cache<2x16, f32>
  return
}

// -----

// causal_conv1d_c1
!state = !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>
func.func @conv_type(%x: tensor<?x60xf32>, %w: tensor<60x4xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{all of {x, y} have same type}}
  %0 = "model.causal_conv1d"(%x, %w, %s, %batch) : (tensor<?x60xf32>, tensor<60x4xf32>, !state, !model.batch) -> tensor<?x60xbf16>
  return
}

// -----

// causal_conv1d_c2
!state = !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>
func.func @conv_width(%x: tensor<?x60xf32>, %w: tensor<60x3xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{weight is not [60, 4]}}
  %0 = model.causal_conv1d %x, %w, %s, %batch : tensor<?x60xf32>, tensor<60x3xf32>, !state
  return
}

// -----

// causal_conv1d_c3
!state = !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>
func.func @conv_channels(%x: tensor<?x48xf32>, %w: tensor<48x4xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{x has 48 channels, the state needs 60}}
  %0 = model.causal_conv1d %x, %w, %s, %batch : tensor<?x48xf32>, tensor<48x4xf32>, !state
  return
}

// -----

// delta_gates_c1
func.func @gates_bias(%b: tensor<?x4xf32>, %a: tensor<4xf32>, %d: tensor<3xf32>) {
  // expected-error @+1 {{dt_bias has 3 heads, a_log has 4}}
  %0, %1 = model.delta_gates %b, %b, %a, %d : (tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xf32>, tensor<3xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  return
}

// -----

// delta_gates_c1
func.func @gates_channels(%b: tensor<?x4xf32>, %a: tensor<4xf32>) {
  // expected-error @+1 {{an operand or result has 3 channels, a_log needs 4}}
  %0, %1 = model.delta_gates %b, %b, %a, %a : (tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<?x4xf32>, tensor<?x3xf32>)
  return
}

// -----

// gated_delta_rule_c1
!state = !model.recurrent_state<k 2 v 4 dk 8 dv 4 w 4, f32>
func.func @rule_keys(%q: tensor<?x16xf32>, %k: tensor<?x24xf32>, %v: tensor<?x16xf32>, %g: tensor<?x4xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{k has 24 channels, the state needs 16}}
  %0 = model.gated_delta_rule %q, %k, %v, %g, %g, %s, %batch : (tensor<?x16xf32>, tensor<?x24xf32>, tensor<?x16xf32>, tensor<?x4xf32>, tensor<?x4xf32>, !state, !model.batch) -> tensor<?x16xf32>
  return
}

// -----

// gated_delta_rule_c2
!state = !model.recurrent_state<k 2 v 4 dk 8 dv 4 w 4, f32>
func.func @rule_values(%q: tensor<?x16xf32>, %v: tensor<?x16xf32>, %g: tensor<?x4xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{y has 20 channels, the state needs 16}}
  %0 = model.gated_delta_rule %q, %q, %v, %g, %g, %s, %batch : (tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x4xf32>, tensor<?x4xf32>, !state, !model.batch) -> tensor<?x20xf32>
  return
}

// -----

// gated_delta_rule_c3
!state = !model.recurrent_state<k 2 v 4 dk 8 dv 4 w 4, f32>
func.func @rule_gates(%q: tensor<?x16xf32>, %v: tensor<?x16xf32>, %g: tensor<?x4xf32>, %h: tensor<?x2xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{beta has 2 channels, the state needs 4}}
  %0 = model.gated_delta_rule %q, %q, %v, %h, %g, %s, %batch : (tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?x4xf32>, !state, !model.batch) -> tensor<?x16xf32>
  return
}

// -----

// gated_delta_rule_c4
!state = !model.recurrent_state<k 2 v 3 dk 8 dv 4 w 4, f32>
func.func @rule_groups(%q: tensor<?x16xf32>, %v: tensor<?x12xf32>, %g: tensor<?x3xf32>, %s: !state, %batch: !model.batch) {
  // expected-error @+1 {{3 value heads are not a multiple of 2 key heads}}
  %0 = model.gated_delta_rule %q, %q, %v, %g, %g, %s, %batch : (tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x12xf32>, tensor<?x3xf32>, tensor<?x3xf32>, !state, !model.batch) -> tensor<?x12xf32>
  return
}

// -----

// router_c1
func.func @router_weight(%x: tensor<?x40xf32>, %r: tensor<7x41xf32>) {
  // expected-error @+1 {{weight has 41 columns, x has 40 channels}}
  %0, %1 = model.router %x, %r : (tensor<?x40xf32>, tensor<7x41xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return
}

// -----

// router_c2
func.func @router_top_k(%x: tensor<?x40xf32>, %r: tensor<7x40xf32>) {
  // expected-error @+1 {{picks 8 of 7 experts, ids has 8 columns}}
  %0, %1 = model.router %x, %r : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x8xf32>, tensor<?x8xi32>)
  return
}

// -----

// router_c2
func.func @router_ids(%x: tensor<?x40xf32>, %r: tensor<7x40xf32>) {
  // expected-error @+1 {{picks 2 of 7 experts, ids has 3 columns}}
  %0, %1 = model.router %x, %r : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x2xf32>, tensor<?x3xi32>)
  return
}

// -----

// experts_c1
func.func @experts_shapes(%x: tensor<?x40xf32>, %w: tensor<?x2xf32>, %i: tensor<?x2xi32>, %gu: tensor<7x30x40xf32>, %d: tensor<7x40x16xf32>) {
  // expected-error @+1 {{gate_up and down do not fit: want [experts, 2 * inter, 40] and [experts, 40, inter]}}
  %0 = model.experts %x, %w, %i, %gu, %d first_expert 0 : (tensor<?x40xf32>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x30x40xf32>, tensor<7x40x16xf32>) -> tensor<?x40xf32>
  return
}

// -----

// experts_c2
func.func @experts_ids(%x: tensor<?x40xf32>, %w: tensor<?x2xf32>, %i: tensor<?x3xi32>, %gu: tensor<7x32x40xf32>, %d: tensor<7x40x16xf32>) {
  // expected-error @+1 {{weights has 2 columns, ids has 3}}
  %0 = model.experts %x, %w, %i, %gu, %d first_expert 0 : (tensor<?x40xf32>, tensor<?x2xf32>, tensor<?x3xi32>, tensor<7x32x40xf32>, tensor<7x40x16xf32>) -> tensor<?x40xf32>
  return
}

// -----

// experts_c3
func.func @experts_first(%x: tensor<?x40xf32>, %w: tensor<?x2xf32>, %i: tensor<?x2xi32>, %gu: tensor<7x32x40xf32>, %d: tensor<7x40x16xf32>) {
  // expected-error @+1 {{first_expert -1 is negative}}
  %0 = model.experts %x, %w, %i, %gu, %d first_expert -1 : (tensor<?x40xf32>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x32x40xf32>, tensor<7x40x16xf32>) -> tensor<?x40xf32>
  return
}

// -----

// combine_c1
func.func @combine_type(%r: tensor<?x40xf32>, %s: tensor<?x40xbf16>, %g: tensor<?x1xf32>) {
  // expected-error @+1 {{all of {routed, shared, y} have same type}}
  %0 = "model.combine"(%r, %s, %g) : (tensor<?x40xf32>, tensor<?x40xbf16>, tensor<?x1xf32>) -> tensor<?x40xf32>
  return
}

// -----

// combine_c2
func.func @combine_gate(%r: tensor<?x40xf32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{gate has 2 channels, a scalar gate needs 1}}
  %0 = model.combine %r, %r, %g : tensor<?x40xf32>, tensor<?x2xf32>
  return
}

// -----

// logit_rows_c1
func.func @logit_rows_channels(%x: tensor<?x40xf32>, %batch: !model.batch) {
  // expected-error @+1 {{y has 41 channels, x needs 40}}
  %0 = model.logit_rows %x, %batch : tensor<?x40xf32> -> tensor<?x41xf32>
  return
}

// -----

// logit_rows_c1
func.func @logit_rows_type(%x: tensor<?x40xf32>, %batch: !model.batch) {
  // expected-error @+1 {{x and y differ in element type}}
  %0 = model.logit_rows %x, %batch : tensor<?x40xf32> -> tensor<?x40xbf16>
  return
}

// -----

// lm_head_c1
func.func @lm_head_in(%x: tensor<?x40xf32>, %w: tensor<101x41xf32>) {
  // expected-error @+1 {{weight has 41 columns, x has 40 channels}}
  %0 = model.lm_head %x, %w : (tensor<?x40xf32>, tensor<101x41xf32>) -> tensor<?x101xf32>
  return
}

// -----

// lm_head_c1
func.func @lm_head_out(%x: tensor<?x40xf32>, %w: tensor<101x40xf32>) {
  // expected-error @+1 {{y has 100 channels, the weight needs 101}}
  %0 = model.lm_head %x, %w : (tensor<?x40xf32>, tensor<101x40xf32>) -> tensor<?x100xf32>
  return
}

// -----

// lm_head_c1
func.func @lm_head_type(%x: tensor<?x40xbf16>, %w: tensor<101x40xbf16>) {
  // expected-error @+1 {{result #0 must be 2D tensor of 32-bit float values}}
  %0 = model.lm_head %x, %w : (tensor<?x40xbf16>, tensor<101x40xbf16>) -> tensor<?x101xbf16>
  return
}

// -----

// sample_c1
func.func @sample(%l: tensor<?x101xbf16>, %batch: !model.batch) {
  // expected-error @+1 {{operand #0 must be 2D tensor of 32-bit float values}}
  %0 = model.sample %l, %batch : tensor<?x101xbf16> -> tensor<?xi32>
  return
}

// -----

// candidate_walk_c1
func.func @walk_book(%l: tensor<?x101xf32>, %h: tensor<?x8xf32>, %i: tensor<?xi32>, %p: tensor<101x8xf32>, %s: tensor<100x8xf32>, %batch: !model.batch) {
  // expected-error @+1 {{a codebook is not [101, 8]}}
  %0 = model.candidate_walk %l, %h, %i, %p, %s, %batch candidates 16 : (tensor<?x101xf32>, tensor<?x8xf32>, tensor<?xi32>, tensor<101x8xf32>, tensor<100x8xf32>, !model.batch) -> tensor<?xi32>
  return
}

// -----

// candidate_walk_c2
func.func @walk_many(%l: tensor<?x101xf32>, %h: tensor<?x8xf32>, %i: tensor<?xi32>, %p: tensor<101x8xf32>, %batch: !model.batch) {
  // expected-error @+1 {{102 candidates of 101 tokens}}
  %0 = model.candidate_walk %l, %h, %i, %p, %p, %batch candidates 102 : (tensor<?x101xf32>, tensor<?x8xf32>, tensor<?xi32>, tensor<101x8xf32>, tensor<101x8xf32>, !model.batch) -> tensor<?xi32>
  return
}

// -----

// candidate_walk_c2
func.func @walk_none(%l: tensor<?x101xf32>, %h: tensor<?x8xf32>, %i: tensor<?xi32>, %p: tensor<101x8xf32>, %batch: !model.batch) {
  // expected-error @+1 {{0 candidates of 101 tokens}}
  %0 = model.candidate_walk %l, %h, %i, %p, %p, %batch candidates 0 : (tensor<?x101xf32>, tensor<?x8xf32>, tensor<?xi32>, tensor<101x8xf32>, tensor<101x8xf32>, !model.batch) -> tensor<?xi32>
  return
}

// -----

// all_reduce_c1
func.func @all_reduce(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{y has 41 channels, x needs 40}}
  %0 = model.all_reduce %x : tensor<?x40xf32> -> tensor<?x41xf32>
  return
}

// -----

// A partial sum is f32, whatever the model's type.
func.func @all_reduce_type(%x: tensor<?x40xbf16>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of 32-bit float values}}
  %0 = model.all_reduce %x : tensor<?x40xbf16> -> tensor<?x40xbf16>
  return
}

// -----

// all_gather_c1
func.func @all_gather_sum(%x: tensor<?x64xf32>) {
  // expected-error @+1 {{counts sum to 101, y has 100 channels}}
  %0 = model.all_gather %x counts [64, 37] : tensor<?x64xf32> -> tensor<?x100xf32>
  return
}

// -----

// all_gather_c2
func.func @all_gather_share(%x: tensor<?x50xf32>) {
  // expected-error @+1 {{x has 50 channels, which is none of counts}}
  %0 = model.all_gather %x counts [64, 37] : tensor<?x50xf32> -> tensor<?x101xf32>
  return
}
