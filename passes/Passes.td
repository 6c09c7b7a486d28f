//===- Passes.td - every pass in pipeline order ------------------------------===//
//
// The compiler between `import` and `emit`, as a table of contents. The order, as qwen-opt takes it:
//
//   shard-tensor-parallel widen-activations
//   fuse-all-reduce fuse-experts fuse-router fuse-gated-delta-net fuse-attention fuse-gate-up fuse-input-projections
//   fuse-gated-norm-out fuse-norm-linear fuse-residual fuse-lm-head fuse-add-rms-norm dispatch-remaining
//
// with `verify-stage` behind every stage. The specific fusions come before the general ones: `fuse-experts` takes
// the shared expert's linears before `fuse-input-projections` sees that they share an input with others.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_PASSES_TD
#define QWEN_PASSES_PASSES_TD

include "mlir/Pass/PassBase.td"

//===----------------------------------------------------------------------===//
// shard
//===----------------------------------------------------------------------===//

def ShardTensorParallel : Pass<"shard-tensor-parallel", "::mlir::ModuleOp"> {
  let summary = "Splits heads, experts, channels and weights over the ranks, and adds the collectives";
  let description = [{
    Every program becomes one program a rank. The residual stream, norms, router, embedding and scalar gates stay
    whole on every rank; a mixer and a feed-forward block are cut between their input and their output projection, so
    that each needs one sum.

        func @step(...) {                              func @step_r0(...) attributes {model.rank = 0} {
          %q = linear %h, @attn.q : 64       becomes      %q = linear %h, @attn.q [[0, 32], []] : 32
          ...                                             ...
          %p = linear %o, @attn.o : bf16                  %p = linear %o, @attn.o [[], [0, 32]] : f32
          %x1 = add %p, %x                                %s = all_reduce %p : f32 -> bf16
        }                                                 %x1 = add %s, %x
                                                       }  func @step_r1(...) attributes {model.rank = 1} { ... }

    The units: a query head, with every KV head that the rank's query heads read; a key head with its value heads;
    16 feed-forward channels (of a dense block, of each expert, of a shared expert), or a whole expert with `moe=ep`;
    64 rows of the vocabulary. Shares are contiguous and as even as whole units allow, the larger ones first: 16 heads
    on 3 ranks are 6, 5 and 5. A share may be empty; the rank's tensors then have no channels and it adds zeros.

    The recurrent and the KV state of a layer are cut with its heads. Logits are gathered before `sample`.

    With `tp=1` the programs are left alone; only `model.tp` is set.
  }];
  let options = [
    Option<"tp", "tp", "int64_t", "1", "ranks, 1 to 8">,
    Option<"moe", "moe", "std::string", "\"tp\"", "tp: every rank holds a part of each expert; ep: whole experts">,
    Option<"rotate", "rotate", "bool", "false",
           "give layer i's larger share to rank i mod tp, so that the ranks need the same memory">,
    Option<"dropCollective", "drop-collective", "int64_t", "0",
           "test hook: the N-th all_reduce of every program, from 1, hands on the rank's own part">,
  ];
  let dependentDialects = ["::qwen::ir::model::ModelDialect"];
}

def WidenActivations : Pass<"widen-activations", "::mlir::ModuleOp"> {
  let summary = "Keeps the rows between steps in f32, for targets whose arithmetic is f32";
  let description = [{
    On the CPU bf16 is how weights and keys are stored; every kernel computes in f32. Rows between steps are a
    thousandth of a decode token's bytes, so rounding them to bf16 would save nothing and cost most of the accuracy: a
    hybrid layer's gated norm divides by small numbers and magnifies what was rounded before it.

        %h = rms_norm %x : bf16               becomes      %h = rms_norm %x : f32
        %y = linear %h, %w : (bf16, bf16)                  %y = linear %h, %w : (f32, bf16 weights)

    Weights and KV caches keep their type; the convolution's history becomes f32, since a row of it must be the same
    number whether it comes from the cache or from this step.
  }];
  let dependentDialects = ["::qwen::ir::model::ModelDialect"];
}

