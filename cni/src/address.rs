//! Ethernet and IP addresses as configurations and results write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::environment::Attachment;

/// The MAC address of an interface: neither a group address nor all zeros.
///
/// ```
/// use linecard_cni::Mac;
/// let mac: Mac = "02:00:00:00:00:0A".parse().expect("well formed");
/// assert_eq!(mac.to_string(), "02:00:00:00:00:0a");
/// assert!("01:00:5e:00:00:01".parse::<Mac>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered address that is always the same for an attachment.
    ///
    /// ```
    /// use linecard_cni::{Attachment, Mac};
    /// let of = |container| Ok::<_, linecard_cni::Error>(Mac::of(&Attachment::new(container, "net1")?));
    /// assert_eq!(of("a")?, of("a")?);
    /// assert_ne!(of("a")?, of("b")?);
    /// assert!(of("a")?.to_string().starts_with("0a:"));
    /// # Ok::<(), linecard_cni::Error>(())
    /// ```
    #[must_use]
    pub fn of(attachment: &Attachment) -> Self {
        // FNV-1a is the same in every release, which std's hashes do not guarantee.
        let name = attachment.to_string();
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The last step of FNV leaves the low bits better mixed than the high ones; fold both halves.
        let [a, b, c, d, e, ..] = (hash ^ (hash >> 29)).to_le_bytes();
        Self([0x0a, a, b, c, d, e])
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or("it is not of the form 02:00:00:00:00:01")?;
        }
        if parts.next().is_some() {
            return Err("it is not of the form 02:00:00:00:00:01".into());
        }
        if bytes == [0; 6] || bytes[0] & 1 != 0 {
            return Err("it is a group's address or all zeros; use one such as 02:00:00:00:00:01".into());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// An IP address with the length of its network prefix.
///
/// ```
/// use linecard_cni::Cidr;
/// let address: Cidr = "10.1.0.5/24".parse().expect("well formed");
/// assert_eq!((address.address.to_string().as_str(), address.prefix), ("10.1.0.5", 24));
/// let alone: Cidr = "fd00::5".parse().expect("the whole address");
/// assert_eq!(alone.to_string(), "fd00::5/128");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix, 0 to 32 or 128 bits.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let wrong = || "it is not of the form 10.1.0.5/24".to_owned();
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        // `parse` would accept a sign.
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        let prefix = prefix.map_or(Some(most), number).ok_or_else(wrong)?;
        match prefix <= most {
            true => Ok(Self { address, prefix }),
            false => Err(format!("a prefix has at most {most} bits")),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_sign() {
        assert!("+2:00:00:00:00:01".parse::<Mac>().is_err());
        assert!("02:00:00:00:00:+1".parse::<Mac>().is_err());
        assert!("10.1.0.5/+24".parse::<Cidr>().is_err());
        assert!("10.1.0.5/".parse::<Cidr>().is_err());
    }
}
