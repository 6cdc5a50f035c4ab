//! Device arguments as DPDK writes them: `net_virtio_user0,path=/run/v.sock,queues=2`.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use linecard_net::MacAddr;

use crate::error::Error;
use crate::pci::PciAddress;

/// Flags that DPDK's users write without a value.
const BARE: [&str; 1] = ["persist"];
/// Keys of which every value counts: DPDK's `net_pcap` takes a file for each queue.
const REPEATABLE: [&str; 5] = ["rx_pcap", "tx_pcap", "rx_iface", "rx_iface_in", "tx_iface"];

/// One device as the user asked for it: a name, and `key=value` pairs that the driver takes by type.
///
/// Every key that a driver asks for is remembered as one it knows, so that [`finish`](Self::finish)
/// can name the keys that nobody asked for, and what was probably meant.
///
/// ```
/// use linecard_pmd::DevArgs;
/// let args = DevArgs::parse("net_null0,size=128,copy=1")?;
/// assert_eq!((args.driver(), args.name()), ("net_null", "net_null0"));
/// assert_eq!(args.number("size", 1..=9000_u16)?.unwrap_or(64), 128);
/// assert_eq!(args.flag("copy")?, Some(true));
/// assert_eq!(args.flag("no-rx")?, None);
/// args.finish()?;
///
/// let args = DevArgs::parse("net_null0,sise=128")?;
/// args.number("size", 1..=9000_u16)?;
/// let problem = args.finish().unwrap_err().to_string();
/// assert_eq!(problem, "net_null0: unknown argument 'sise'; did you mean 'size'? known: size");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DevArgs {
    driver: String,
    name: String,
    pci: Option<PciAddress>,
    pairs: Vec<(String, String)>,
    asked: RefCell<Vec<&'static str>>,
}