//===----------------------------------------------------------------------===//
// fuse: each takes undispatched model ops, or extends dispatches, at the level of a program
//===----------------------------------------------------------------------===//

class FusePass<string flag> : Pass<flag, "::mlir::func::FuncOp"> {
  let options = [Option<"explain", "explain", "bool", "false", "make every refusal a remark at the op">];
  let dependentDialects = ["::qwen::ir::kernel::KernelDialect"];
}

def FuseAllReduce : FusePass<"fuse-all-reduce"> {
  let summary = "Takes the residual add and the next norm into the sum over the ranks";
  let description = [{
    The summed rows arrive in a small buffer that is hot where they are added up: adding the residual and normalising
    there saves two more passes over them.

        %s = all_reduce %p                             %x1, %h = kernel.dispatch @all_reduce(%p, %x, %w) {
        %x1 = add %s, %x                  becomes        all three; yield the sum and the norm
        %h = rms_norm %x1, %w                          }

    Left alone: a sum that something else than one add reads.
  }];
}

def FuseExperts : FusePass<"fuse-experts"> {
  let summary = "Joins the routed experts with the shared expert and its gate";
  let description = [{
    The shared expert reads the same rows as the routed ones and ends in the same sum: as one more expert of the two
    kernels it costs no barrier of its own.

        %r = experts %h, %w, %ids, ...
        %g = linear %h ; %u = linear %h                %y = kernel.dispatch @experts(%h, %w, %ids, ...) {
        %m = silu_mul %g, %u ; %s = linear %m  becomes    all of them; yield the combined rows
        %sg = linear %h                                 }
        %y = combine %r, %s, %sg

    Left alone: experts without a shared one (dispatch-remaining takes the single op), and a chain that is read from
    outside.
  }];
}

def FuseRouter : FusePass<"fuse-router"> {
  let summary = "Merges the norm before a router into it";
  let description = [{
    The router reads whole rows anyway. Its norm is needed by the experts too, so the dispatch yields it.

        %h = rms_norm %x, %n                           %h, %w, %ids = kernel.dispatch @router(%x, %n, %r) {
        %w, %ids = router %h, %r          becomes        both; yield the norm, the weights and the ids
        (experts read %h, %w, %ids)                    }

    Left alone: a router whose input is no norm (a collective took it).
  }];
}

def FuseGatedDeltaNet : FusePass<"fuse-gated-delta-net"> {
  let summary = "Makes one region of the delta-rule mixer: convolution to recurrence";
  let description = [{
    Everything between the input projections and the gated norm is local to a key head's group: one region, which
    `gdn_decode` or `gdn_verify` serve on the short part of a batch and `gdn_prep`, `gdn_scan` on the long part.

        %c = causal_conv1d %qkv ; %q, %k, %v = split %c
        %qn = l2_norm %q ; %kn = l2_norm %k            %o = kernel.dispatch @gdn(%qkv, ..., %b, %a, ...) {
        %beta, %g = delta_gates %b, %a      becomes      all of them; yield the rule's rows
        %o = gated_delta_rule ...                      }

    Left alone: a chain that is read from outside, or whose convolution has another layer's state.
  }];
}

