// Every way the importer says no, with its line and its exit code. A message starts with the path as the user typed it.

#include "ImportTesting.h"

namespace qwen::compiler::testing {
namespace {

struct Refusal {
  Fields fields;
  int exitCode;
  const char *message; // after "config.json:"
};

void expectRefused(const std::string &path, const ImportOptions &options, int exitCode, const std::string &message) {
  Imported imported(path, options);
  ASSERT_FALSE(imported.module.ok()) << "want: " << message;
  EXPECT_EQ(imported.module.status().message(), message);
  EXPECT_EQ(imported.module.status().ExitCode(), exitCode) << message;
}

const Refusal kRefusals[] = {
    // Not a model we know.
    {with(dense(), {{"model_type", ""}}), 3, "/model_type: is missing"},
    {with(dense(), {{"model_type", "7"}}), 3, "/model_type: is an integer, not a string"},
    {with(dense(), {{"model_type", "\"llama\""}}), 4,
     "/model_type: model type \"llama\" is not supported (qwen3, qwen3_moe, qwen3_next, qwen3_5, qwen3_5_text, "
     "qwen3_5_moe, qwen3_5_moe_text)"},
    {with(dense(), {{"model_type", "\"qwen3_8_flash_next\""}}), 4,
     "/model_type: model type \"qwen3_8_flash_next\" is not supported (qwen3, qwen3_moe, qwen3_next, qwen3_5, "
     "qwen3_5_text, qwen3_5_moe, qwen3_5_moe_text)"},
    {with(dense(), {{"architectures", "[\"Qwen3ForSequenceClassification\"]"}}), 4,
     "/architectures/0: architecture \"Qwen3ForSequenceClassification\" is not supported for model type qwen3 "
     "(Qwen3ForCausalLM)"},
    {{{"model_type", "\"qwen3_5\""}, {"text_config", "{\"model_type\": \"qwen3_5_moe_text\"}"}},
     4,
     "/text_config/model_type: model type \"qwen3_5_moe_text\" does not belong in \"qwen3_5\""},

    // Sizes: missing, of the wrong type, hostile, contradictory.
    {with(dense(), {{"hidden_size", ""}}), 3, "/hidden_size: is missing"},
    {with(dense(), {{"hidden_size", "\"40\""}}), 3, "/hidden_size: is a string, not an integer"},
    {with(dense(), {{"hidden_size", "0"}}), 4, "/hidden_size: 0 is not in [1, 131072]"},
    {with(dense(), {{"hidden_size", "2147483648"}}), 4, "/hidden_size: 2147483648 is not in [1, 131072]"},
    {with(dense(), {{"vocab_size", "-5"}}), 4, "/vocab_size: -5 is not in [2, 16777216]"},
    {with(dense(), {{"num_hidden_layers", "1000000"}}), 4, "/num_hidden_layers: 1000000 is not in [1, 256]"},
    {with(dense(), {{"intermediate_size", ""}}), 3, "/intermediate_size: is missing"},
    {with(dense(), {{"intermediate_size", "9223372036854775807"}}), 4,
     "/intermediate_size: 9223372036854775807 is not in [1, 1048576]"},
    {with(dense(), {{"num_attention_heads", "5"}}), 4,
     "/num_attention_heads: 5 is not a multiple of num_key_value_heads (2)"},
    {with(dense(), {{"num_attention_heads", "6"}, {"head_dim", ""}}), 4,
     "/hidden_size: 40 is not a multiple of num_attention_heads (6), and head_dim is not given"},
    {with(dense(), {{"hidden_size", "131072"}, {"head_dim", "null"}}), 4,
     "/head_dim: hidden_size / num_attention_heads is 32768, not in [1, 1024]"},
    {with(dense(), {{"rms_norm_eps", "0"}}), 4, "/rms_norm_eps: 0 is not in [1e-12, 1]"},
    {with(dense(), {{"eos_token_id", "\"</s>\""}}), 3, "/eos_token_id: is a string, not an integer"},
    {with(hybrid(), {{"linear_num_key_heads", "16"}, {"linear_num_value_heads", "30"}}), 4,
     "/linear_num_value_heads: 30 is not a multiple of linear_num_key_heads (16)"},
    {with(hybrid(), {{"linear_num_key_heads", "0"}}), 4, "/linear_num_key_heads: 0 is not in [1, 128]"},
    {with(hybrid(), {{"linear_conv_kernel_dim", "1"}}), 4, "/linear_conv_kernel_dim: 1 is not in [2, 16]"},
    {with(experts(), {{"num_experts_per_tok", "7"}}), 4, "/num_experts_per_tok: 7 is more than num_experts (6)"},
    {with(experts(), {{"num_experts_per_tok", "0"}}), 4, "/num_experts_per_tok: 0 is not in [1, 256]"},
    {with(experts(), {{"num_local_experts", "8"}}), 4, "/num_local_experts: 8 contradicts num_experts (6)"},
    {with(experts(), {{"decoder_sparse_step", "0"}}), 4, "/decoder_sparse_step: 0 is not in [1, 256]"},
    {with(experts(), {{"mlp_only_layers", "[2]"}}), 4, "/mlp_only_layers/0: 2 is not in [0, 1]"},
    {with(experts(), {{"mlp_only_layers", "[0]"}, {"intermediate_size", ""}}), 3, "/intermediate_size: is missing"},

    // Layers.
    {with(dense(), {{"layer_types", "[\"full_attention\"]"}}), 4,
     "/layer_types: lists 1 layers, but num_hidden_layers is 2"},
    {with(dense(), {{"layer_types", "[\"full_attention\", \"linear_attention\"]"}}), 4,
     "/layer_types/1: layer type \"linear_attention\" is not supported (full_attention, sliding_attention)"},
    {with(dense(), {{"layer_types", "[\"full_attention\", \"sliding_attention\"]"}}), 4,
     "/layer_types: has a sliding_attention layer, but use_sliding_window is false"},
    {with(dense(), {{"use_sliding_window", "true"}}), 3, "/sliding_window: is missing"},
    {with(dense(), {{"use_sliding_window", "true"}, {"sliding_window", "0"}}), 4,
     "/sliding_window: 0 is not in [1, 1073741824]"},
    {with(experts(), {{"use_sliding_window", "true"}, {"sliding_window", "8"}}), 4,
     "/use_sliding_window: sliding attention is not supported in qwen3_moe"},
    {with(hybrid(), {{"use_sliding_window", "true"}}), 4,
     "/use_sliding_window: sliding attention is not supported in qwen3_5"},
    {with(hybrid(), {{"layer_types", "[\"full_attention\", \"full_attention\", \"full_attention\", \"mamba\"]"}}), 4,
     "/layer_types/3: layer type \"mamba\" is not supported (linear_attention, full_attention)"},
    {with(hybrid(), {{"full_attention_interval", "0"}}), 4, "/full_attention_interval: 0 is not in [1, 256]"},

    // What no release has and the recipe does not cover.
    {with(dense(), {{"attention_bias", "true"}}), 4, "/attention_bias: biases on q, k, v and o are not supported"},
    {with(dense(), {{"hidden_act", "\"gelu\""}}), 4, "/hidden_act: activation \"gelu\" is not supported (silu)"},
    {with(hybrid(), {{"output_gate_type", "\"sigmoid\""}}), 4,
     "/output_gate_type: output gate \"sigmoid\" is not supported (silu, swish)"},
    {with(hybrid(), {{"layer_scale", "true"}}), 4, "/layer_scale: scaled layers are not supported"},
    {with(next(), {{"dual_chunk_attention_config", "{}"}}), 4,
     "/dual_chunk_attention_config: dual chunk attention is not supported"},
    {with(hybrid(), {{"mtp_num_hidden_layers", "2"}}), 4,
     "/mtp_num_hidden_layers: 2 MTP layers are not supported (0, 1)"},
    {with(hybrid(), {{"mtp_use_dedicated_embeddings", "true"}}), 4,
     "/mtp_use_dedicated_embeddings: an MTP head with an embedding of its own is not supported"},
    {with(dense(), {{"dtype", "\"float64\""}}), 4,
     "/dtype: element type \"float64\" is not supported (bfloat16, float16, float32)"},
    {with(dense(), {{"dtype", "\"float16\""}}), 4, "/dtype: computing in float16 is not supported"},

    // Rotary positions.
    {with(dense(), {{"rope_theta", "0"}}), 4, "/rope_theta: 0 is not in [1.0001, 1e+15]"},
    {with(dense(), {{"rope_scaling", "{\"rope_type\": \"dynamic\", \"factor\": 2}"}}), 4,
     "/rope_scaling/rope_type: rope type \"dynamic\" is not supported (default, yarn)"},
    {with(dense(), {{"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 0.5}"}}), 4,
     "/rope_scaling/factor: 0.5 is not in [1, 1e+06]"},
    {with(dense(), {{"rope_parameters", "{\"full_attention\": {\"rope_theta\": 10000}}"}}), 4,
     "/rope_parameters/full_attention: rope parameters per layer type are not supported"},
    {with(hybrid(), {{"partial_rotary_factor", "0.05"}}), 4,
     "/partial_rotary_factor: rotates 0 of 16 channels of a head, which is not an even number above 0"},
    {with(hybrid(), {{"partial_rotary_factor", "0.2"}}), 4,
     "/partial_rotary_factor: rotates 3 of 16 channels of a head, which is not an even number above 0"},
};

TEST(Refusal, OfAConfig) {
  Folder folder;
  for (const Refusal &refusal : kRefusals) {
    std::string path = folder.write("config.json", render(refusal.fields));
    expectRefused(path, {}, refusal.exitCode, path + ":" + refusal.message);
  }
}

TEST(Refusal, NamesThePlaceInANestedConfig) {
  Folder folder;
  Fields text = with(hybrid(), {{"linear_num_value_heads", "7"}, {"architectures", ""}});
  std::string path = folder.write(
      "config.json", render({{"model_type", "\"qwen3_5\""}, {"text_config", render(text)}, {"vision_config", "{}"}}));
  expectRefused(path, {}, 4,
                path + ":/text_config/linear_num_value_heads: 7 is not a multiple of "
                       "linear_num_key_heads (2)");
}

TEST(Refusal, OfADrafterAlone) {
  Folder folder;
  std::string path = folder.write("config.json", render(drafter()));
  Imported imported(path);
  ASSERT_FALSE(imported.module.ok());
  EXPECT_EQ(imported.module.status().message(),
            path + ":/architectures: is a drafter, which runs beside its target only");
  EXPECT_EQ(imported.module.status().hint(), "pass the target's config, and this one with --drafter");
  EXPECT_EQ(imported.module.status().ExitCode(), 4);
}

const Refusal kDrafterRefusals[] = {
    {dense(), 4, "/architectures: is not a drafter (DFlashDraftModel, DFlash2DraftModel)"},
    {with(drafter(), {{"model_type", "\"llama\""}}), 4,
     "/model_type: model type \"llama\" is not supported for a drafter (qwen3)"},
    {with(drafter(), {{"hidden_size", "48"}}), 4, "/hidden_size: 48, but the target's hidden_size is 40"},
    {with(drafter(), {{"vocab_size", "99"}}), 4, "/vocab_size: 99, but the target's vocab_size is 101"},
    {with(drafter(), {{"draft_vocab_size", "50"}}), 4, "/draft_vocab_size: 50, but the target's vocab_size is 101"},
    {with(drafter(), {{"num_target_layers", "3"}}), 4,
     "/num_target_layers: 3, but the target's num_hidden_layers is 2"},
    {with(drafter(), {{"block_size", "1"}}), 4, "/block_size: 1 is not in [2, 256]"},
    {with(drafter(), {{"block_size", ""}}), 3, "/dflash_config/block_size: is missing"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": [0, 2]})"}}), 4,
     "/dflash_config/target_layer_ids/1: 2 is not a layer of the target, which has 2"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": [1, 1]})"}}), 4,
     "/dflash_config/target_layer_ids/1: layer 1 stands twice"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": []})"}}), 4,
     "/dflash_config/target_layer_ids: is empty: the drafter would see nothing of the text"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 7})"}}), 4,
     "/dflash_config/target_layer_ids: is missing, and its default names layer -1 of 2"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 101, "target_layer_ids": [0]})"}}), 4,
     "/dflash_config/mask_token_id: 101 is not in [0, 100]"},
    {with(drafter(), {{"dflash_config", R"({"target_layer_ids": [0]})"}}), 4,
     "/dflash_config/mask_token_id: is missing"},
    {with(drafter(), {{"dflash_config", R"({"mask_token_id": 7, "attention_sink_bias": true})"}}), 4,
     "/dflash_config/attention_sink_bias: a bias for attention sinks is not supported"},
    {with(drafter(), {{"is_neox_style", "false"}}), 4,
     "/is_neox_style: rotation of interleaved pairs is not supported"},
    {with(drafter(), {{"output_multiplier", "2.0"}}), 4, "/output_multiplier: a factor other than 1 is not supported"},
    {with(drafter(), {{"final_logit_softcapping", "30"}}), 4,
     "/final_logit_softcapping: capped logits are not supported"},
    {with(drafter(), {{"layer_types", "[\"sliding_attention\", \"full_attention\"]"}}), 3,
     "/dflash_config/swa_window_size: is missing"},
    {with(drafter(), {{"architectures", "[\"DFlash2DraftModel\"]"},
                      {"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": [0], "conv_kernel_size": 2,
                         "conv_group_size": 16, "selector_rank": 8, "selector_top_k": 4})"}}),
     4, "/dflash_config/conv_group_size: 16 does not divide hidden_size (40)"},
};

