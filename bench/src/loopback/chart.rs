//! Bar charts as SVG: one group of bars per path, one bar per position, whiskers from the least to the
//! greatest sample, one panel per figure.

use std::fmt::Write as _;

use super::cell::{Position, Subject};
use super::kind::{Kind, Metric};
use super::path::Path;
use super::report::title;
use super::result::Row;
use crate::stats::Summary;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 96.0;
/// Space for title, caption and legend.
const TOP: f64 = 84.0;
/// Space for the name of a panel above its bars.
const HEAD: f64 = 26.0;
/// Space for a panel's axis below its bars.
const FOOT: f64 = 44.0;
const BAR: f64 = 14.0;
/// Space between groups.
const GAP: f64 = 12.0;

/// Colours that are distinguishable with red-green colour blindness, on white and in greyscale.
const fn colour(position: Position) -> &'static str {
    match position {
        Position::OursOurs | Position::OursTester => "#0b5fa5",
        Position::DpdkDpdk | Position::DpdkTester => "#9aa0a6",
        Position::OursDpdk | Position::TesterOurs => "#5aa9e6",
        Position::DpdkOurs | Position::TesterDpdk => "#e69f00",
    }
}

const fn legend(position: Position) -> &'static str {
    match position {
        Position::OursOurs => "ours / ours",
        Position::DpdkDpdk => "DPDK / DPDK",
        Position::OursDpdk => "our backend / DPDK",
        Position::DpdkOurs => "DPDK / our frontend",
        Position::OursTester => "our backend",
        Position::DpdkTester => "DPDK's backend",
        Position::TesterOurs => "our frontend",
        Position::TesterDpdk => "DPDK's frontend",
    }
}

/// Returns the figures in the chart of a kind of sample, and the labels of their axes.
const fn panels(kind: Kind) -> &'static [(Metric, &'static str)] {
    match kind {
        Kind::Closed => &[(Metric::Mpps, "million packets per second and direction")],
        Kind::Open(_) => &[
            (Metric::Mpps, "million packets per second that came back"),
            (Metric::P99, "round trip, 99th percentile, microseconds (less is better)"),
        ],
        Kind::ZeroLoss => &[
            (Metric::Mpps, "million packets per second without loss"),
            (Metric::Pdr, "million packets per second with 0.5 % loss"),
        ],
        Kind::Latency => &[
            (Metric::P50, "round trip, median, microseconds (less is better)"),
            (Metric::P99, "round trip, 99th percentile, microseconds (less is better)"),
        ],
        Kind::Spare => &[(Metric::Work, "time-stamp cycles per packet that our end has to spare")],
        Kind::Startup => &[
            (Metric::ExecMs, "exec to first packet, milliseconds (less is better)"),
            (Metric::ConnectMs, "connection to first packet, milliseconds (less is better)"),
            (Metric::MemoryMb, "resident memory, megabytes (less is better)"),
        ],
    }
}

/// Returns the file name for rows of one kind and load.
pub(crate) fn name(row: &Row) -> String {
    let kind = if row.kind == Kind::Closed { String::new() } else { format!("{}-", row.kind) };
    format!("loopback-{kind}{}-ring{}-burst{}.svg", row.size, row.ring, row.burst)
}

/// Returns the chart of rows of one kind and load; `None` when there is nothing to draw.
pub(crate) fn draw(rows: &[Row], caption: &str) -> Option<String> {
    let first = rows.first()?;
    let mut drawing = Drawing { text: String::new(), y: TOP };
    let mut positions: Vec<Position> = Vec::new();
    for &(metric, says) in panels(first.kind) {
        let bars: Vec<Bar<'_>> = rows.iter().filter_map(|row| Bar::of(row, metric)).collect();
        for bar in &bars {
            if !positions.contains(&bar.position) {
                positions.push(bar.position);
            }
        }
        drawing.panel(&bars, says);
    }
    if positions.is_empty() {
        return None;
    }
    Some(drawing.finish(&title(first), caption, &positions))
}

struct Bar<'a> {
    position: Position,
    path: Path,
    figure: Summary,
    /// Ratio to DPDK's figure.
    ratio: Option<f64>,
    row: &'a Row,
}

impl<'a> Bar<'a> {
    fn of(row: &'a Row, metric: Metric) -> Option<Self> {
        let Subject::Pair(position, path) = row.cell.subject else { return None };
        let ratio = if metric == row.kind.main() { row.ratio } else { row.ratios.get(&metric).copied() };
        let ratio = ratio.map(|ratio| ratio.median).filter(|_| position != position.baseline());
        Some(Self { position, path, figure: row.figure(metric)?, ratio, row })
    }
}

