//! Answers of commands, and their conversion to JSON of limited length.

/// JSON that keeps the order of its members: the answer of a command.
///
/// ```
/// use linecard_telemetry::Value;
/// let value = Value::object([("queues", Value::from(2_u64)), ("names", Value::List(vec!["a\"b".into()]))]);
/// assert_eq!(value.to_string(), r#"{"queues":2,"names":["a\"b"]}"#);
/// assert_eq!(value.within(20), r#"{"queues":2}"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// No answer: the command or its parameter is unknown.
    #[default]
    Null,
    /// A count.
    Number(u64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Named values in order.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Creates an object with these members.
    pub fn object<K: Into<String>>(members: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Object(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// Creates a list of values.
    pub fn list<V: Into<Value>>(items: impl IntoIterator<Item = V>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// JSON of at most `most` bytes: members that do not fit are left out from the end, as in DPDK, and the
    /// rest is valid.
    #[must_use]
    pub fn within(&self, most: usize) -> String {
        let mut text = String::new();
        if !self.write(&mut text, most) {
            text.clear();
        }
        text
    }

    /// Appends the value and returns true if `text` then has at most `most` bytes; otherwise leaves `text`
    /// unchanged.
    fn write(&self, text: &mut String, most: usize) -> bool {
        let start = text.len();
        match self {
            Self::Null => text.push_str("null"),
            Self::Number(number) => text.push_str(&number.to_string()),
            Self::Text(words) => quote(words, text),
            Self::List(items) => {
                text.push('[');
                for item in items {
                    let before = text.len();
                    if before > start + 1 {
                        text.push(',');
                    }
                    if !item.write(text, most.saturating_sub(1)) {
                        text.truncate(before);
                        break;
                    }
                }
                text.push(']');
            }
            Self::Object(members) => {
                text.push('{');
                for (key, value) in members {
                    let before = text.len();
                    if before > start + 1 {
                        text.push(',');
                    }
                    quote(key, text);
                    text.push(':');
                    if !value.write(text, most.saturating_sub(1)) {
                        text.truncate(before);
                        break;
                    }
                }
                text.push('}');
            }
        }
        let fits = text.len() <= most;
        if !fits {
            text.truncate(start);
        }
        fits
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.within(usize::MAX))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// DPDK 22.11 has no booleans in its answers, but 0 and 1.
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Number(truth.into())
    }
}

impl From<&str> for Value {
    fn from(words: &str) -> Self {
        Self::Text(words.to_owned())
    }
}

impl From<String> for Value {
    fn from(words: String) -> Self {
        Self::Text(words)
    }
}

/// Appends text in quotes, with the escapes that JSON requires.
fn quote(words: &str, text: &mut String) {
    use std::fmt::Write as _;
    text.push('"');
    for letter in words.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            // Writing to a string cannot fail.
            letter if u32::from(letter) < 0x20 => drop(write!(text, "\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text.push('"');
}
