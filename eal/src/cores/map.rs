//! The lcores of an EAL and the cores that they run on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{CoreId, LcoreId, grammar, not_allowed};
use crate::error::{Error, Result};

/// An lcore and the cores it may run on, at least one.
///
/// ```
/// let map: linecard_eal::LcoreMap = "1@(4-6)".parse().unwrap();
/// assert_eq!(map.main().to_string(), "1@(4-6)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lcore {
    /// The number of the lcore.
    pub id: LcoreId,
    /// The cores, in ascending order.
    pub cores: Vec<CoreId>,
}

impl fmt::Display for Lcore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores: Vec<u32> = self.cores.iter().map(|core| core.0).collect();
        let cores = grammar::ranges(&cores);
        if self.cores.len() == 1 {
            write!(f, "{}@{cores}", self.id)
        } else {
            write!(f, "{}@({cores})", self.id)
        }
    }
}

/// The lcores of an EAL: one main lcore, the others workers. `Display` writes the format that `FromStr`
/// reads: the argument of EAL's `--lcores`.
///
/// ```
/// use linecard_eal::{CoreId, LcoreId, LcoreMap};
///
/// let map: LcoreMap = "1,2@(5-7),(3-5)@(0,2)".parse().unwrap();
/// assert_eq!(map.get(LcoreId(4)).unwrap().cores, [CoreId(0), CoreId(2)]);
/// assert_eq!(map.main().id, LcoreId(1));
/// assert_eq!(map.workers().count(), 4);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LcoreMap {
    lcores: Vec<Lcore>,
    main: LcoreId,
}

impl LcoreMap {
    /// Creates one lcore per core, with the same number; the first is main.
    ///
    /// # Errors
    /// [`Error::Lcores`] if `cores` is empty.
    pub fn of_cores(cores: &[CoreId]) -> Result<Self> {
        let map = cores.iter().map(|core| (core.0, BTreeSet::from([core.0]))).collect();
        Self::new(map)
            .ok_or_else(|| Error::Lcores { text: String::new(), expected: "at least one core".into() })
    }

    /// Creates one lcore for each bit of a hexadecimal mask (`-c`).
    ///
    /// # Errors
    /// [`Error::Lcores`].
    pub fn from_mask(text: &str) -> Result<Self> {
        let set = grammar::mask(text).map_err(|expected| Error::Lcores { text: text.into(), expected })?;
        Self::of_cores(&set.into_iter().map(CoreId).collect::<Vec<_>>())
    }

    /// Returns the same lcores with another main lcore (`--main-lcore`).
    ///
    /// # Errors
    /// [`Error::MainLcore`] if `main` is not among them.
    pub fn with_main(self, main: LcoreId) -> Result<Self> {
        if self.get(main).is_some() {
            return Ok(Self { main, ..self });
        }
        let lcores: Vec<u32> = self.lcores.iter().map(|lcore| lcore.id.0).collect();
        Err(Error::MainLcore { asked: main, lcores: grammar::ranges(&lcores) })
    }

    /// Checks that every lcore uses only `allowed` cores.
    ///
    /// # Errors
    /// [`Error::Core`] for the first core that is not allowed.
    pub fn check(&self, allowed: &[CoreId]) -> Result<()> {
        let mut cores = self.lcores.iter().flat_map(|lcore| &lcore.cores);
        match cores.find(|core| !allowed.contains(core)) {
            Some(core) => Err(not_allowed(*core, allowed)),
            None => Ok(()),
        }
    }

    /// All lcores, by number.
    #[must_use]
    pub fn all(&self) -> &[Lcore] {
        &self.lcores
    }

    /// The lcore with this number.
    #[must_use]
    pub fn get(&self, id: LcoreId) -> Option<&Lcore> {
        self.lcores.iter().find(|lcore| lcore.id == id)
    }

    /// The lcore that controls the others: by default the lowest.
    #[must_use]
    pub fn main(&self) -> &Lcore {
        self.get(self.main).unwrap_or(&self.lcores[0])
    }

    /// All lcores but the main one, by number.
    pub fn workers(&self) -> impl Iterator<Item = &Lcore> {
        self.lcores.iter().filter(|lcore| lcore.id != self.main)
    }

    /// `None` if the map is empty.
    fn new(map: BTreeMap<u32, BTreeSet<u32>>) -> Option<Self> {
        let main = LcoreId(*map.keys().next()?);
        let lcore = |(id, cores): (u32, BTreeSet<u32>)| Lcore {
            id: LcoreId(id),
            cores: cores.into_iter().map(CoreId).collect(),
        };
        Some(Self { lcores: map.into_iter().map(lcore).collect(), main })
    }
}

impl FromStr for LcoreMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |expected| Error::Lcores { text: text.into(), expected };
        let map = grammar::map(text).map_err(wrong)?;
        Self::new(map).ok_or_else(|| wrong("at least one lcore".into()))
    }
}

impl fmt::Display for LcoreMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, lcore) in self.lcores.iter().enumerate() {
            write!(f, "{}{lcore}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
