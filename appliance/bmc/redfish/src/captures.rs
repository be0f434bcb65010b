//! What real services answered, for the tests.

use serde_json::Value;

/// Dell and Supermicro: github.com/NVIDIA/libredfish (MIT); DMTF: DSP2043 public-rackmount1. See tests/data/README.md.
pub(crate) fn capture(name: &str) -> Value {
    let path = format!("{}/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
