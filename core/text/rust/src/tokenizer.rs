//! A vocabulary as GGUF describes it. Cutting out special tokens is done here, on slices of the text, which keeps memory small on large
//! inputs; what lies between them is the business of the model's kind.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::byte_level::ByteLevel;
use crate::failure::Failure;
use crate::sentence_piece::{escape, unescape, SentencePiece, SPACE};

/// ggml's token types. Normal tokens are written in the model's own alphabet, the others as their plain text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
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

/// What `Tokenizer::new` reads of tokenizer.ggml.*
pub struct Vocabulary<'a> {
    pub model: &'a str, // "gpt2" or "llama"
    pub pre: &'a str,   // of "gpt2"
    pub tokens: &'a [&'a str],
    pub types: Option<&'a [i64]>,
    pub merges: &'a [&'a str],     // of "gpt2"
    pub scores: Option<&'a [f64]>, // of "llama", as are those below
    pub unknown: Option<u32>,
    pub space_prefix: bool, // a space stands before text that begins, or follows a control token
}

/// Texts that become one token wherever they stand; of two that begin at the same place the longer.
struct Markers {
    matcher: AhoCorasick,
    ids: Vec<u32>,
}

enum Model {
    ByteLevel(ByteLevel),
    SentencePiece { pieces: SentencePiece, space_prefix: bool },
}

pub struct Tokenizer {
    model: Model,
    kinds: Vec<Kind>,
    user_markers: Option<Markers>, // user-defined tokens: always
    all_markers: Option<Markers>,  // and control tokens: if special text is to be parsed
    token_bytes: Vec<Box<[u8]>>,
}

/// "<0x41>" is the byte 0x41.
pub fn byte_token(token: &str) -> Option<u8> {
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
    escapes: bool,
    wanted: impl Fn(Kind) -> bool,
) -> Result<Option<Markers>, Failure> {
    let ids: Vec<u32> =
        (0..tokens.len()).filter(|&i| wanted(kinds[i]) && !tokens[i].is_empty()).map(|i| i as u32).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let texts = ids.iter().map(|&id| match tokens[id as usize] {
        token if escapes => escape(token),
        token => token.into(),
    });
    let matcher = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts.map(|text| text.into_owned()))
        .map_err(|e| Failure::invalid(format!("special tokens: {e}")))?;
    Ok(Some(Markers { matcher, ids }))
}

impl Tokenizer {
    pub fn new(v: &Vocabulary) -> Result<Self, Failure> {
        let tokens = v.tokens;
        if tokens.is_empty() || tokens.len() > u32::MAX as usize {
            return Err(Failure::invalid(format!("a vocabulary of {} tokens", tokens.len())));
        }
        let kinds = match v.types {
            Some(types) => {
                types.iter().enumerate().map(|(id, t)| Kind::of(id, *t)).collect::<Result<Vec<_>, _>>()?
            }
            None => vec![Kind::Normal; tokens.len()],
        };
        let model = match v.model {
            "gpt2" => Model::ByteLevel(ByteLevel::new(v.pre, tokens, &kinds, v.merges)?),
            "llama" => Model::SentencePiece {
                pieces: SentencePiece::new(tokens, &kinds, v.scores, v.unknown)?,
                space_prefix: v.space_prefix,
            },
            _ => {
                return Err(Failure::unimplemented(format!(
                    "tokenizer model '{}' is not supported, only 'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE)",
                    v.model
                )))
            }
        };
        let escapes = matches!(model, Model::SentencePiece { .. });
        Ok(Tokenizer {
            token_bytes: token_bytes(&model, tokens, &kinds),
            model,
            user_markers: markers(tokens, &kinds, escapes, |k| k == Kind::UserDefined)?,
            all_markers: markers(tokens, &kinds, escapes, |k| {
                matches!(k, Kind::UserDefined | Kind::Control | Kind::Unknown)
            })?,
            kinds,
        })
    }

    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, Failure> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        let markers = if parse_special { &self.all_markers } else { &self.user_markers };
        match &self.model {
            Model::ByteLevel(model) => {
                let mut at = 0;
                for (start, end, id) in found(markers, text) {
                    model.encode(&text[at..start], &mut ids)?;
                    ids.push(id);
                    at = end;
                }
                model.encode(&text[at..], &mut ids)?;
            }
            Model::SentencePiece { pieces, space_prefix } => {
                let text = escape(text);
                let (mut at, mut begins) = (0, *space_prefix);
                for (start, end, id) in found(markers, &text) {
                    let user_defined = self.kinds[id as usize] == Kind::UserDefined;
                    let prefix = begins && (start > at || user_defined);
                    encode_stretch(pieces, &text[at..start], prefix, &mut ids);
                    ids.push(id);
                    begins = *space_prefix && !user_defined;
                    at = end;
                }
                encode_stretch(pieces, &text[at..], begins && at < text.len(), &mut ids);
            }
        }
        Ok(ids)
    }

    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    pub fn adds_bos(&self) -> bool {
        match &self.model {
            Model::ByteLevel(model) => model.adds_bos(),
            Model::SentencePiece { .. } => true,
        }
    }
}

fn token_bytes(model: &Model, tokens: &[&str], kinds: &[Kind]) -> Vec<Box<[u8]>> {
    let mut normal = match model {
        Model::ByteLevel(model) => model.bytes_of(tokens),
        Model::SentencePiece { .. } => tokens.iter().map(|token| unescape(token)).collect(),
    };
    for (id, token) in tokens.iter().enumerate() {
        match (kinds[id], byte_token(token), model) {
            (Kind::Normal, _, _) => {}
            (Kind::Byte, Some(byte), _) => normal[id] = Box::from([byte]),
            (Kind::UserDefined | Kind::Unused, _, Model::SentencePiece { .. }) => {}
            _ => normal[id] = Box::from(token.as_bytes()),
        }
    }
    normal
}

/// Start, end and id of each marker in the text.
fn found<'a>(markers: &'a Option<Markers>, text: &'a str) -> impl Iterator<Item = (usize, usize, u32)> + 'a {
    markers.iter().flat_map(move |m| {
        m.matcher
            .find_iter(text)
            .map(move |found| (found.start(), found.end(), m.ids[found.pattern().as_usize()]))
    })
}

fn encode_stretch(pieces: &SentencePiece, text: &str, prefix: bool, ids: &mut Vec<u32>) {
    if prefix {
        pieces.encode(&[SPACE, text].concat(), ids);
    } else {
        pieces.encode(text, ids);
    }
}
