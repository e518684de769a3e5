//! Chat templates: Jinja as `transformers` sets it up (blocks trimmed, loop controls, `raise_exception`, `strftime_now`, a `tojson` like
//! Python's, Python's string methods).

use std::ffi::{CStr, CString};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex_automata::meta::Regex;
use serde_json::Value as Json;

use crate::failure::Failure;
use crate::json::{dumps, Style};

const NAME: &str = "chat_template";
/// Instructions, and 64-byte units of data, that one rendering may spend: several times what real templates take for 8 MiB of messages,
/// and a bound of a second or so and 320 MiB on hostile ones.
const FUEL: u64 = 5_000_000;
/// Names that `render` sets itself, so `variables` may not.
const RESERVED: [&str; 2] = ["messages", "add_generation_prompt"];

pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, Failure> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Failure::internal(e.to_string()))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        // As in Python none is not iterable.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment
            .add_template_owned(NAME, without_generation_tags(source)?)
            .map_err(|e| failure("does not parse", &e))?;
        Ok(Template { environment, bos: bos.to_string(), eos: eos.to_string() })
    }

    pub fn render(
        &self,
        messages: &str,
        add_generation_prompt: bool,
        variables: &str,
    ) -> Result<String, Failure> {
        let messages: Json = serde_json::from_str(messages)
            .map_err(|e| Failure::invalid(format!("messages are not JSON: {e}")))?;
        if !messages.is_array() {
            return Err(Failure::invalid("messages are not a JSON array"));
        }
        // In the order of transformers: the special tokens may be overridden; tools and documents are there, if only as none.
        let mut context = serde_json::Map::new();
        context.insert("tools".into(), Json::Null);
        context.insert("documents".into(), Json::Null);
        context.insert("bos_token".into(), self.bos.clone().into());
        context.insert("eos_token".into(), self.eos.clone().into());
        for (name, value) in parse_variables(variables)? {
            if RESERVED.contains(&name.as_str()) {
                return Err(Failure::invalid(format!("variables may not set '{name}'")));
            }
            context.insert(name, value);
        }
        context.insert("messages".into(), messages);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let template = self.environment.get_template(NAME).map_err(|e| Failure::internal(e.to_string()))?;
        template.render(to_value(Json::Object(context))).map_err(|e| failure("failed", &e))
    }
}

fn parse_variables(variables: &str) -> Result<serde_json::Map<String, Json>, Failure> {
    if variables.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_str(variables) {
        Ok(Json::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::invalid("variables are not a JSON object")),
        Err(e) => Err(Failure::invalid(format!("variables are not JSON: {e}"))),
    }
}

/// Keeps the order of keys. The parser bounds the depth.
fn to_value(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(b),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(u), _) => Value::from(u),
            (None, Some(i)) => Value::from(i),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s),
        Json::Array(items) => items.into_iter().map(to_value).collect(),
        Json::Object(map) => Value::from_pairs(map.into_iter().map(|(key, value)| (key, to_value(value)))),
    }
}

/// transformers' `{% generation %}` marks what training learns from; for rendering it is a block without effect.
fn without_generation_tags(source: &str) -> Result<String, Failure> {
    let tags = Regex::new(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
        .map_err(|e| Failure::internal(e.to_string()))?;
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    for tag in tags.find_iter(source) {
        out.push_str(&source[at..tag.start()]);
        let text = &source[tag.range()];
        let (word, by) = if text.contains("endgeneration") {
            ("endgeneration", "endif")
        } else {
            ("generation", "if true")
        };
        out.push_str(&text.replacen(word, by, 1));
        at = tag.end();
    }
    out.push_str(&source[at..]);
    Ok(out)
}

/// What a template raises is meant for the user as it stands; anything else names the template and its line.
fn failure(what: &str, error: &Error) -> Failure {
    if error.kind() == ErrorKind::InvalidOperation {
        if let Some(raised) = error.detail().and_then(|d| d.strip_prefix(RAISED)) {
            return Failure::invalid(raised);
        }
    }
    let line = error.line().map(|n| format!(" in line {n}")).unwrap_or_default();
    let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
    Failure::invalid(format!("the chat template {what}{line}: {}{detail}", error.kind()))
}

const RAISED: &str = "\u{1}raised:";

fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

/// `datetime.now().strftime(format)`, in local time.
fn strftime_now(format: &str) -> Result<String, Error> {
    let invalid = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {what}"));
    if format.is_empty() {
        return Ok(String::new());
    }
    let c_format = CString::new(format).map_err(|_| invalid("the format holds a zero byte"))?;
    let mut text = [0u8; 1024];
    // SAFETY: `parts` is filled before it is read, and strftime writes at most text.len() bytes, a final zero among them.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(invalid("no local time"));
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c_format.as_ptr(), &parts)
    };
    if written == 0 {
        return Err(invalid("the result is empty or longer than 1023 bytes"));
    }
    let text = CStr::from_bytes_until_nul(&text).map_err(|_| invalid("the result has no end"))?;
    Ok(text.to_string_lossy().into_owned())
}

/// `tojson(indent=None, separators=None, sort_keys=False, ensure_ascii=False)` as transformers defines it: no HTML escapes.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => indent,
        None => options.get::<Option<Value>>("indent")?.unwrap_or_default(),
    };
    let indent = if indent.is_none() || indent.is_undefined() {
        None
    } else if let Some(text) = indent.as_str() {
        Some(text.to_string())
    } else {
        let width = i64::try_from(indent)?.clamp(0, 64);
        Some(" ".repeat(width as usize))
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (item_separator, key_separator) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are not a pair")),
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    if options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: ensure_ascii is not supported"));
    }
    options.assert_all_used()?;
    dumps(value, &Style { indent, item_separator, key_separator, sort_keys })
}
