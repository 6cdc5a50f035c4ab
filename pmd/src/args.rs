//! Device arguments in DPDK's syntax: `net_virtio_user0,path=/run/v.sock,queues=2`.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use linecard_net::MacAddr;

use crate::error::Error;
use crate::pci::PciAddress;

/// Flags that may be written without a value, as in DPDK.
const BARE: [&str; 1] = ["persist"];
/// Keys that may be repeated: DPDK's `net_pcap` takes one file per queue.
const REPEATABLE: [&str; 5] = ["rx_pcap", "tx_pcap", "rx_iface", "rx_iface_in", "tx_iface"];

/// A device argument: a name, and `key=value` pairs that the driver reads by type.
///
/// Every key that a driver reads is recorded as known, so that [`finish`](Self::finish) can report unknown
/// keys and suggest the nearest known one.
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
    /// Splits `text` at its commas without checking the keys. Empty pieces are ignored.
    ///
    /// Commas within brackets do not split, so that a value can be a device with its own arguments:
    /// `on=[net_null0,size=64]`. Brackets around a whole value are removed.
    ///
    /// A device on a PCI bus is named by its [address](PciAddress) instead of a driver name:
    /// `0000:00:05.0,queues=2`.
    ///
    /// `eth_x` and `x` are read as `net_x` for compatibility with older DPDK names: `eth_vhost0`,
    /// `virtio_user0`.
    ///
    /// # Errors
    /// The device name is missing, an argument has no `=`, or a key is given twice.
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

    /// Returns the arguments with `key` changed or added, for a driver that wraps another one.
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

    /// Returns the arguments without `key`.
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

    /// The name of the driver: the device name with `net_` and without the number (`net_virtio_user`); empty
    /// for a PCI address.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The PCI address, if the device is named by one.
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

    /// The device name as it was written (`net_virtio_user0`).
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

    /// Every text of `key`, in the order given, for keys that may be repeated.
    #[must_use]
    pub fn values(&self, key: &'static str) -> Vec<&str> {
        // Records `key` as known.
        let _ = self.value(key);
        self.pairs.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str()).collect()
    }

    /// The text of `key`, which must be present and not empty.
    ///
    /// # Errors
    /// It is missing or empty.
    pub fn required(&self, key: &'static str) -> Result<&str, Error> {
        self.value(key).filter(|value| !value.is_empty()).ok_or_else(|| {
            let remedy = format!("write {},{key}=VALUE", self.name);
            // Short keys are close to each other even if they mean different things.
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

    /// `key` as a number within `allowed`, decimal or hexadecimal with `0x`.
    ///
    /// # Errors
    /// The text is not a number, or the number is out of range.
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

    /// `key` as a unicast MAC address.
    ///
    /// # Errors
    /// The text is not an address, or the address is a multicast or zero address.
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

    /// Checks that every given key is known, after the driver has read all of its keys.
    ///
    /// # Errors
    /// The first unknown key, with the nearest known one.
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

    /// An error about this device's arguments, for checks that a driver makes itself.
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

/// Writes the form that [`DevArgs::parse`] reads: a value with commas or brackets is put in brackets. (A
/// value with unbalanced brackets, which only [`DevArgs::with`] can set, is read differently.)
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

/// Splits at the commas that are not within brackets.
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

/// Returns the driver name in a device name.
fn driver_of(name: &str) -> String {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match bare.strip_prefix("eth_") {
        Some(kind) => format!("net_{kind}"),
        None if bare.starts_with("net_") => bare.to_owned(),
        None => format!("net_{bare}"),
    }
}

/// The edit distance (Levenshtein) of two short words. Letter case is ignored, and `-` equals `_`. It is used
/// in messages that suggest a name.
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
