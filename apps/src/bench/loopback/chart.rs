//! Bar charts as SVG: a group of bars per path, a bar per position, whiskers from the slowest to the quickest sample.

use std::fmt::Write as _;

use super::cell::{Position, Subject};
use super::path::Path;
use super::report::load_title;
use super::result::Row;
use crate::bench::stats::Summary;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 48.0;
const BAR: f64 = 14.0;
/// Between groups.
const GAP: f64 = 14.0;

/// Colours that are told apart by eyes that see no red or green, on white and in grey.
const fn colour(position: Position) -> &'static str {
    match position {
        Position::OursOurs => "#0b5fa5",
        Position::DpdkDpdk => "#9aa0a6",
        Position::OursDpdk => "#5aa9e6",
        Position::DpdkOurs => "#e69f00",
    }
}

const fn legend(position: Position) -> &'static str {
    match position {
        Position::OursOurs => "ours / ours",
        Position::DpdkDpdk => "DPDK / DPDK",
        Position::OursDpdk => "our backend / DPDK",
        Position::DpdkOurs => "DPDK / our frontend",
    }
}

/// A file name for rows of one load.
pub(crate) fn name(row: &Row) -> String {
    format!("loopback-{}-ring{}-burst{}.svg", row.size, row.ring, row.burst)
}

/// The chart of rows of one load; `None` when there is nothing to draw.
pub(crate) fn draw(rows: &[Row], caption: &str) -> Option<String> {
    let bars: Vec<Bar<'_>> = rows.iter().filter_map(Bar::of).collect();
    let fastest = bars.iter().map(|bar| bar.mpps.max).fold(0.0, f64::max);
    let mut paths: Vec<Path> = bars.iter().map(|bar| bar.path).collect();
    paths.dedup();
    if fastest <= 0.0 {
        return None;
    }
    let axis = Axis::up_to(fastest);
    let mut drawing = Drawing { text: String::new(), axis, y: TOP };
    for path in paths {
        let group = bars.iter().filter(|bar| bar.path == path);
        drawing.group(path, &group.collect::<Vec<_>>());
    }
    let mut positions: Vec<Position> = Vec::new();
    for bar in &bars {
        if !positions.contains(&bar.position) {
            positions.push(bar.position);
        }
    }
    Some(drawing.finish(&rows.first().map_or_else(String::new, load_title), caption, &positions))
}

struct Bar<'a> {
    position: Position,
    path: Path,
    mpps: Summary,
    row: &'a Row,
}

impl<'a> Bar<'a> {
    fn of(row: &'a Row) -> Option<Self> {
        let Subject::Pair(position, path) = row.subject else { return None };
        Some(Self { position, path, mpps: row.mpps?, row })
    }
}

/// A scale from zero with about six round steps.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    fn up_to(fastest: f64) -> Self {
        let rough = fastest / 6.0;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * magnitude).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(magnitude * 10.0);
        Self { end: (fastest / step).ceil() * step, step }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * value / self.end
    }

    fn steps(&self) -> Vec<f64> {
        std::iter::successors(Some(0.0), |at| Some(at + self.step))
            .take_while(|at| *at <= self.end * 1.001)
            .collect()
    }
}

struct Drawing {
    text: String,
    axis: Axis,
    /// Where the next bar goes.
    y: f64,
}

impl Drawing {
    fn group(&mut self, path: Path, bars: &[&Bar<'_>]) {
        let height = BAR * per_bar(bars.len());
        let middle = self.y + height / 2.0 + 4.0;
        self.label(LEFT - 10.0, middle, "end", path.name());
        for bar in bars {
            self.bar(bar);
        }
        self.y += GAP;
    }

    fn bar(&mut self, bar: &Bar<'_>) {
        let (zero, end) = (self.axis.x(0.0), self.axis.x(bar.mpps.median));
        let (low, high) = (self.axis.x(bar.mpps.min), self.axis.x(bar.mpps.max));
        let (y, middle, colour) = (self.y, self.y + BAR / 2.0, colour(bar.position));
        let _ = writeln!(
            self.text,
            "<rect x=\"{zero:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{} {}: {:.2} Mpps</title></rect>",
            y + 1.0,
            end - zero,
            BAR - 2.0,
            bar.row.position,
            bar.row.path,
            bar.mpps.median
        );
        let _ = writeln!(
            self.text,
            "<path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v6M{high:.1} {0:.1}v6\" stroke=\"#222\" fill=\"none\"/>",
            middle - 3.0
        );
        let mut value = format!("{:.1}", bar.mpps.median);
        if let Some(ratio) = bar.row.ratio.filter(|_| bar.position != Position::DpdkDpdk) {
            let _ = write!(value, "  ×{:.2}", ratio.median);
        }
        self.label(high.max(end) + 6.0, middle + 4.0, "start", &value);
        self.y += BAR;
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn finish(mut self, title: &str, caption: &str, positions: &[Position]) -> String {
        let bars = std::mem::take(&mut self.text);
        let (bottom, height) = (self.y, self.y + BOTTOM);
        for at in self.axis.steps() {
            let x = self.axis.x(at);
            let _ = writeln!(
                self.text,
                "<path d=\"M{x:.1} {:.1}V{bottom:.1}\" stroke=\"#ddd\" fill=\"none\"/>",
                TOP - 6.0
            );
            self.label(x, bottom + 14.0, "middle", &format!("{at}"));
        }
        self.label(
            LEFT,
            bottom + 34.0,
            "start",
            "Mpps per direction; median, whiskers from the slowest to the quickest sample",
        );
        let _ = writeln!(
            self.text,
            "<text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>"
        );
        self.label(16.0, 46.0, "start", caption);
        let mut x = 16.0;
        for &position in positions {
            let colour = colour(position);
            let _ = writeln!(
                self.text,
                "<rect x=\"{x:.1}\" y=\"59\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
            );
            self.label(x + 18.0, 69.5, "start", legend(position));
            x += 40.0 + 7.0 * per_bar(legend(position).len());
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}{bars}</svg>\n",
            self.text
        )
    }
}

fn per_bar(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::loopback::result;

    #[test]
    fn axes_have_round_steps_and_reach_the_end() {
        for (fastest, step, end) in
            [(38.4, 10.0, 40.0), (0.9, 0.2, 1.0), (12.0, 2.0, 12.0), (100.1, 20.0, 120.0)]
        {
            let axis = Axis::up_to(fastest);
            assert!(
                (axis.step - step).abs() < 1e-9 && (axis.end - end).abs() < 1e-9,
                "{fastest}: {} {}",
                axis.step,
                axis.end
            );
        }
        assert_eq!(Axis::up_to(12.0).steps().len(), 7);
    }

    #[test]
    fn a_chart_has_a_bar_per_pair_and_is_well_formed() {
        let rows = result::rows(&result::tests::outcome());
        let svg = draw(&rows, "state common & <quiet>").expect("bars");
        // The background and a legend entry for each of two positions are rectangles too.
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 4);
        assert!(svg.contains("packed-inorder") && svg.contains("×2.50"), "{svg}");
        assert!(svg.contains("common &amp; &lt;quiet>"), "{svg}");
        for tag in ["svg", "text", "title"] {
            let (open, close) =
                (svg.matches(&format!("<{tag}")).count(), svg.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
        assert!(draw(&[], "").is_none());
    }
}
