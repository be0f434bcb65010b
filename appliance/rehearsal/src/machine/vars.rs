//! The boot order in a UEFI machine's variable store, as its firmware left it: what a BMC shows of it.
//!
//! The store is EDK2's (MdeModulePkg/Include/Guid/VariableFormat.h): a firmware volume's header, a store's header, then
//! variables with authentication fields. It is read alone, bounded, and whatever does not fit ends the reading.

/// EFI_GLOBAL_VARIABLE, as it lies in the store.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// gEfiAuthenticatedVariableGuid, as it lies in the store.
const AUTHENTICATED: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// A variable that holds: added, and neither deleted nor being deleted.
const ADDED: u8 = 0x3f;
/// As [`ADDED`], while the variable that takes its place is written.
const REPLACED_SOON: u8 = 0x3e;
const HEADER: usize = 60;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

fn text(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units = units.take_while(|unit| *unit != 0).take(80);
    char::decode_utf16(units).map(|c| c.ok().filter(|c| !c.is_control()).unwrap_or('?')).collect()
}

/// The content of a global variable.
fn variable<'a>(store: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let begin = usize::from(u16_at(store, 0x30)?);
    if store.get(0x28..0x2c)? != b"_FVH" || store.get(begin..begin + 16)? != AUTHENTICATED {
        return None;
    }
    let (mut at, mut found) = (begin + 28, None);
    while u16_at(store, at) == Some(0x55aa) {
        let (state, name_size, size) =
            (*store.get(at + 2)?, size_at(store, at + 36)?, size_at(store, at + 40)?);
        let name_at = at + HEADER;
        let data_at = name_at.checked_add(name_size)?;
        let end = data_at.checked_add(size)?;
        let (name, data) = (store.get(name_at..data_at)?, store.get(data_at..end)?);
        let ours = store.get(at + 44..name_at)? == GLOBAL && text(name) == wanted;
        if ours && (state == ADDED || (state == REPLACED_SOON && found.is_none())) {
            found = Some(data);
        }
        at = end.next_multiple_of(4);
    }
    found
}

/// BootOrder, first one first: number and description of each entry that is there. Empty = the firmware has none yet.
pub(crate) fn boot_order(store: &[u8]) -> Vec<(u16, String)> {
    let order = variable(store, "BootOrder").unwrap_or_default();
    let numbers = order.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let entry = |number: u16| {
        let option = variable(store, &format!("Boot{number:04X}"))?;
        Some((number, text(option.get(6..)?)))
    };
    numbers.take(64).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn put(store: &mut Vec<u8>, state: u8, name: &str, data: &[u8]) {
        let name = utf16(name);
        let mut header = vec![0xaa, 0x55, state, 0];
        header.resize(36, 0);
        header.extend((name.len() as u32).to_le_bytes());
        header.extend((data.len() as u32).to_le_bytes());
        header.extend(GLOBAL);
        store.extend(header);
        store.extend(name);
        store.extend(data);
        store.resize(store.len().next_multiple_of(4), 0xff);
    }

    fn option(text: &str) -> Vec<u8> {
        [vec![1, 0, 0, 0, 0, 0], utf16(text)].concat()
    }

    #[test]
    fn the_order_is_what_the_firmware_keeps_now() {
        let mut store = vec![0; 72];
        store[0x28..0x2c].copy_from_slice(b"_FVH");
        store[0x30] = 72;
        store.extend(AUTHENTICATED);
        store.resize(100, 0);
        put(&mut store, 0x3c, "BootOrder", &[0, 0]);
        put(&mut store, ADDED, "Boot0000", &option("UEFI PXEv4"));
        put(&mut store, REPLACED_SOON, "BootOrder", &[0, 0]);
        put(&mut store, ADDED, "Boot000A", &option("Dayzero"));
        put(&mut store, ADDED, "BootOrder", &[0x0a, 0, 9, 0, 0, 0]);
        let whole = store.len();
        store.resize(4096, 0xff);
        let shown = [(10, "Dayzero".to_owned()), (0, "UEFI PXEv4".to_owned())];
        assert_eq!(boot_order(&store), shown, "entry 9 is not there");
        for cut in 0..whole {
            boot_order(&store[..cut]);
        }
        assert_eq!(boot_order(&[0xff; 4096]), []);
    }
}
