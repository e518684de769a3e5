//! Byte-level BPE as GGUF describes it (tokenizer.ggml.model = "gpt2"). Merging is the crate `tokenizers`' BPE model; cutting out special
//! tokens and words is done here, on slices of the text, which keeps memory small on large inputs.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::models::bpe::BPE;
use tokenizers::Model;

use crate::failure::Failure;
use crate::pre_tokenizer::PreTokenizer;

/// ggml's token types. Normal tokens are written in the byte-level alphabet, the others as their plain text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn of(id: usize, value: i64) -> Result<Kind, Failure> {
        Ok(match value {
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return Err(Failure::invalid(format!("token {id} has type {value}, not from 0 to 6"))),
        })
    }
}

/// Texts that become one token wherever they stand; of two that begin at the same place the longer.
struct Markers {
    matcher: AhoCorasick,
    ids: Vec<u32>,
}

pub struct Tokenizer {
    bpe: BPE,
    pre: PreTokenizer,
    byte_chars: [char; 256],
    user_markers: Option<Markers>, // user-defined tokens: always
    all_markers: Option<Markers>,  // and control tokens: if special text is to be parsed
    token_bytes: Vec<Box<[u8]>>,
}

/// The byte-level alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on.
fn byte_alphabet() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            return byte as u8 as char;
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or('\u{FFFD}')
    })
}

/// A character outside the alphabet stays as it is: such tokens exist in vocabularies that were extended by hand.
fn from_alphabet(token: &str, bytes_of: &HashMap<char, u8>) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match bytes_of.get(&c) {
            Some(byte) => bytes.push(*byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into_boxed_slice()
}

/// "<0x41>" is the byte 0x41.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

fn markers(
    tokens: &[&str],
    kinds: &[Kind],
    wanted: impl Fn(Kind) -> bool,
) -> Result<Option<Markers>, Failure> {
    let ids: Vec<u32> =
        (0..tokens.len()).filter(|&i| wanted(kinds[i]) && !tokens[i].is_empty()).map(|i| i as u32).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let texts = ids.iter().map(|&id| tokens[id as usize]);
    let matcher = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts)
        .map_err(|e| Failure::invalid(format!("special tokens: {e}")))?;
    Ok(Some(Markers { matcher, ids }))
}

fn build_bpe(tokens: &[&str], kinds: &[Kind], merges: &[&str], ignores_merges: bool) -> Result<BPE, Failure> {
    // Control tokens are left out, so that no plain text can ever become one.
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if matches!(kinds[id], Kind::Normal | Kind::UserDefined) {
            ids.entry(token).or_insert(id as u32);
        }
    }
    let mut pairs = Vec::with_capacity(merges.len());
    let mut joined = String::new();
    for (rank, merge) in merges.iter().enumerate() {
        let (left, right) = merge.split_once(' ').ok_or_else(|| {
            Failure::invalid(format!("merge {rank} '{merge}' is not two tokens with a space between"))
        })?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        for part in [left, right, &joined] {
            if part.is_empty() || !ids.contains_key(part) {
                return Err(Failure::invalid(format!(
                    "merge {rank} '{merge}' needs '{part}', which is no token of the vocabulary"
                )));
            }
        }
        pairs.push((left.to_string(), right.to_string()));
    }
    let vocabulary: HashMap<String, u32> = ids.into_iter().map(|(text, id)| (text.to_string(), id)).collect();
    BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
        .ignore_merges(ignores_merges)
        .build()
        .map_err(|e| Failure::invalid(e.to_string()))
}

impl Tokenizer {
    pub fn new(pre: &str, tokens: &[&str], types: Option<&[i64]>, merges: &[&str]) -> Result<Self, Failure> {
        if tokens.is_empty() || tokens.len() > u32::MAX as usize {
            return Err(Failure::invalid(format!("a vocabulary of {} tokens", tokens.len())));
        }
        let pre = PreTokenizer::named(pre)?;
        let kinds = match types {
            Some(types) => {
                types.iter().enumerate().map(|(id, t)| Kind::of(id, *t)).collect::<Result<Vec<_>, _>>()?
            }
            None => vec![Kind::Normal; tokens.len()],
        };
        let byte_chars = byte_alphabet();
        let bytes_of: HashMap<char, u8> =
            byte_chars.iter().enumerate().map(|(byte, c)| (*c, byte as u8)).collect();
        let token_bytes = tokens
            .iter()
            .zip(&kinds)
            .map(|(token, kind)| match (kind, byte_token(token)) {
                (Kind::Normal, _) => from_alphabet(token, &bytes_of),
                (Kind::Byte, Some(byte)) => Box::from([byte]),
                _ => Box::from(token.as_bytes()),
            })
            .collect();
        Ok(Tokenizer {
            bpe: build_bpe(tokens, &kinds, merges, pre.ignores_merges)?,
            user_markers: markers(tokens, &kinds, |k| k == Kind::UserDefined)?,
            all_markers: markers(tokens, &kinds, |k| {
                matches!(k, Kind::UserDefined | Kind::Control | Kind::Unknown)
            })?,
            pre,
            byte_chars,
            token_bytes,
        })
    }

    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, Failure> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        let mut at = 0;
        if let Some(markers) = if parse_special { &self.all_markers } else { &self.user_markers } {
            for found in markers.matcher.find_iter(text) {
                self.encode_plain(&text[at..found.start()], &mut ids)?;
                ids.push(markers.ids[found.pattern().as_usize()]);
                at = found.end();
            }
        }
        self.encode_plain(&text[at..], &mut ids)?;
        Ok(ids)
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), Failure> {
        let text = self.pre.normalize(text);
        let mut word = String::new();
        self.pre.split(&text, &mut |piece: &str| {
            word.clear();
            word.extend(piece.bytes().map(|byte| self.byte_chars[byte as usize]));
            // A byte that the vocabulary has no token for is left out, as the models' own tokenizers do.
            let tokens = self.bpe.tokenize(&word).map_err(|e| Failure::internal(e.to_string()))?;
            ids.extend(tokens.iter().map(|token| token.id));
            Ok(())
        })
    }

    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    pub fn adds_bos(&self) -> bool {
        self.pre.adds_bos
    }
}