TEST(Refusal, OfADrafterBesideItsTarget) {
  Folder folder;
  std::string target = folder.write("target/config.json", render(dense()));
  for (const Refusal &refusal : kDrafterRefusals) {
    ImportOptions options;
    options.drafterPath = folder.write("draft/config.json", render(refusal.fields));
    expectRefused(target, options, refusal.exitCode, options.drafterPath + ":" + refusal.message);
  }
}

TEST(Refusal, OfAnOption) {
  Folder folder;
  std::string path = folder.write("config.json", render(dense()));
  ImportOptions dtype, length, rows, negative;
  dtype.dtype = "f16";
  expectRefused(path, dtype, 2, "--dtype=f16: is not f32 or bf16");
  length.maxModelLen = 513;
  expectRefused(path, length, 2, "--max-model-len=513: is not in [1, 512], what " + path + " allows");
  rows.maxRows = 65;
  expectRefused(path, rows, 2, "--max-rows=65: is not in [1, 64]");
  negative.maxRows = -1;
  expectRefused(path, negative, 2, "--max-rows=-1: is not in [1, 64]");
}

TEST(Refusal, OfAFile) {
  Folder folder;
  std::string here = folder.path.string();
  expectRefused(here + "/none.json", {}, 5, here + "/none.json: cannot open: No such file or directory");
  expectRefused(here, {}, 5, here + ": holds no config.json");
  expectRefused(here + "/model-Q4_K_M.gguf", {}, 4, here + "/model-Q4_K_M.gguf: GGUF files are not supported");
  expectRefused(here + "/model.safetensors", {}, 2, here + "/model.safetensors: is a weight file");
  folder.write("gguf/a.gguf", "GGUF");
  Imported gguf(here + "/gguf");
  EXPECT_EQ(gguf.module.status().message(), here + "/gguf: holds GGUF files and no config.json");
  EXPECT_EQ(gguf.module.status().hint(), "GGUF is a converted format; pass the Hugging Face folder it was made from");
  EXPECT_EQ(gguf.module.status().ExitCode(), 4);

  std::string path = folder.write("config.json", "{\"model_type\": \"qwen3\",}");
  expectRefused(here, {}, 3,
                path + ": byte 24: syntax error while parsing object key - unexpected '}'; expected "
                       "string literal");
  path = folder.write("config.json", "{\"hidden_size\": 40, \"hidden_size\": 41}");
  expectRefused(here, {}, 3, path + ":/hidden_size: stands twice in its object");
  path = folder.write("config.json", "[]");
  expectRefused(here, {}, 3, path + ":/: is an array, not an object");
  std::filesystem::resize_file(path, (16 << 20) + 1);
  expectRefused(here, {}, 3, path + ": is 16777217 bytes, the limit is 16777216");
}

TEST(Refusal, HoldsNoControlCharacters) {
  Folder folder;
  Imported imported(folder.write("config.json", render(with(dense(), {{"model_type", "\"\\u001b[2J\""}}))));
  for (char c : imported.module.status().message())
    EXPECT_GE(static_cast<unsigned char>(c), 0x20);
}

} // namespace
} // namespace qwen::compiler::testing
