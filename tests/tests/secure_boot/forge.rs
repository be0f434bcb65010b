//! A signed program with other content under the old signature.

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where the certificate table's address and size stand.
fn directory(image: &[u8]) -> usize {
    number(image, 0x3c) + 24 + 112 + 4 * 8
}

/// `changed` (unsigned) with the signature of `signed`.
pub(crate) fn with_signature_of(signed: &[u8], changed: &[u8]) -> Vec<u8> {
    let at = directory(signed);
    let (start, length) = (number(signed, at), number(signed, at + 4));
    assert!(length > 0, "it is signed");
    let mut forged = changed.to_vec();
    forged.resize(forged.len().next_multiple_of(8), 0);
    let place = directory(&forged);
    let new = forged.len() as u32;
    forged[place..place + 4].copy_from_slice(&new.to_le_bytes());
    forged[place + 4..place + 8].copy_from_slice(&(length as u32).to_le_bytes());
    forged.extend_from_slice(&signed[start..start + length]);
    forged
}
