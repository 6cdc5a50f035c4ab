//! A hostile frontend: any requests in any order with any descriptors, anything in the memory it shares, while both queues
//! are polled. The backend answers afterwards, to this frontend or the next, and every packet comes home.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::session::Input| linecard_fuzz::session::run(input));
