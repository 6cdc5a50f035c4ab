//! The bodies of the fuzz targets. A coverage-guided fuzzer calls them (`cargo +nightly fuzz run NAME`); the
//! tests here call them with random bytes on any toolchain, as many times as `LINECARD_FUZZ_INPUTS` says.

#![allow(missing_docs, reason = "inputs of fuzz targets, for no other program")]

pub mod args;
pub mod bpf;
pub mod capture;
pub mod cni;
pub mod fdb;
pub mod headers;
pub mod pcap;
pub mod ring;
pub mod session;
pub mod virtqueue;
pub mod vnet;
pub mod wire;

#[cfg(test)]
mod tests {
    use arbitrary::{Arbitrary, Unstructured};
    use linecard_testing::Prng;

    /// Random inputs of all lengths up to 2 KiB, short ones more often, the same in every run.
    fn feed<I>(times: usize, run: impl Fn(I))
    where
        I: for<'a> Arbitrary<'a>,
    {
        bytes(times, |bytes| {
            if let Ok(input) = I::arbitrary_take_rest(Unstructured::new(bytes)) {
                run(input);
            }
        });
    }

    fn bytes(times: usize, run: impl Fn(&[u8])) {
        let mut random = Prng::new(1);
        let asked = std::env::var("LINECARD_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
        for _ in 0..asked.unwrap_or(times) {
            let longest = 1 << random.below(12);
            let len = random.below(longest);
            run(&random.bytes(len));
        }
    }

    /// For inputs that borrow from the random bytes.
    macro_rules! borrowing {
        ($name:ident) => {
            |bytes: &[u8]| {
                if let Ok(input) = crate::$name::Input::arbitrary_take_rest(Unstructured::new(bytes)) {
                    crate::$name::run(input);
                }
            }
        };
    }

    #[test]
    fn rings() {
        feed(25_000, crate::virtqueue::split);
        feed(25_000, crate::virtqueue::packed);
        feed(25_000, crate::ring::run);
    }

    #[test]
    fn tables() {
        feed(25_000, crate::fdb::run);
    }

    #[test]
    fn sockets() {
        feed(100_000, crate::wire::run);
        feed(3000, crate::session::run);
    }

    #[test]
    fn frames() {
        bytes(300_000, crate::headers::run);
        bytes(100_000, borrowing!(vnet));
        bytes(30_000, borrowing!(bpf));
    }

    #[test]
    fn files_and_words() {
        bytes(20_000, crate::pcap::run);
        bytes(100_000, borrowing!(args));
    }

    #[test]
    fn plugins() {
        bytes(50_000, borrowing!(cni));
    }

    #[test]
    fn captures() {
        bytes(1000, borrowing!(capture));
    }
}
