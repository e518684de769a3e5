//! Cuts text into the words that byte-pair merging stays within, by the expressions that models were trained with.
//!
//! All of them end in `\s+(?!\S)|\s+`: white space before a word leaves its last character to that word. That look-ahead is done by
//! hand here, so that the rest is a regular language and matching is linear in the text, whatever the text is.

use std::borrow::Cow;

use regex_automata::{meta::Regex, Anchored, Input};
use unicode_normalization::{is_nfc, UnicodeNormalization};

use crate::failure::Failure;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const SPACE: &str = r"\s+";
const SPACE_PATTERN: usize = 1;

pub struct PreTokenizer {
    words: Regex,             // pattern 0: a word, pattern 1: white space
    digits: Option<Regex>,    // what is cut out first, each match a piece of its own
    nfc: bool,                // text is put into Unicode's composed form first
    pub ignores_merges: bool, // a word that is itself a token is that token
    pub adds_bos: bool,
}

impl PreTokenizer {
    /// By the name in `tokenizer.ggml.pre`.
    pub fn named(name: &str) -> Result<Self, Failure> {
        let words = match name {
            "default" | "gpt-2" | "gpt2" | "smollm" => GPT2,
            "llama-bpe" | "llama3" | "llama-v3" => LLAMA3,
            "qwen2" => QWEN2,
            _ => {
                return Err(Failure::unimplemented(format!(
                "pre-tokenizer '{name}' is not supported (default, gpt-2, smollm, llama-bpe and qwen2 are)"
            )))
            }
        };
        let compile =
            |patterns: &[&str]| Regex::new_many(patterns).map_err(|e| Failure::internal(e.to_string()));
        Ok(PreTokenizer {
            words: compile(&[words, SPACE])?,
            digits: if name == "smollm" { Some(compile(&[r"\p{N}"])?) } else { None },
            nfc: words == QWEN2,
            ignores_merges: words == LLAMA3,
            adds_bos: words == LLAMA3,
        })
    }

    pub fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.nfc && !is_nfc(text) {
            Cow::Owned(text.nfc().collect())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Calls `each` with the words of `text` in order; together they are `text`.
    pub fn split<E>(&self, text: &str, each: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let Some(digits) = &self.digits else {
            return self.split_words(text, each);
        };
        let mut at = 0;
        for digit in digits.find_iter(text) {
            self.split_words(&text[at..digit.start()], each)?;
            each(&text[digit.range()])?;
            at = digit.end();
        }
        self.split_words(&text[at..], each)
    }

    fn split_words<E>(&self, text: &str, each: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut at = 0;
        while at < text.len() {
            let rest = Input::new(text).range(at..).anchored(Anchored::Yes);
            let end = match self.words.search(&rest) {
                Some(m) if m.pattern().as_usize() == SPACE_PATTERN => end_of_space(text, at, m.end()),
                Some(m) => m.end(),
                None => at + text[at..].chars().next().map_or(1, char::len_utf8),
            };
            each(&text[at..end])?;
            at = end;
        }
        Ok(())
    }
}

/// `\s+(?!\S)|\s+` at a run of white space [start, end): all of it at the end of the text, else all but its last character, which goes
/// with the next word, unless it is the only one.
fn end_of_space(text: &str, start: usize, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    match text[start..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => start + last,
        _ => end,
    }
}
