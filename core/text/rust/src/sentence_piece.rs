//! SentencePiece's BPE as GGUF describes it (tokenizer.ggml.model = "llama"): no words are cut; of all neighbours that together are a
//! token the pair of the highest score is merged, the leftmost of equals, until none is left. Spaces are written as U+2581. A character
//! that is no token becomes its bytes' tokens, or the unknown token where the vocabulary has none.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use crate::failure::Failure;
use crate::tokenizer::{byte_token, Kind};

pub const SPACE: &str = "\u{2581}";
const NONE: usize = usize::MAX;

pub struct SentencePiece {
    ids: HashMap<Box<str>, u32>, // of what text can become; not control and byte tokens
    scores: Box<[f64]>,
    unused: Box<[bool]>, // tokens that may arise in merging but not stay
    byte_ids: [Option<u32>; 256],
    unknown: Option<u32>,
}

/// A stretch of the text, text[start..end]; empty once it was merged into its left neighbour.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

/// Two neighbours that together, `size` bytes, are a token.
struct Candidate {
    score: f64,
    left: usize,
    right: usize,
    size: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

/// Spaces as the vocabulary writes them.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.contains(' ') {
        Cow::Owned(text.replace(' ', SPACE))
    } else {
        Cow::Borrowed(text)
    }
}

pub fn unescape(token: &str) -> Box<[u8]> {
    token.replace(SPACE, " ").into_bytes().into_boxed_slice()
}

impl SentencePiece {
    pub fn new(
        tokens: &[&str],
        kinds: &[Kind],
        scores: Option<&[f64]>,
        unknown: Option<u32>,
    ) -> Result<Self, Failure> {
        let scores = scores.ok_or_else(|| Failure::invalid("the vocabulary has no scores"))?;
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Failure::invalid(format!("token {id} has score {}", scores[id])));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut byte_ids = [None; 256];
        for (id, token) in tokens.iter().enumerate() {
            match kinds[id] {
                Kind::Normal | Kind::UserDefined | Kind::Unused if !token.is_empty() => {
                    ids.entry(escape(token).into()).or_insert(id as u32);
                }
                Kind::Byte => {
                    let byte = byte_token(token).ok_or_else(|| {
                        Failure::invalid(format!("token {id} '{token}' is no byte from <0x00> to <0xFF>"))
                    })?;
                    byte_ids[byte as usize].get_or_insert(id as u32);
                }
                _ => {}
            }
        }
        // Adding 0 makes −0 and 0 the same score.
        let scores = scores.iter().map(|score| score + 0.0).collect();
        let unused = kinds.iter().map(|kind| *kind == Kind::Unused).collect();
        Ok(SentencePiece { ids, scores, unused, byte_ids, unknown })
    }

    /// `text` is escaped and holds no marker.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut symbols = split(text);
        let mut heap = BinaryHeap::with_capacity(symbols.len());
        for left in 1..symbols.len() {
            self.consider(text, &symbols, left - 1, left, &mut heap);
        }
        // How a token that may not stay came about.
        let mut halves: HashMap<&str, usize> = HashMap::new();
        while let Some(Candidate { left, right, size, .. }) = heap.pop() {
            let (l, r) = (&symbols[left], &symbols[right]);
            if l.start == l.end || r.start == r.end || r.end - l.start != size {
                continue;
            }
            let (middle, end, next) = (l.end, r.end, r.next);
            let merged = &text[l.start..end];
            if self.ids.get(merged).is_some_and(|id| self.unused[*id as usize]) {
                halves.insert(merged, middle - l.start);
            }
            symbols[left].end = end;
            symbols[left].next = next;
            symbols[right].end = symbols[right].start;
            if next != NONE {
                symbols[next].previous = left;
                self.consider(text, &symbols, left, next, &mut heap);
            }
            let previous = symbols[left].previous;
            if previous != NONE {
                self.consider(text, &symbols, previous, left, &mut heap);
            }
        }
        let mut after_unknown = false;
        let mut at = if symbols.is_empty() { NONE } else { 0 };
        while at != NONE {
            self.emit(&text[symbols[at].start..symbols[at].end], &halves, &mut after_unknown, ids);
            at = symbols[at].next;
        }
    }

    fn consider(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        heap: &mut BinaryHeap<Candidate>,
    ) {
        let (start, end) = (symbols[left].start, symbols[right].end);
        if let Some(id) = self.ids.get(&text[start..end]) {
            heap.push(Candidate { score: self.scores[*id as usize], left, right, size: end - start });
        }
    }

    fn emit(&self, piece: &str, halves: &HashMap<&str, usize>, after_unknown: &mut bool, ids: &mut Vec<u32>) {
        let mut pieces = vec![piece];
        while let Some(piece) = pieces.pop() {
            match (self.ids.get(piece), halves.get(piece)) {
                (Some(_), Some(middle)) => {
                    pieces.push(&piece[*middle..]);
                    pieces.push(&piece[..*middle]);
                }
                (Some(id), None) => {
                    ids.push(*id);
                    *after_unknown = false;
                }
                (None, _) => piece.bytes().for_each(|byte| self.emit_byte(byte, after_unknown, ids)),
            }
        }
    }

    /// Neighbours that are unknown are one unknown token together; without such a token they are left out.
    fn emit_byte(&self, byte: u8, after_unknown: &mut bool, ids: &mut Vec<u32>) {
        match (self.byte_ids[byte as usize], self.unknown) {
            (Some(id), _) => ids.push(id),
            (None, Some(unknown)) if !*after_unknown => ids.push(unknown),
            _ => {}
        }
        *after_unknown = self.byte_ids[byte as usize].is_none();
    }
}

/// One symbol a character.
fn split(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
    for (start, c) in text.char_indices() {
        let index = symbols.len();
        if let Some(last) = symbols.last_mut() {
            last.next = index;
        }
        let previous = if index == 0 { NONE } else { index - 1 };
        symbols.push(Symbol { start, end: start + c.len_utf8(), previous, next: NONE });
    }
    symbols
}
