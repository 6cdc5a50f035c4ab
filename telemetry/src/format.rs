//! The two text formats, and their selection by a client's `Accept` header (RFC 9110, section 12.5.1).
//!
//! The text is generated as OpenMetrics and converted to the older Prometheus format 0.0.4 on request. They
//! differ if families and their samples have different names, in types that the older format lacks, and in
//! the end marker.

use std::fmt::Write as _;

use crate::openmetrics::CONTENT_TYPE;

/// A text format for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The `Content-Type` of an HTTP answer.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => CONTENT_TYPE,
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format that a request asks for in its header: the older one if it is preferred, otherwise
    /// OpenMetrics, also if the request does not say or asks for an unsupported format.
    pub(crate) fn asked(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head);
        let accepted = head.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("accept").then_some(value)
        });
        let ranges: Vec<Range<'_>> =
            accepted.flat_map(|value| value.split(',')).filter_map(Range::read).collect();
        if quality(&ranges, Self::Prometheus) > quality(&ranges, Self::OpenMetrics) {
            Self::Prometheus
        } else {
            Self::OpenMetrics
        }
    }

    /// The media type, and the versions of it with the same text.
    const fn media(self) -> ([&'static str; 2], &'static [&'static str]) {
        match self {
            // 0.0.1 is the draft, whose readers can read 1.0.0.
            Self::OpenMetrics => (["application", "openmetrics-text"], &["1.0.0", "0.0.1"]),
            Self::Prometheus => (["text", "plain"], &["0.0.4"]),
        }
    }

    /// Converts OpenMetrics text to this format.
    pub(crate) fn of(self, text: &str) -> String {
        match self {
            Self::OpenMetrics => text.to_owned(),
            Self::Prometheus => older(text),
        }
    }
}

/// A range of media types that a client accepts; the quality is in thousandths.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` if the text is not a range.
    fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(';').map(str::trim);
        let (kind, subtype) = words.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, version: None, quality: 1000 };
        for word in words {
            let (name, value) = word.split_once('=')?;
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("q") {
                range.quality = thousandths(value)?;
            } else if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value);
            }
        }
        Some(range)
    }

    /// How specifically the range matches a format; `None` if it does not.
    fn closeness(&self, format: Format) -> Option<u8> {
        let ([kind, subtype], versions) = format.media();
        let is = |word: &str, name: &str| word.eq_ignore_ascii_case(name);
        match (self.kind, self.subtype, self.version) {
            ("*", "*", _) => Some(0),
            (own, "*", _) if is(own, kind) => Some(1),
            (own, name, None) if is(own, kind) && is(name, subtype) => Some(2),
            (own, name, Some(version)) if is(own, kind) && is(name, subtype) => {
                versions.contains(&version).then_some(3)
            }
            _ => None,
        }
    }
}

/// Parses a quality from 0 to 1 with at most three digits after the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

/// The quality of a format: that of the most specific range, and the highest of several that are equally
/// specific.
fn quality(ranges: &[Range<'_>], format: Format) -> u16 {
    let close = ranges.iter().filter_map(|range| Some((range.closeness(format)?, range.quality)));
    close.max().map_or(0, |(_, quality)| quality)
}

/// Converts OpenMetrics text to Prometheus' format 0.0.4: families have the names of their samples, there are
/// no state sets and no `info`, and no end marker.
fn older(text: &str) -> String {
    let (mut all, mut suffix) = (String::with_capacity(text.len() + 1024), "");
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        // Writing to a string cannot fail.
        let _ = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let kind = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "stateset" => ("", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                suffix = kind.0;
                writeln!(all, "# TYPE {name}{suffix} {}", kind.1)
            }
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                // This format does not escape quotation marks.
                writeln!(all, "# HELP {name}{suffix} {}", help.replace("\\\"", "\""))
            }
            _ => writeln!(all, "{line}"),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of existing clients, and others.
    #[test]
    fn clients_are_answered_in_the_format_they_prefer() {
        use Format::{OpenMetrics, Prometheus};
        let now = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, want) in [
            (now, OpenMetrics),
            (protobuf, Prometheus),
            ("*/*", OpenMetrics),
            ("", OpenMetrics),
            ("text/plain", Prometheus),
            ("text/plain;version=0.0.4", Prometheus),
            ("Text/Plain; Version=\"0.0.4\"", Prometheus),
            ("text/plain;version=0.0.5", OpenMetrics),
            ("text/*", Prometheus),
            ("text/*, application/openmetrics-text", OpenMetrics),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.4", Prometheus),
            ("text/plain;q=0.5, */*;q=0.9", OpenMetrics),
            ("*/*, application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Prometheus),
            ("application/json", OpenMetrics),
            ("text/plain;q=0", OpenMetrics),
            ("text/plain;q=1.5", OpenMetrics),
            ("text/plain;q", OpenMetrics),
            ("nonsense,;,/;q=,text/plain", Prometheus),
        ] {
            let head = format!("GET /metrics HTTP/1.1\r\nHost: here\r\naCCEPT: {accept}\r\n\r\n");
            assert_eq!(Format::asked(head.as_bytes()), want, "{accept}");
        }
        assert_eq!(Format::asked(b"GET /metrics HTTP/1.1\r\n\r\n"), OpenMetrics, "who says nothing");
        let two = b"GET /metrics HTTP/1.1\r\nAccept: */*;q=0.1\r\nAccept: text/plain\r\n\r\n";
        assert_eq!(Format::asked(two), Prometheus, "in two lines");
        let elsewhere = b"GET /metrics HTTP/1.1\r\nX-Accept: text/plain\r\n\r\n";
        assert_eq!(Format::asked(elsewhere), OpenMetrics);
        assert_eq!(Format::asked(&[0xff, b'\r', b'\n', b':', 0]), OpenMetrics);
    }

    #[test]
    fn each_kind_of_family_has_its_older_form() {
        let text = "# TYPE a counter\n# HELP a Some \\\"a\\\".\na_total{x=\"# TYPE b c\"} 1\n# TYPE b info\nb_info 1\n\
                    # TYPE c stateset\nc{c=\"on\"} 1\n# TYPE d gauge\n# HELP d D.\nd 2\n# TYPE e unknown\ne 3\n# EOF\n";
        let want = "# TYPE a_total counter\n# HELP a_total Some \"a\".\na_total{x=\"# TYPE b c\"} 1\n# TYPE b_info gauge\nb_info 1\n\
                    # TYPE c gauge\nc{c=\"on\"} 1\n# TYPE d gauge\n# HELP d D.\nd 2\n# TYPE e untyped\ne 3\n";
        assert_eq!(Format::Prometheus.of(text), want);
        assert_eq!(Format::OpenMetrics.of(text), text);
    }
}
