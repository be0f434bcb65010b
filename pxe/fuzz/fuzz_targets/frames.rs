#![no_main]
libfuzzer_sys::fuzz_target!(|frame: &[u8]| dayzero_pxe::fuzzing::frames(frame));
