//! Pools (under construction until the room lands).

use super::Error;
use super::pair::Bench;
use super::report::Row;

pub(crate) fn rows(_: &mut Bench) -> Result<Vec<Row>, Error> {
    Ok(Vec::new())
}
