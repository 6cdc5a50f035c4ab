//! PCI addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a PCI device, as `lspci -D` and DPDK's `-a` write it: domain, bus, device and function, in
/// hexadecimal.
///
/// ```
/// use linecard_pmd::pci::PciAddress;
/// let address: PciAddress = "00:05.0".parse()?;
/// assert_eq!(address.to_string(), "0000:00:05.0");
/// assert!("0000:00:20.0".parse::<PciAddress>().is_err());
/// # Ok::<(), linecard_pmd::pci::NoAddress>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// The text is not a [`PciAddress`].
///
/// ```
/// use linecard_pmd::pci::{NoAddress, PciAddress};
/// assert_eq!("eth0".parse::<PciAddress>(), Err(NoAddress));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PCI address is written as 0000:00:05.0")]
pub struct NoAddress;

/// Parses one to `digits` hexadecimal digits to a number that is at most `max`.
fn hex(text: &str, digits: usize, max: u32) -> Result<u32, NoAddress> {
    let plain = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(text, 16).ok().filter(|number| plain && *number <= max);
    number.ok_or(NoAddress)
}

impl FromStr for PciAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let (rest, function) = text.rsplit_once('.').ok_or(NoAddress)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(NoAddress)?;
        let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
        let byte = |text, max| hex(text, 2, max).map(|number| number as u8);
        Ok(Self {
            domain: hex(domain, 8, u32::MAX)?,
            bus: byte(bus, 0xff)?,
            device: byte(device, 0x1f)?,
            function: hex(function, 1, 7)? as u8,
        })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("0000:00:05.0", "0000:00:05.0"),
            ("00:05.0", "0000:00:05.0"),
            ("0:5.7", "0000:00:05.7"),
            ("FFFF:Ff:1f.7", "ffff:ff:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            let address: PciAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse(), Ok(address));
        }
        for text in [
            "",
            ".",
            ":",
            "::.",
            "0000:00:05",
            "00:05.8",
            "00:20.0",
            "100:05.0:0",
            "0000:100:05.0",
            "00:05.00",
            "+0:05.0",
            "0x0:05.0",
            "00:-5.0",
            "00:05.0 ",
            "123456789:00:05.0",
            "net_null0",
            "0000:00:00:05.0",
            "05.0",
        ] {
            assert_eq!(text.parse::<PciAddress>(), Err(NoAddress), "{text}");
        }
    }
}