/// A scale from zero with about six round steps.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    fn up_to(most: f64) -> Self {
        let rough = most / 6.0;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * magnitude).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(magnitude * 10.0);
        Self { end: (most / step).ceil() * step, step }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * value / self.end
    }

    fn steps(&self) -> Vec<f64> {
        std::iter::successors(Some(0.0), |at| Some(at + self.step))
            .take_while(|at| *at <= self.end * 1.001)
            .collect()
    }

    /// Returns the label of a step, without rounding noise.
    fn mark(&self, at: f64) -> String {
        let digits = if self.step < 0.1 { 2 } else { usize::from(self.step < 1.0) };
        format!("{at:.digits$}")
    }
}

struct Drawing {
    text: String,
    /// The position of the next element.
    y: f64,
}

impl Drawing {
    fn panel(&mut self, bars: &[Bar<'_>], says: &str) {
        let most = bars.iter().map(|bar| bar.figure.max).fold(0.0, f64::max);
        if most <= 0.0 {
            return;
        }
        let axis = Axis::up_to(most);
        let mut paths: Vec<Path> = bars.iter().map(|bar| bar.path).collect();
        paths.dedup();
        let top = self.y + HEAD;
        let height = BAR * per_bar(bars.len()) + GAP * per_bar(paths.len() - 1);
        self.grid(&axis, top, top + height, says);
        self.y = top;
        for path in paths {
            let group: Vec<_> = bars.iter().filter(|bar| bar.path == path).collect();
            let middle = self.y + BAR * per_bar(group.len()) / 2.0 + 4.0;
            self.label(LEFT - 10.0, middle, "end", path.name());
            for bar in group {
                self.bar(&axis, bar);
            }
            self.y += GAP;
        }
        self.y = top + height + FOOT;
    }

    fn grid(&mut self, axis: &Axis, top: f64, bottom: f64, says: &str) {
        for at in axis.steps() {
            let x = axis.x(at);
            let (from, to) = (top - 4.0, bottom + 4.0);
            let _ =
                writeln!(self.text, "<path d=\"M{x:.1} {from:.1}V{to:.1}\" stroke=\"#ddd\" fill=\"none\"/>");
            self.label(x, bottom + 18.0, "middle", &axis.mark(at));
        }
        let _ = writeln!(
            self.text,
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{says}</text>",
            top - 10.0
        );
    }

    fn bar(&mut self, axis: &Axis, bar: &Bar<'_>) {
        let (zero, end) = (axis.x(0.0), axis.x(bar.figure.median));
        let (low, high) = (axis.x(bar.figure.min), axis.x(bar.figure.max));
        let (y, middle, colour) = (self.y, self.y + BAR / 2.0, colour(bar.position));
        let _ = writeln!(
            self.text,
            "<rect x=\"{zero:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{} {}: {:.2}</title></rect>",
            y + 1.0,
            end - zero,
            BAR - 2.0,
            bar.row.position,
            bar.row.path,
            bar.figure.median
        );
        let _ = writeln!(
            self.text,
            "<path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v6M{high:.1} {0:.1}v6\" stroke=\"#222\" fill=\"none\"/>",
            middle - 3.0
        );
        let digits = if axis.end < 10.0 { 2 } else { 1 };
        let mut value = format!("{:.digits$}", bar.figure.median);
        if let Some(ratio) = bar.ratio {
            let _ = write!(value, "  ×{ratio:.2}");
        }
        self.label(high.max(end) + 6.0, middle + 4.0, "start", &value);
        self.y += BAR;
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn finish(mut self, title: &str, caption: &str, positions: &[Position]) -> String {
        let panels = std::mem::take(&mut self.text);
        let height = self.y + 14.0;
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
        self.label(
            LEFT,
            self.y,
            "start",
            "Bars are medians, whiskers reach from the least to the greatest sample, × is over DPDK.",
        );
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}{panels}</svg>\n",
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
    use crate::loopback::result;

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
        assert_eq!(Axis::up_to(0.9).mark(0.1 + 0.2), "0.3");
    }

    fn well_formed(svg: &str) {
        for tag in ["svg", "text", "title"] {
            let (open, close) =
                (svg.matches(&format!("<{tag}")).count(), svg.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
    }

    #[test]
    fn a_chart_has_a_bar_per_pair_and_is_well_formed() {
        let rows = result::rows(&result::tests::outcome());
        let svg = draw(&rows, "state common & <quiet>").expect("bars");
        // The background and a legend entry for each of two positions are rectangles too.
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 4);
        assert!(svg.contains("packed-inorder") && svg.contains("×2.50"), "{svg}");
        assert!(svg.contains("common &amp; &lt;quiet>"), "{svg}");
        well_formed(&svg);
        assert!(draw(&[], "").is_none());
    }

    #[test]
    fn round_trips_have_a_panel_for_each_percentile() {
        let rows = result::rows(&result::tests::round_trips());
        let svg = draw(&rows, "").expect("bars");
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 4);
        assert!(svg.contains("99th percentile") && svg.contains("×0.50"), "{svg}");
        assert_eq!(name(&rows[0]), "loopback-latency-64-ring1024-burst32.svg");
        well_formed(&svg);
    }
}
