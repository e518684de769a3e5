/* C ABI of the crate in this folder. Private to core/text: everybody else uses tokenizer.h and
 * chat_template.h.
 *
 * Every fallible function returns 0, or the number of an absl::StatusCode with the message in *error; its
 * other outputs are then untouched. Rust panics end here as INTERNAL. A Bytes or Ids that was filled belongs
 * to the caller until it is given back to quire_text_free_bytes or quire_text_free_ids; what a handle lends
 * stays valid as long as the handle. Handles are immutable and may be used by any number of threads. All
 * texts are UTF-8 unless it says bytes. */
#ifndef QUIRE_CORE_TEXT_RUST_QUIRE_TEXT_H_
#define QUIRE_CORE_TEXT_RUST_QUIRE_TEXT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct QuireTextTokenizer QuireTextTokenizer;
typedef struct QuireTextTemplate QuireTextTemplate;

typedef struct {
  const uint8_t* data; /* may be null if size is 0 */
  size_t size;
} QuireTextSlice;

typedef struct {
  uint8_t* data;
  size_t size, capacity;
} QuireTextBytes;

typedef struct {
  uint32_t* data;
  size_t size, capacity;
} QuireTextIds;

typedef struct {
  QuireTextSlice model;         /* tokenizer.ggml.model */
  QuireTextSlice pre;           /* tokenizer.ggml.pre; used by "gpt2" */
  const QuireTextSlice* tokens; /* by id */
  const int64_t* types;         /* ggml's token types, one a token; null: all normal */
  size_t token_count;
  const QuireTextSlice* merges; /* "left right", by rank; used by "gpt2" */
  size_t merge_count;
  const double* scores; /* one a token; these are used by "llama" */
  int64_t unknown;      /* the token for what is no other; below 0: none */
  int32_t space_prefix; /* a space is put before text that begins, or that follows a control token */
} QuireTextVocabulary;

int32_t quire_text_tokenizer_new(const QuireTextVocabulary* vocabulary, QuireTextTokenizer** out,
                                 QuireTextBytes* error);
void quire_text_tokenizer_free(QuireTextTokenizer* tokenizer);
int32_t quire_text_encode(const QuireTextTokenizer* tokenizer, QuireTextSlice text, int32_t parse_special,
                          QuireTextIds* out, QuireTextBytes* error);
/* Bytes that a token stands for; REQUIRES: id < token_count. */
QuireTextSlice quire_text_token_bytes(const QuireTextTokenizer* tokenizer, uint32_t id);
/* Whether models of this kind want a BOS unless their metadata says otherwise. */
int32_t quire_text_adds_bos(const QuireTextTokenizer* tokenizer);

int32_t quire_text_template_new(QuireTextSlice source, QuireTextSlice bos, QuireTextSlice eos,
                                QuireTextTemplate** out, QuireTextBytes* error);
void quire_text_template_free(QuireTextTemplate* chat_template);
/* `variables`: a JSON object or nothing. */
int32_t quire_text_template_render(const QuireTextTemplate* chat_template, QuireTextSlice messages,
                                   int32_t add_generation_prompt, QuireTextSlice variables,
                                   QuireTextBytes* out, QuireTextBytes* error);

void quire_text_free_bytes(QuireTextBytes bytes);
void quire_text_free_ids(QuireTextIds ids);

#ifdef __cplusplus
}
#endif

#endif
