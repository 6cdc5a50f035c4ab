//! OpenMetrics text, which Prometheus and others read, and the endpoint that offers it.

use std::fmt::Write as _;

use crate::error::TelemetryError;
use crate::http::Endpoint;

/// What an HTTP answer says the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Text in the making: families of metrics whose names begin alike.
///
/// ```
/// use linecard_telemetry::openmetrics::Text;
/// let mut text = Text::new("app");
/// text.family("sessions", "gauge", "Sessions now");
/// text.line("sessions", &[("kind", "\"odd\"")], 3);
/// let text = text.finish();
/// assert_eq!(
///     text,
///     "# TYPE app_sessions gauge\n# HELP app_sessions Sessions now.\napp_sessions{kind=\"\\\"odd\\\"\"} 3\n# EOF\n"
/// );
/// ```
#[derive(Debug)]
pub struct Text {
    prefix: &'static str,
    text: String,
}

impl Text {
    /// No family yet; the name of each gets `prefix` and an underscore in front.
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// Begins a family of one of OpenMetrics' types; `help` is a sentence without its full stop.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // The samples of an `info` have a suffix that its family has not.
        let name = if kind == "info" { name.strip_suffix("info").unwrap_or(name) } else { name };
        let name = name.trim_end_matches('_');
        let (prefix, separator) = (self.prefix, if name.is_empty() { "" } else { "_" });
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# TYPE {prefix}{separator}{name} {kind}");
        let _ = writeln!(self.text, "# HELP {prefix}{separator}{name} {help}.");
    }

    /// A sample of the family that was begun last, with the suffix that its type asks for (`_total`, `_info`).
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.text, "{}_{name}", self.prefix);
        for (number, (label, value)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{value}\"");
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The whole text.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

/// Offers what `text` makes, which is OpenMetrics text, at `HOST:PORT` or `unix:PATH`, for programs whose counters are not those of ports and pools. A client
/// that prefers Prometheus' text format 0.0.4 gets the same in that.
///
/// ```
/// use linecard_telemetry::openmetrics::{self, Text};
/// let endpoint = openmetrics::serve("127.0.0.1:0", || Text::new("app").finish())?;
/// println!("http://{}/metrics", endpoint.address());
/// # Ok::<(), linecard_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// Nobody can listen there.
pub fn serve(address: &str, text: impl Fn() -> String + Send + 'static) -> Result<Endpoint, TelemetryError> {
    Endpoint::start(address, Box::new(text))
}
