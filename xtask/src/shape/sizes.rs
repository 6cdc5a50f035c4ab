//! Sizes of files, functions and parameter lists, in lines of code without comments and tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_SOFT: usize = 400;
const FILE_HARD: usize = 600;
const FUNCTION_SOFT: usize = 40;
const FUNCTION_HARD: usize = 80;
const PARAMETERS_HARD: usize = 6;

/// A file or function, and its size.
struct Row {
    place: String,
    size: usize,
    soft: usize,
    hard: usize,
    unit: &'static str,
}

/// The result of the measurement.
pub(super) struct Report {
    rows: Vec<Row>,
    files: usize,
}

impl Report {
    /// Prints the largest places, or all above the soft limit.
    pub(super) fn print(&self, all: bool) {
        let mut above: Vec<&Row> = self.rows.iter().filter(|r| r.size > r.soft).collect();
        above.sort_by_key(|r| std::cmp::Reverse(r.size * 1000 / r.soft));
        println!("shape: {} files; {} places above the soft budget", self.files, above.len());
        let shown = if all { above.len() } else { 5 };
        for row in above.iter().take(shown) {
            println!("  {:>5} {} (soft {}, hard {})  {}", row.size, row.unit, row.soft, row.hard, row.place);
        }
    }

    /// Returns one sentence per place above its hard limit.
    pub(super) fn past_the_limit(&self) -> Vec<String> {
        self.rows
            .iter()
            .filter(|r| r.size > r.hard)
            .map(|r| format!("{} has {} {}, at most {} are allowed", r.place, r.size, r.unit, r.hard))
            .collect()
    }
}

/// Measures every Rust file that git tracks.
pub(super) fn measure() -> Result<Report, String> {
    let files = tracked_files()?;
    let mut report = Report { rows: Vec::new(), files: files.len() };
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let parsed = syn::parse_file(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut visitor = Sizes { file, code: code_lines(&text), rows: &mut report.rows };
        if !is_test_file(file) {
            let size = visitor.file_size(&parsed);
            visitor.push(file.display().to_string(), size, (FILE_SOFT, FILE_HARD), "lines of code");
        }
        visitor.visit_file(&parsed);
    }
    Ok(report)
}

fn tracked_files() -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .output()
        .map_err(|e| format!("git ls-files could not be started: {e}"))?;
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().map(PathBuf::from).filter(|p| p.exists()).collect())
}

fn is_test_file(file: &Path) -> bool {
    let in_tests = file.components().any(|c| c.as_os_str() == "tests");
    in_tests || file.file_stem().is_some_and(|s| s == "tests" || s.to_string_lossy().ends_with("_tests"))
}

/// Returns for each line whether it contains code (not blank, not only a comment).
fn code_lines(text: &str) -> Vec<bool> {
    text.lines().map(str::trim).map(|l| !l.is_empty() && !l.starts_with("//")).collect()
}

struct Sizes<'a> {
    file: &'a Path,
    code: Vec<bool>,
    rows: &'a mut Vec<Row>,
}

impl Sizes<'_> {
    fn lines_between(&self, first: usize, last: usize) -> usize {
        let last = last.min(self.code.len());
        self.code.get(first.saturating_sub(1)..last).map_or(0, |lines| lines.iter().filter(|c| **c).count())
    }

    fn file_size(&self, file: &syn::File) -> usize {
        let tests: usize = file.items.iter().filter_map(test_module).map(|m| self.span_lines(m.span())).sum();
        self.lines_between(1, self.code.len()) - tests
    }

    fn span_lines(&self, span: proc_macro2::Span) -> usize {
        self.lines_between(span.start().line, span.end().line)
    }

    fn push(&mut self, place: String, size: usize, (soft, hard): (usize, usize), unit: &'static str) {
        self.rows.push(Row { place, size, soft, hard, unit });
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let place = format!("{}:{} {}", self.file.display(), signature.span().start().line, signature.ident);
        let size = self.span_lines(body.span());
        self.push(place.clone(), size, (FUNCTION_SOFT, FUNCTION_HARD), "lines");
        let parameters = signature.inputs.len();
        self.push(place, parameters, (PARAMETERS_HARD, PARAMETERS_HARD), "parameters");
    }
}

fn test_module(item: &syn::Item) -> Option<&syn::ItemMod> {
    match item {
        syn::Item::Mod(module) if module.content.is_some() && is_test_only(&module.attrs) => Some(module),
        _ => None,
    }
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| a.path().is_ident("cfg") && quote_has_test(a))
}

fn quote_has_test(attribute: &syn::Attribute) -> bool {
    matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
}

impl<'ast> Visit<'ast> for Sizes<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_only(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}
