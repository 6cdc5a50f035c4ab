//! Both ends of the control socket of captures: any datagram to the server, any answer to a client with any memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: linecard_fuzz::capture::Input<'_>| linecard_fuzz::capture::run(input));
