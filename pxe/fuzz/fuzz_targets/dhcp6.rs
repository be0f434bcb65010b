#![no_main]
libfuzzer_sys::fuzz_target!(|datagram: &[u8]| dayzero_pxe::fuzzing::dhcp6(datagram));
