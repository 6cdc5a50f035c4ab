//! Lexer for filter expressions.

use super::Error;

/// A word: a sign, or a name, number or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    Sign(&'a str),
    Text(&'a str),
}

impl<'a> Word<'a> {
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Sign(text) | Self::Text(text) => text,
        }
    }
}

/// The longest signs come first.
const SIGNS: [&str; 17] =
    ["&&", "||", "!=", "==", ">=", "<=", "(", ")", "[", "]", "!", "=", ">", "<", "&", "|", ":"];

/// Splits an expression into words.
pub(super) fn words(text: &str) -> Result<Vec<Word<'_>>, Error> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    let mut brackets = 0_u32;
    while let Some(first) = rest.chars().next() {
        // A colon is a sign between brackets and part of an address elsewhere.
        let sign =
            SIGNS.iter().copied().find(|sign| rest.starts_with(sign) && (*sign != ":" || brackets > 0));
        let len = match sign {
            Some(sign) => sign.len(),
            None => {
                let inside =
                    |c: char| c.is_ascii_alphanumeric() || "./-_\\".contains(c) || c == ':' && brackets == 0;
                rest.find(|c| !inside(c)).unwrap_or(rest.len())
            }
        };
        if len == 0 {
            return Err(Error::new(format!(
                "the filter is not understood at '{first}': this is in no expression of tcpdump's"
            )));
        }
        let (word, behind) = rest.split_at(len);
        match word {
            "[" => brackets += 1,
            "]" => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        words.push(if sign.is_some() { Word::Sign(word) } else { Word::Text(word) });
        rest = behind.trim_start();
    }
    Ok(words)
}
