//! The crates and their dependencies as a picture for ARCHITECTURE.md, generated from the table of
//! dependencies so that it stays correct.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::arrows::ALLOWED;

/// The path of the picture, relative to the workspace.
const PICTURE: &str = "docs/guide/crates.svg";
/// Crates that only tests and tasks use.
const LEFT_OUT: &[&str] = &["xtask", "linecard-testing", "linecard-lab", "linecard-fuzz"];
/// Pixels: the width of a letter, the margins and the height of a box, the distances of rows and of boxes.
const LETTER: f64 = 7.6;
const MARGIN: f64 = 20.0;
const HEIGHT: f64 = 32.0;
const ROW: f64 = 92.0;
const GAP: f64 = 16.0;
/// Rounds in which each row is sorted by the positions of its neighbours.
const ROUNDS: usize = 4;

type Uses = BTreeMap<&'static str, Vec<&'static str>>;

/// A crate in the picture.
#[derive(Clone, Copy)]
struct Position {
    x: f64,
    y: f64,
    width: f64,
}

/// Writes the picture.
pub(super) fn write() -> Result<(), String> {
    std::fs::write(path(), draw()).map_err(|e| format!("{PICTURE} cannot be written: {e}"))
}

/// Returns a sentence if the picture does not show this table.
pub(super) fn check() -> Vec<String> {
    let now = std::fs::read_to_string(path()).unwrap_or_default();
    if now == draw() {
        return Vec::new();
    }
    vec![format!("{PICTURE} does not show the table of arrows; draw it with `cargo xtask shape --draw`")]
}

fn path() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(PICTURE)
}

fn draw() -> String {
    let uses = uses();
    let places = arrange(&uses);
    let right = places.values().map(|at| at.x + at.width).fold(0.0, f64::max) + GAP;
    let bottom = places.values().map(|at| at.y + HEIGHT).fold(0.0, f64::max) + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {right:.0} {bottom:.0}\" font-family=\"Helvetica, Arial, \
         sans-serif\" font-size=\"13\" role=\"img\">\n<title>The crates of Linecard; each uses those it points at, and \
         what they use</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (name, used) in &uses {
        let Some(from) = places.get(name) else { continue };
        for to in direct(&uses, used).iter().filter_map(|name| places.get(name)) {
            let (x1, y1, x2, y2) = (from.x + from.width / 2.0, from.y + HEIGHT, to.x + to.width / 2.0, to.y);
            let middle = (y1 + y2) / 2.0;
            _ = writeln!(
                svg,
                "<path d=\"M{x1:.0} {y1:.0} C{x1:.0} {middle:.0} {x2:.0} {middle:.0} {x2:.0} {y2:.0}\" fill=\"none\" stroke=\"#8a8a8a\"/>"
            );
        }
    }
    for (name, at) in &places {
        let (x, y, width, middle) = (at.x, at.y, at.width, at.x + at.width / 2.0);
        _ = writeln!(
            svg,
            "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{width:.0}\" height=\"{HEIGHT}\" rx=\"5\" fill=\"#e6f0fb\" stroke=\"#2563a8\"/>\
             <text x=\"{middle:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            y + 21.0,
            short(name)
        );
    }
    svg + "</svg>\n"
}

/// Returns the name without the common prefix.
fn short(name: &str) -> &str {
    name.strip_prefix("linecard-").unwrap_or(name)
}

fn uses() -> Uses {
    let shown = |name: &&str| !LEFT_OUT.contains(name);
    let of = |used: &[&'static str]| used.iter().copied().filter(shown).collect();
    ALLOWED.iter().filter(|(name, _)| shown(name)).map(|(name, used)| (*name, of(used))).collect()
}

/// Whether `from` uses `to`, directly or indirectly.
fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    uses.get(from).is_some_and(|used| used.iter().any(|next| *next == to || reaches(uses, next, to)))
}

/// Returns those of `used` that are not also used by another one of them.
fn direct(uses: &Uses, used: &[&'static str]) -> Vec<&'static str> {
    let through = |name: &&str| used.iter().any(|other| reaches(uses, other, name));
    used.iter().copied().filter(|name| !through(name)).collect()
}

/// Arranges rows from the top, each crate above all that it uses.
fn arrange(uses: &Uses) -> BTreeMap<&'static str, Position> {
    fn level(uses: &Uses, name: &str) -> usize {
        uses.get(name).into_iter().flatten().map(|used| level(uses, used) + 1).max().unwrap_or(0)
    }
    let mut rows: Vec<Vec<&'static str>> = Vec::new();
    for name in uses.keys() {
        let level = level(uses, name);
        rows.resize(rows.len().max(level + 1), Vec::new());
        rows[level].push(name);
    }
    rows.reverse();
    let width = |name: &str| short(name).len() as f64 * LETTER + MARGIN;
    let total = |row: &[&str]| row.iter().map(|name| width(name) + GAP).sum::<f64>();
    let widest = rows.iter().map(|row| total(row)).fold(0.0, f64::max);
    let mut places = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (number, row) in rows.iter_mut().enumerate() {
            row.sort_by(|a, b| weight(uses, &places, a).total_cmp(&weight(uses, &places, b)));
            let mut x = GAP + (widest - total(row)) / 2.0;
            for name in row {
                let width = width(name);
                places.insert(*name, Position { x, y: GAP + number as f64 * ROW, width });
                x += width + GAP;
            }
        }
    }
    places
}

/// Returns the mean position of the users and dependencies of `name`.
fn weight(uses: &Uses, places: &BTreeMap<&'static str, Position>, name: &'static str) -> f64 {
    let users = uses.iter().filter(|(_, used)| direct(uses, used).contains(&name)).map(|(user, _)| *user);
    let used = direct(uses, uses.get(name).map_or(&[], Vec::as_slice));
    let middles: Vec<f64> =
        users.chain(used).filter_map(|name| places.get(name)).map(|at| at.x + at.width / 2.0).collect();
    middles.iter().sum::<f64>() / middles.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_above_what_it_uses_and_beside_nobody() {
        let uses = uses();
        let places = arrange(&uses);
        for (name, used) in &uses {
            for other in used {
                assert!(places[name].y < places[other].y, "{name} {other}");
            }
        }
        for (a, b) in places.iter().flat_map(|a| places.iter().map(move |b| (a, b))) {
            let apart = a.1.y != b.1.y || a.1.x + a.1.width < b.1.x || b.1.x + b.1.width < a.1.x;
            assert!(a.0 == b.0 || apart, "{} lies over {}", a.0, b.0);
        }
    }

    #[test]
    fn what_is_used_through_another_is_not_drawn() {
        let uses = Uses::from([("top", vec!["middle", "low"]), ("middle", vec!["low"]), ("low", vec![])]);
        assert_eq!(direct(&uses, &uses["top"]), ["middle"]);
    }
}
