#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dayzero_pxe::fuzzing::tftp(bytes));