def FuseAttention : FusePass<"fuse-attention"> {
  let summary = "Makes one region of attention: query split to output gate, with the cache write";
  let description = [{
    Norm, rotation and cache write touch each head once, next to the attention that reads it.

        %q, %gate = split %q0
        %qn = qk_norm %q ; %qr = rope %qn              %y = kernel.dispatch @attention(%q0, %k, %v, %cache, ...) {
        %kn = qk_norm %k ; %kr = rope %kn  becomes       all of them; yield the (gated) rows
        kv_append %kr, %v, %cache                      }
        %o = attention %qr, %cache ; %y = sigmoid_gate %o, %gate

    Split, norms, rotations and gate are optional. A cache that a program only appends to (a drafter's context) gives a
    region of its own, without results. Left alone: chains read from outside, several appends to one cache.
  }];
}

def FuseGateUp : FusePass<"fuse-gate-up"> {
  let summary = "Merges the gate and up projections with silu_mul";
  let description = [{
    Two matrices over the same rows, then an element by element product: the wide intermediate is written once
    instead of three times.

        %g = linear %h, @gate
        %u = linear %h, @up               becomes      %m = kernel.dispatch @linear(%h, ...) { all three; yield %m }
        %m = silu_mul %g, %u

    Left alone: projections of different rows, or ones that something else reads.
  }];
}

def FuseInputProjections : FusePass<"fuse-input-projections"> {
  let summary = "Merges the linears that read the same rows";
  let description = [{
    The rows are loaded once and the small matrices (gates of one row a head) ride along with the big one. More of them
    than a kernel has outputs for become several dispatches.

        %qkv = linear %h, @qkv                         %qkv, %z, %b, %a = kernel.dispatch @linear(%h, ...) {
        %z = linear %h, @z ; ...          becomes        all of them, in their order
                                                       }
    Left alone: a linear that is the only one of its input.
  }];
}

def FuseGatedNormOut : FusePass<"fuse-gated-norm-out"> {
  let summary = "Merges the delta-rule mixer's gated norm into the output projection";
  let description = [{
        %y = gated_rms_norm %o, %z, %w
        %p = linear %y, @out              becomes      %p = kernel.dispatch @linear(%o, %z, ...) { both }

    Left alone: a norm that something else reads.
  }];
}

def FuseNormLinear : FusePass<"fuse-norm-linear"> {
  let summary = "Merges a norm into the linears behind it";
  let description = [{
    The projection reads the row anyway; apart, the normed row is written and read once more.

        %h = rms_norm %x, %n                           %qkv, ... = kernel.dispatch @linear(%x, %n, ...) {
        %qkv, ... = kernel.dispatch @linear(%h, ...)     the norm, then what was there
                                          becomes      }

    Left alone: a norm with several readers, whose rows must exist anyway.
  }];
}

def FuseResidual : FusePass<"fuse-residual"> {
  let summary = "Takes the residual add into the epilogue of the projection before it";
  let description = [{
        %p = linear %y, @out              becomes      %x1 = kernel.dispatch @linear(%y, ..., %x) { both }
        %x1 = add %p, %x

    For `@linear` and `@experts`. Left alone: a sum that other ops read before the residual exists, a projection with
    more than one result or one that already has an epilogue, and one whose part must cross a collective first.
  }];
}

def FuseLmHead : FusePass<"fuse-lm-head"> {
  let summary = "Makes one region of the end: row choice, final norm, logits, next token";
  let description = [{
    The best token of a block of the vocabulary is known as soon as its logits are, so `sample` need not read them
    again.

        %r = logit_rows %x
        %n = rms_norm %r, %w                           %l, %next = kernel.dispatch @lm_head(%x, ...) {
        %l = lm_head %n, @lm_head         becomes        all four; yield the logits if they are read
        %next = sample %l                              }

    The norm may stand on either side of `logit_rows`. Left alone: a norm that the program also hands out (its rows are
    not only the logit rows); a `sample` behind a gather, which becomes a dispatch of its own.
  }];
}

def FuseAddRMSNorm : FusePass<"fuse-add-rms-norm"> {
  let summary = "Merges a residual add into the norm that follows it";
  let description = [{
    Decode is bound by memory traffic: apart, the pair moves the row five times, merged four.

        %s = add %x, %r                   becomes      %s, %y = kernel.dispatch @rms_norm(%x, %r, %w) {
        %y = rms_norm %s, %w                             both; yield the sum if it is read, and the norm
                                                       }
    The norm still reads the sum rounded to its type, so no bit changes.
  }];
}

def DispatchRemaining : Pass<"dispatch-remaining", "::mlir::func::FuncOp"> {
  let summary = "Makes a dispatch of every model op that no fusion took";
  let description = [{
    So that `select` sees dispatches only. The family is the one that names the op (`embed`, `rms_norm`, `linear`,
    `gdn`, `attention`, `router`, `experts`, `lm_head`, `all_reduce` for both collectives), else `elementwise`. Only
    `model.weight` and `model.state` stay outside, as they compute nothing.

        %x = embed %ids, %table           becomes      %x = kernel.dispatch @embed(%ids, %table) { the op }
  }];
  let dependentDialects = ["::qwen::ir::kernel::KernelDialect"];
}

//===----------------------------------------------------------------------===//
// select
//===----------------------------------------------------------------------===//

def SelectKernels : Pass<"select-kernels", "::mlir::ModuleOp"> {
  let summary = "Names the kernels that serve every dispatch, and their Specs";
  let description = [{
    What a dispatch holds is read from its region, so fusions compose in any order. Equal Specs share one record:
    the 48 delta-rule layers of a model are one `gdn_decode` and one `gdn_scan`.

        %o = kernel.dispatch @gdn(...) {...}  becomes  kernel.kernel @gdn_decode__k16x128_v32x128_bf16 ... {...}
                                                       %o = kernel.dispatch @gdn(...) attributes {kernels = [...],
                                                              args = [...], layouts = [...]} {...}

    An entry means the same on every target, and so do its Spec, its arguments and the layout of its weights. A program is
    therefore copied for every target behind the first, and only the records differ: one for another target than `cpu`
    says how it is launched.

    Refused, at the op: a weight stored in a form no kernel reads, a region no kernel of its family fits, a Spec beyond
    a kernel's limits.
  }];
  let options = [ListOption<"targets", "targets", "std::string", "cpu, sm_89; cpu alone where none is named">];
  let dependentDialects = ["::qwen::ir::kernel::KernelDialect"];
}

//===----------------------------------------------------------------------===//
// memory
//===----------------------------------------------------------------------===//

def PlanMemory : Pass<"plan-memory", "::mlir::ModuleOp"> {
  let summary = "Gives every buffer its bytes and every kernel its place in the order";
  let description = [{
    A program's tensors live in one arena, packed by the phases they live in (greedy by size); weights, caches,
    inputs and outputs are buffers of their own. A barrier stands only where a step reads what the one before wrote.

        func @step(...) { %h = kernel.dispatch ... }   becomes   plan.program @step__cpu_r0 ... arena_bytes 8192 {
                                                                   %0 = plan.buffer "arena" "..." offset 0 ...
                                                                   plan.launch @linear__... (%0, ...) ...
                                                                 }

    Reads `plan.capacity` of the module, writes `plan.states`, the layout of pages and slots by rank.
  }];
  let dependentDialects = ["::qwen::ir::plan::PlanDialect"];
}

//===----------------------------------------------------------------------===//
// verify
//===----------------------------------------------------------------------===//

def VerifyStage : Pass<"verify-stage", "::mlir::ModuleOp"> {
  let summary = "Checks that only the ops of a stage are left behind it";
  let description = [{
    | after | may exist | must not |
    |---|---|---|
    | `import` | model ops, one `func` a program | collectives, sliced weights, kernel and plan ops |
    | `shard` | the same, one `func` a program and rank; collectives when there are ranks | kernel and plan ops |
    | `fuse` | dispatches, `model.weight`, `model.state` | a model op outside a dispatch |
    | `select` | the same, every dispatch with `kernels` and `args`, and the kernels it names | |
    | `memory` | `plan.program` and its ops, `model.param`, `kernel.kernel` | functions, dispatches, other model ops |

    The message says which pass removes what should not be there.
  }];
  let options = [Option<"stage", "stage", "std::string", "\"\"", "import, shard, fuse, select or memory">];
}

#endif