impl DevArgs {
    /// Splits `text` at its commas; nothing is known about keys yet. Empty pieces do not count.
    ///
    /// Commas in brackets do not split, so that a value can be a device with arguments of its own:
    /// `on=[net_null0,size=64]`. The brackets around a whole value are not part of it.
    ///
    /// A device on a PCI bus is named by its [address](PciAddress) instead of a driver: `0000:00:05.0,queues=2`.
    ///
    /// `eth_x` and `x` are read as `net_x`, so DPDK's older names work: `eth_vhost0`, `virtio_user0`.
    ///
    /// # Errors
    /// No device name, an argument without `=`, or a key given twice.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pieces = pieces(text);
        let mut pieces = pieces.into_iter().map(str::trim);
        let name = pieces.next().unwrap_or_default();
        let pci: Option<PciAddress> = name.parse().ok();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
        if pci.is_none() && !named {
            return Err(Error::Argument {
                device: format!("'{text}'"),
                problem: "this does not start with a device name".into(),
                remedy: "write the driver and a number first, as in net_null0,size=64, or a PCI address as in 0000:00:05.0"
                    .into(),
            });
        }
        let mut args = Self {
            driver: if pci.is_some() { String::new() } else { driver_of(name) },
            name: pci.map_or_else(|| name.to_owned(), |address| address.to_string()),
            pci,
            pairs: Vec::new(),
            asked: RefCell::default(),
        };
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            args.push(piece)?;
        }
        Ok(args)
    }

    fn push(&mut self, piece: &str) -> Result<(), Error> {
        let word = BARE.contains(&piece).then_some((piece, "1"));
        let Some((key, value)) = word.or_else(|| piece.split_once('=')) else {
            return Err(self.problem(format!("'{piece}' has no value"), format!("write {piece}=VALUE")));
        };
        let first = self.pairs.iter().find(|(known, _)| known == key);
        if let Some((_, first)) = first.filter(|_| !REPEATABLE.contains(&key)) {
            let problem = format!("'{key}' is given twice, as '{first}' and as '{value}'");
            return Err(self.problem(problem, "leave one of them out"));
        }
        let value = match value.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) => inner,
            Some(None) => {
                let problem = format!("'{piece}' opens a bracket that it does not close");
                return Err(self.problem(problem, format!("write {key}=[VALUE]")));
            }
            None => value,
        };
        self.pairs.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The same arguments with `key` changed or added: for a driver that stands before another one.
    ///
    /// ```
    /// use linecard_pmd::DevArgs;
    /// let args = DevArgs::parse("net_tap0,iface=auto")?.with("iface", "tap7").with("mac", "02:00:00:00:00:07");
    /// assert_eq!((args.value("iface"), args.value("mac")), (Some("tap7"), Some("02:00:00:00:00:07")));
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.pairs.retain(|(known, _)| known != key);
        self.pairs.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same arguments without `key`.
    ///
    /// ```
    /// use linecard_pmd::DevArgs;
    /// let args = DevArgs::parse("net_tap0,iface=t,netns=blue")?.without("netns");
    /// assert_eq!(args.to_string(), "net_tap0,iface=t");
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.pairs.retain(|(known, _)| known != key);
        self
    }

    /// The driver's name: the device name with `net_` and without the number (`net_virtio_user`); empty for a PCI address.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Where the device is on a PCI bus, if that is what it was named by.
    ///
    /// ```
    /// use linecard_pmd::DevArgs;
    /// let args = DevArgs::parse("05:00.1,queues=2")?;
    /// assert_eq!((args.name(), args.driver(), args.pci().is_some()), ("0000:05:00.1", "", true));
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.pci
    }

    /// The device's name, as it was written (`net_virtio_user0`).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of `key`.
    #[must_use]
    pub fn value(&self, key: &'static str) -> Option<&str> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Every text of `key`, in the order given; for keys that may be given several times.
    #[must_use]
    pub fn values(&self, key: &'static str) -> Vec<&str> {
        // Remembers that it was asked for.
        let _ = self.value(key);
        self.pairs.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str()).collect()
    }

    /// The text of `key`, which must be there and not empty.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, key: &'static str) -> Result<&str, Error> {
        self.value(key).filter(|value| !value.is_empty()).ok_or_else(|| {
            let remedy = format!("write {},{key}=VALUE", self.name);
            // Short keys are near to each other without being meant.
            let near = |given: &&String| {
                let far = distance(given, key);
                far <= 2 && 2 * far < key.len() && !self.asked.borrow().contains(&given.as_str())
            };
            match self.pairs.iter().map(|(given, _)| given).find(near) {
                Some(given) => self.problem(
                    format!("unknown argument '{given}'"),
                    format!("did you mean '{key}'? {remedy}"),
                ),
                None => self.problem(format!("'{key}' is missing"), remedy),
            }
        })
    }

    /// `key` as a switch: `1` or `0`.
    ///
    /// # Errors
    /// Any other text.
    pub fn flag(&self, key: &'static str) -> Result<Option<bool>, Error> {
        self.read(key, "0 or 1", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    /// `key` as a number within `allowed`, decimal or with `0x`.
    ///
    /// # Errors
    /// No number, or one outside.
    pub fn number<T>(&self, key: &'static str, allowed: RangeInclusive<T>) -> Result<Option<T>, Error>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        let what = format!("a number from {} to {}", allowed.start(), allowed.end());
        self.read(key, &what, |text| {
            let number = match text.strip_prefix("0x") {
                Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
                _ => text.parse(),
            };
            number.ok().and_then(|number| T::try_from(number).ok()).filter(|number| allowed.contains(number))
        })
    }

    /// `key` as the address of one station.
    ///
    /// # Errors
    /// No address, or one of a group, or zero.
    pub fn mac(&self, key: &'static str) -> Result<Option<MacAddr>, Error> {
        self.read(key, "a unicast address as in 02:00:00:00:00:01", |text| {
            text.parse().ok().filter(|mac: &MacAddr| mac.is_unicast())
        })
    }

    /// `key` as one of `words`.
    ///
    /// # Errors
    /// Any other text.
    pub fn choice(&self, key: &'static str, words: &[&'static str]) -> Result<Option<&'static str>, Error> {
        let what = format!("one of {}", words.join(", "));
        self.read(key, &what, |text| words.iter().copied().find(|word| *word == text))
    }

    /// Ends the reading: every key that was given has been asked for.
    ///
    /// # Errors
    /// The first key that nobody asked for, with the nearest one that somebody did.
    pub fn finish(&self) -> Result<(), Error> {
        let asked = self.asked.borrow();
        let Some((key, _)) = self.pairs.iter().find(|(key, _)| !asked.contains(&key.as_str())) else {
            return Ok(());
        };
        let near = asked.iter().map(|known| (distance(key, known), known)).min().filter(|(far, _)| *far <= 2);
        let hint = near.map_or(String::new(), |(_, known)| format!("did you mean '{known}'? "));
        let known = if asked.is_empty() { "none".to_owned() } else { asked.join(", ") };
        Err(self.problem(format!("unknown argument '{key}'"), format!("{hint}known: {known}")))
    }

    /// An error about this device's arguments; for what a driver checks itself.
    #[must_use]
    pub fn problem(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Argument { device: self.name.clone(), problem: problem.into(), remedy: remedy.into() }
    }

    fn read<T>(
        &self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.value(key) else { return Ok(None) };
        let read = parse(text);
        if read.is_none() {
            return Err(self.problem(format!("'{key}={text}' is not possible"), format!("give {key} {what}")));
        }
        Ok(read)
    }
}

/// As [`DevArgs::parse`] reads it: a value with commas or brackets stands in brackets. (One whose brackets are not pairs, which
/// only [`DevArgs::with`] can give, is read as something else.)
///
/// ```
/// use linecard_pmd::DevArgs;
/// let args = DevArgs::parse("net_virtio_user0")?.with("path", "/run/a,b");
/// assert_eq!(args.to_string(), "net_virtio_user0,path=[/run/a,b]");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
impl Display for DevArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.pairs.iter().try_for_each(|(key, value)| {
            let plain = !value.contains([',', '[', ']']) && value.trim_end() == value;
            if plain { write!(f, ",{key}={value}") } else { write!(f, ",{key}=[{value}]") }
        })
    }
}

/// What lies between the commas that are not in brackets.
fn pieces(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let outside = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(outside).collect()
}

/// The driver that a device name stands for.
fn driver_of(name: &str) -> String {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match bare.strip_prefix("eth_") {
        Some(kind) => format!("net_{kind}"),
        None if bare.starts_with("net_") => bare.to_owned(),
        None => format!("net_{bare}"),
    }
}

/// Edits between two short words (Levenshtein); the same letter in either case, and `-` and `_`, are equal. For
/// messages that say which name was meant.
///
/// ```
/// assert_eq!(linecard_pmd::args::distance("vet0", "veth0"), 1);
/// ```
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let same = |x: u8, y: u8| {
        let plain = |c: u8| if c == b'-' { b'_' } else { c.to_ascii_lowercase() };
        plain(x) == plain(y)
    };
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(!same(x, y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
