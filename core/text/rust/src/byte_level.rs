//! Byte-level BPE as GGUF describes it (tokenizer.ggml.model = "gpt2"): text is cut into words, and the bytes of a word, written in an
//! alphabet of printable characters, are merged by the crate `tokenizers`' BPE model.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::Model;

use crate::failure::Failure;
use crate::pre_tokenizer::PreTokenizer;
use crate::tokenizer::Kind;

pub struct ByteLevel {
    bpe: BPE,
    pre: PreTokenizer,
    byte_chars: [char; 256],
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

impl ByteLevel {
    pub fn new(pre: &str, tokens: &[&str], kinds: &[Kind], merges: &[&str]) -> Result<Self, Failure> {
        let pre = PreTokenizer::named(pre)?;
        let bpe = build_bpe(tokens, kinds, merges, pre.ignores_merges)?;
        Ok(ByteLevel { bpe, pre, byte_chars: byte_alphabet() })
    }

    /// The bytes that normal tokens stand for.
    pub fn bytes_of(&self, tokens: &[&str]) -> Vec<Box<[u8]>> {
        let bytes_of = self.byte_chars.iter().enumerate().map(|(byte, c)| (*c, byte as u8)).collect();
        tokens.iter().map(|token| from_alphabet(token, &bytes_of)).collect()
    }

    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), Failure> {
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

    pub fn adds_bos(&self) -> bool {
        self.pre.adds_bos
    }
}
