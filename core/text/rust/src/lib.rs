//! The C ABI that `quire_text.h` declares: conversions and the catching of panics, nothing else.

mod byte_level;
mod failure;
mod json;
mod pre_tokenizer;
mod sentence_piece;
mod template;
mod tokenizer;

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice::from_raw_parts;

use failure::{Code, Failure};
use template::Template;
use tokenizer::Tokenizer;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    data: *const u8,
    size: usize,
}

#[repr(C)]
pub struct Owned<T> {
    data: *mut T,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct Vocabulary {
    model: Slice,
    pre: Slice,
    tokens: *const Slice,
    types: *const i64,
    token_count: usize,
    merges: *const Slice,
    merge_count: usize,
    scores: *const f64,
    unknown: i64,
    space_prefix: i32,
}

impl Slice {
    fn of(bytes: &[u8]) -> Self {
        Slice { data: bytes.as_ptr(), size: bytes.len() }
    }

    /// # Safety
    /// `data` points to `size` readable bytes that outlive `'a`.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        array(self.data, self.size)
    }

    /// # Safety
    /// As `bytes`.
    unsafe fn text<'a>(self, what: &str) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes()).map_err(|e| {
            Failure::invalid(format!(
                "{what} is not UTF-8: the byte at offset {} begins no character",
                e.valid_up_to()
            ))
        })
    }
}

/// # Safety
/// `data` is null, or points to `size` elements that outlive `'a`.
unsafe fn array<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if data.is_null() || size == 0 {
        &[]
    } else {
        from_raw_parts(data, size)
    }
}

impl<T> Owned<T> {
    fn from_vec(vec: Vec<T>) -> Self {
        let mut vec = ManuallyDrop::new(vec);
        Owned { data: vec.as_mut_ptr(), size: vec.len(), capacity: vec.capacity() }
    }

    /// # Safety
    /// `self` was made by `from_vec` and is given back once.
    unsafe fn drop_vec(self) {
        if !self.data.is_null() {
            drop(Vec::from_raw_parts(self.data, self.size, self.capacity));
        }
    }
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!("internal error in core/text: {}", text.unwrap_or_default())
}

/// Runs `body`; what it gives goes to `out`, its failure or its panic to `error` and the return value.
///
/// # Safety
/// `out` and `error` may be written to.
unsafe fn guarded<T>(out: *mut T, error: *mut Owned<u8>, body: impl FnOnce() -> Result<T, Failure>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|p| Err(Failure { code: Code::Internal, message: panic_text(p) }));
    match result {
        Ok(value) => {
            out.write(value);
            0
        }
        Err(failure) => {
            error.write(Owned::from_vec(failure.message.into_bytes()));
            failure.code as i32
        }
    }
}

/// # Safety
/// The pointers are as `quire_text.h` says; so for every function below.
#[no_mangle]
pub unsafe extern "C" fn quire_text_tokenizer_new(
    vocabulary: *const Vocabulary,
    out: *mut *mut Tokenizer,
    error: *mut Owned<u8>,
) -> i32 {
    guarded(out, error, || {
        let v = &*vocabulary;
        let texts = |what: &str, data: *const Slice, size: usize| {
            array(data, size)
                .iter()
                .enumerate()
                .map(|(i, s)| s.text(&format!("{what} {i}")))
                .collect::<Result<Vec<&str>, _>>()
        };
        let tokens = texts("token", v.tokens, v.token_count)?;
        let merges = texts("merge", v.merges, v.merge_count)?;
        let types = if v.types.is_null() { None } else { Some(array(v.types, v.token_count)) };
        let scores = if v.scores.is_null() { None } else { Some(array(v.scores, v.token_count)) };
        Ok(Box::into_raw(Box::new(Tokenizer::new(&tokenizer::Vocabulary {
            model: v.model.text("tokenizer.ggml.model")?,
            pre: v.pre.text("tokenizer.ggml.pre")?,
            tokens: &tokens,
            types,
            merges: &merges,
            scores,
            unknown: u32::try_from(v.unknown).ok(),
            space_prefix: v.space_prefix != 0,
        })?)))
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_encode(
    tokenizer: *const Tokenizer,
    text: Slice,
    parse_special: i32,
    out: *mut Owned<u32>,
    error: *mut Owned<u8>,
) -> i32 {
    guarded(out, error, || Ok(Owned::from_vec((*tokenizer).encode(text.text("text")?, parse_special != 0)?)))
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_token_bytes(tokenizer: *const Tokenizer, id: u32) -> Slice {
    Slice::of((*tokenizer).token_bytes(id))
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_adds_bos(tokenizer: *const Tokenizer) -> i32 {
    i32::from((*tokenizer).adds_bos())
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_template_new(
    source: Slice,
    bos: Slice,
    eos: Slice,
    out: *mut *mut Template,
    error: *mut Owned<u8>,
) -> i32 {
    guarded(out, error, || {
        let template = Template::new(
            source.text("the chat template")?,
            bos.text("the BOS token")?,
            eos.text("the EOS token")?,
        )?;
        Ok(Box::into_raw(Box::new(template)))
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_template_free(template: *mut Template) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_template_render(
    template: *const Template,
    messages: Slice,
    add_generation_prompt: i32,
    variables: Slice,
    out: *mut Owned<u8>,
    error: *mut Owned<u8>,
) -> i32 {
    guarded(out, error, || {
        let text = (*template).render(
            messages.text("messages")?,
            add_generation_prompt != 0,
            variables.text("variables")?,
        )?;
        Ok(Owned::from_vec(text.into_bytes()))
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_free_bytes(bytes: Owned<u8>) {
    bytes.drop_vec();
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn quire_text_free_ids(ids: Owned<u32>) {
    ids.drop_vec();
}
