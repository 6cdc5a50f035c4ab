//! OpenMetrics text, the format of Prometheus and others, and the endpoint that offers it.

use std::fmt::Write as _;

use crate::error::TelemetryError;
use crate::http::Endpoint;

/// The `Content-Type` of an HTTP answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// OpenMetrics text under construction: families of metrics with a common prefix.
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
    /// Creates an empty text; the name of each family is preceded by `prefix` and an underscore.
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// Begins a family of one of OpenMetrics' types; `help` is a sentence without its full stop.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // The samples of an `info` have a suffix that its family does not have.
        let name = if kind == "info" { name.strip_suffix("info").unwrap_or(name) } else { name };
        let name = name.trim_end_matches('_');
        let (prefix, separator) = (self.prefix, if name.is_empty() { "" } else { "_" });
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# TYPE {prefix}{separator}{name} {kind}");
        let _ = writeln!(self.text, "# HELP {prefix}{separator}{name} {help}.");
    }

    /// Adds a sample to the last family, with the suffix that its type requires (`_total`, `_info`).
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.text, "{}_{name}", self.prefix);
        for (number, (label, value)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{value}\"");
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// Returns the complete text.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

/// Offers the OpenMetrics text that `text` returns at `HOST:PORT` or `unix:PATH`, for programs with other
/// counters than those of ports and pools. A client that prefers Prometheus' text format 0.0.4 gets the text
/// in that format.
///
/// ```
/// use linecard_telemetry::openmetrics::{self, Text};
/// let endpoint = openmetrics::serve("127.0.0.1:0", || Text::new("app").finish())?;
/// println!("http://{}/metrics", endpoint.address());
/// # Ok::<(), linecard_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: &str, text: impl Fn() -> String + Send + 'static) -> Result<Endpoint, TelemetryError> {
    Endpoint::start(address, Box::new(text))
}
