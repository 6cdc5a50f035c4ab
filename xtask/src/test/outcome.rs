//! The results of the tests, from the output of the runners and the file of skips.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use linecard_testing::Skip;

/// Numbers of tests according to the runner, which counts skipped tests as passed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// The names of the failed tests.
    pub(super) names: Vec<String>,
}

impl Outcome {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
    }

    /// Returns the failures, the skips with their reasons, and the final line.
    pub(super) fn closing(&self, skipped: &[Skip]) -> String {
        let mut text = String::new();
        for name in self.names.iter().collect::<BTreeSet<_>>() {
            _ = writeln!(text, "FAILED {name}");
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for skip in skipped {
            reasons.entry(&skip.why).or_default().push(&skip.test);
        }
        for (why, tests) in &reasons {
            tests.iter().for_each(|test| _ = writeln!(text, "SKIPPED {test}: {why}"));
        }
        // A test that skips two of its parts counts as one.
        let tests: BTreeSet<&str> = skipped.iter().map(|skip| skip.run.as_str()).collect();
        let passed = self.passed.saturating_sub(tests.len());
        _ = write!(text, "{passed} passed, {} failed, {} skipped", self.failed, tests.len());
        text
    }
}

/// Reads the skips that tests have recorded, sorted by name; none if there is no file.
pub(super) fn skipped(file: &Path) -> Result<Vec<Skip>, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
    };
    let mut skips = text
        .lines()
        .map(|line| Skip::parse(line).ok_or_else(|| format!("{}: '{line}' is no skip", file.display())))
        .collect::<Result<Vec<_>, _>>()?;
    skips.sort_by(|a, b| (&a.test, &a.why).cmp(&(&b.test, &b.why)));
    Ok(skips)
}

/// Parses a line of `cargo test`: `test result: ok. 7 passed; 0 failed; …` and `test NAME ... FAILED`.
pub(super) fn libtest(line: &str, outcome: &mut Outcome) {
    if let Some((_, counts)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". ")) {
        for (count, what) in counts.split(';').filter_map(|part| part.trim().split_once(' ')) {
            let count = count.parse().unwrap_or(0);
            match what {
                "passed" => outcome.passed += count,
                "failed" => outcome.failed += count,
                _ => {}
            }
        }
    } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
        outcome.names.push(name.to_owned());
    }
}

/// Parses a line of nextest: `Summary [ 1.5s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 2
/// skipped`, and `FAIL [ 0.1s] PACKAGE NAME`.
pub(super) fn nextest(line: &str, outcome: &mut Outcome) {
    let line = line.trim_start();
    let after = |word: &str| line.strip_prefix(word)?.split_once("] ").map(|(_, rest)| rest);
    if let Some((_, counts)) = after("Summary [").and_then(|rest| rest.split_once(" run: ")) {
        // The parts in parentheses are already included in the number before them.
        let mut depth = 0;
        let plain: String = counts
            .chars()
            .filter(|letter| {
                depth += i32::from(*letter == '(');
                let keep = depth == 0;
                depth -= i32::from(*letter == ')');
                keep
            })
            .collect();
        for (count, what) in plain.split(',').filter_map(|part| part.trim().split_once(' ')) {
            let count: usize = count.parse().unwrap_or(0);
            match what.trim() {
                "passed" => outcome.passed += count,
                "skipped" => {}
                _ => outcome.failed += count,
            }
        }
    } else if let Some(rest) = ["FAIL [", "TIMEOUT [", "SIGSEGV [", "SIGABRT ["].into_iter().find_map(after) {
        // "(12/300) linecard-net-tap name", the count in newer versions only.
        let name = rest.trim_start();
        let name = name.strip_prefix('(').and_then(|n| n.split_once(") ")).map_or(name, |(_, name)| name);
        outcome.names.push(name.trim().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, count: fn(&str, &mut Outcome)) -> Outcome {
        let mut outcome = Outcome::default();
        text.lines().for_each(|line| count(line, &mut outcome));
        outcome
    }

    #[test]
    fn programs_of_cargo_test_are_added_up() {
        let text = "test a::b ... ok\ntest a::c ... FAILED\n\
                    test result: FAILED. 7 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                    test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        let want = Outcome { passed: 12, failed: 1, names: vec!["a::c".into()] };
        assert_eq!(read(text, libtest), want);
    }

    #[test]
    fn a_summary_of_nextest_is_understood() {
        let text = "        PASS [   0.004s] (1/9) linecard-ring tests::a\n        \
                    FAIL [   0.005s] (2/9) linecard-net-tap tests::b\n     \
                    Summary [  12.345s] 9 tests run: 6 passed (1 slow, 1 leaky), 2 failed, 1 timed out, 3 skipped\n";
        let want = Outcome { passed: 6, failed: 3, names: vec!["linecard-net-tap tests::b".into()] };
        assert_eq!(read(text, nextest), want);
        let text = "     Summary [   0.1s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(read(text, nextest), Outcome { passed: 1, ..Outcome::default() });
    }

    #[test]
    fn what_was_skipped_did_not_pass() {
        let skip =
            |run: &str, test: &str, why: &str| Skip { run: run.into(), test: test.into(), why: why.into() };
        let outcome = Outcome { passed: 10, failed: 1, names: vec!["b".into(), "b".into()] };
        let skips = [skip("1", "one", "no ping"), skip("1", "one", "no root"), skip("2", "two", "no root")];
        let want = "FAILED b\nSKIPPED one: no ping\nSKIPPED one: no root\nSKIPPED two: no root\n\
                    8 passed, 1 failed, 2 skipped";
        assert_eq!(outcome.closing(&skips), want);
    }

    #[test]
    fn a_file_of_skips_is_read_whole_or_refused() {
        let file = std::env::temp_dir().join(format!("xtask-skips-{}", std::process::id()));
        assert_eq!(skipped(&file), Ok(vec![]), "nobody skipped");
        std::fs::write(&file, "2\tb\twhy\n1\ta\twhy\n").expect("a file");
        let names = skipped(&file).map(|skips| skips.into_iter().map(|skip| skip.test).collect::<Vec<_>>());
        assert_eq!(names, Ok(vec!["a".into(), "b".into()]));
        std::fs::write(&file, "half").expect("a file");
        assert!(skipped(&file).is_err_and(|said| said.ends_with("'half' is no skip")));
        std::fs::remove_file(&file).expect("it is there");
    }
}
