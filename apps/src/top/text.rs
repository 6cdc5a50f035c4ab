//! The text of a report.

use std::fmt::Write as _;

use super::rates::{Event, PortRates, Rates, Report};

/// The text of the report, with a few lines per port.
pub(super) fn of(report: &Report) -> String {
    let mut text =
        format!("process {}, {}, rates over {:.1} s\n\n", report.pid, report.version, report.seconds);
    line(&mut text, ["port", "device", "link", "rx packets", "rx bits", "tx packets", "tx bits", "lost"]);
    for port in &report.ports {
        port_lines(&mut text, port);
    }
    if report.ports.is_empty() {
        text.push_str("no port\n");
    }
    // Writing to a string cannot fail.
    if !report.lcores.is_empty() {
        let busy: Vec<String> =
            report.lcores.iter().map(|busy| format!("lcore {} {} %", busy.lcore, busy.percent)).collect();
        let _ = writeln!(text, "\nbusy: {}", busy.join(", "));
    }
    for pool in &report.pools {
        let _ = write!(text, "\npool {}: {} packets", pool.name, pool.size);
        for (place, count) in [
            ("free", pool.free),
            ("in caches of threads", pool.cached),
            ("in use", pool.in_use),
            ("requests refused", pool.get_fail),
        ] {
            if let Some(count) = count {
                let _ = write!(text, ", {count} {place}");
            }
        }
        text.push('\n');
    }
    text
}

fn line(text: &mut String, cells: [&str; 8]) {
    let [port, device, link, rest @ ..] = cells;
    let mut row = format!("{port:<5} {device:<18} {link:<5}");
    for cell in rest {
        // Writing to a string cannot fail.
        let _ = write!(row, " {cell:>10}");
    }
    text.push_str(row.trim_end());
    text.push('\n');
}

fn port_lines(text: &mut String, port: &PortRates) {
    let rates = |rates: &Rates| [rates.rx_packets, rates.rx_bits, rates.tx_packets, rates.tx_bits].map(short);
    let [rx, rx_bits, tx, tx_bits] = rates(&port.rates);
    let (id, lost) = (port.port.to_string(), short(port.lost));
    let link = if port.up { "up" } else { "down" };
    line(text, [&id, &port.device, link, &rx, &rx_bits, &tx, &tx_bits, &lost]);
    // The rates of a single queue are those of the port.
    if port.queues.len() > 1 {
        for (queue, each) in &port.queues {
            let [rx, rx_bits, tx, tx_bits] = rates(each);
            line(text, ["", &format!("queue {queue}"), "", &rx, &rx_bits, &tx, &tx_bits, ""]);
        }
    }
    for Event { direction, queue, name, rate, total } in &port.events {
        let _ = writeln!(
            text,
            "      {direction} queue {queue}: {name} {} a second, {total} in all",
            short(*rate)
        );
    }
}

/// Formats a number with three digits and a unit.
fn short(number: u64) -> String {
    let mut rest = number as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if rest < 999.5 || unit == "T" {
            let digits = if unit.is_empty() || rest >= 99.95 {
                0
            } else if rest >= 9.995 {
                1
            } else {
                2
            };
            return format!("{rest:.digits$}{unit}");
        }
        rest /= 1000.0;
    }
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, want) in [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1000, "1.00k"),
            (12_345, "12.3k"),
            (999_499, "999k"),
            (999_600, "1.00M"),
            (14_880_952, "14.9M"),
            (10_000_000_000, "10.0G"),
        ] {
            assert_eq!(short(number), want);
        }
    }
}
