//! The firmware's boot entry for an installed disk, by efivarfs (UEFI 2.10 sections 3.1.3 and 10.3).
//!
//! Our entry comes first in BootOrder: local disk first is the rule, network boot is asked for by the BMC once. An older
//! entry of ours is replaced. Where entries are lost, the loader also lies at the removable path.
//!
//! Reading: [`order`] and [`current`] say where each entry leads by its device path alone; its description is only shown.

use crate::error::StorageError;
use dayzero_model::startup::{BootDevice, BootEntry};
use std::io::Write;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Where the kernel shows the variables.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// Non-volatile, at boot time and at run time.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
/// By which our own entries are known.
const NAME: &str = "Dayzero";
/// Longest variable that is read.
const LONGEST: usize = 64 << 10;

/// Where the loader lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    /// Number of the ESP in the partition table.
    pub partition: u32,
    /// GUID of the ESP.
    pub guid: Uuid,
    /// First logical block.
    pub start: u64,
    /// Logical blocks.
    pub blocks: u64,
    /// Path on the ESP, such as `\EFI\dayzero\grubx64.efi`.
    pub path: String,
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

impl Loader {
    /// EFI_LOAD_OPTION: attributes, length of the device path, description, device path.
    fn load_option(&self) -> Vec<u8> {
        let mut path = vec![4, 1, 42, 0];
        path.extend(self.partition.to_le_bytes());
        path.extend(self.start.to_le_bytes());
        path.extend(self.blocks.to_le_bytes());
        path.extend(self.guid.to_bytes_le());
        path.extend([2, 2]);
        let file = utf16(&self.path);
        path.extend([4, 4]);
        path.extend((file.len() as u16 + 4).to_le_bytes());
        path.extend(file);
        path.extend([0x7f, 0xff, 4, 0]);
        let mut option = 1_u32.to_le_bytes().to_vec();
        option.extend((path.len() as u16).to_le_bytes());
        option.extend(utf16(NAME));
        option.extend(path);
        option
    }
}

/// Sees to it that the variables are shown.
///
/// # Errors
/// They are not, and the kernel does not mount them.
pub fn mounted(vars: &Path) -> Result<(), StorageError> {
    let empty = std::fs::read_dir(vars).map(|mut listing| listing.next().is_none()).unwrap_or(true);
    if empty {
        let kind = Some("efivarfs");
        nix::mount::mount(kind, vars, kind, nix::mount::MsFlags::empty(), None::<&str>)
            .map_err(|e| StorageError::io("mounting efivarfs at", vars)(e.into()))?;
    }
    Ok(())
}

fn variable(vars: &Path, name: &str) -> PathBuf {
    vars.join(format!("{name}-{GLOBAL}"))
}

fn read(vars: &Path, name: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(variable(vars, name)).ok()?;
    (bytes.len() <= LONGEST).then(|| bytes.get(4..).map(<[u8]>::to_vec))?
}

fn write(vars: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
    let path = variable(vars, name);
    let whole = [&ATTRIBUTES, content].concat();
    // efivarfs takes a variable in one write.
    let put = || {
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?.write_all(&whole)
    };
    put().map_err(StorageError::io("writing the firmware variable", &path))
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Description of a load option.
fn description(option: &[u8]) -> String {
    let units = numbers(option.get(6..).unwrap_or_default());
    let text: String = char::decode_utf16(units.into_iter().take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or('?'))
        .collect();
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(80).collect()
}

/// All entries as `Boot0003 Dayzero`, those of BootOrder in its order.
pub fn entries(vars: &Path) -> Vec<String> {
    let order = numbers(&read(vars, "BootOrder").unwrap_or_default());
    let line = |number: &u16| {
        let name = format!("Boot{number:04X}");
        let option = read(vars, &name)?;
        Some(format!("{name} {}", description(&option)))
    };
    order.iter().filter_map(line).collect()
}

/// Entries that are read at most.
const MOST: usize = 64;

fn entry(vars: &Path, number: u16) -> Option<BootEntry> {
    let option = read(vars, &format!("Boot{number:04X}"))?;
    Some(BootEntry { number, name: description(&option), leads: leads(&option) })
}

/// The entries of BootOrder, in its order; those that are missing are left out.
pub fn order(vars: &Path) -> Vec<BootEntry> {
    let order = numbers(&read(vars, "BootOrder").unwrap_or_default());
    order.into_iter().take(MOST).filter_map(|number| entry(vars, number)).collect()
}

/// The entry that started this system, by BootCurrent; none where the firmware does not say it.
pub fn current(vars: &Path) -> Option<BootEntry> {
    let number = *numbers(&read(vars, "BootCurrent")?).first()?;
    let unknown = || BootEntry { number, name: String::new(), leads: BootDevice::Other };
    Some(entry(vars, number).unwrap_or_else(unknown))
}

/// Where a load option leads, by the nodes of its device path (UEFI 2.10 section 10.3): a MAC or IP node is the network,
/// a hard drive node with a GUID a partition, a node of a drive's bus a whole drive.
fn leads(option: &[u8]) -> BootDevice {
    let length = option.get(4..6).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let text = option.get(6..).unwrap_or_default();
    let Some(end) = text.chunks_exact(2).position(|unit| unit == [0, 0]) else { return BootDevice::Other };
    let path = text.get((end + 1) * 2..).unwrap_or_default();
    let mut rest = &path[..length.min(path.len())];
    let mut found = BootDevice::Other;
    while let Some(&[kind, sub, low, high]) = rest.first_chunk::<4>() {
        let node = usize::from(u16::from_le_bytes([low, high]));
        if node < 4 || node > rest.len() || kind == 0x7f {
            break;
        }
        match (kind, sub) {
            // MAC address, IPv4, IPv6, URI.
            (3, 11 | 12 | 13 | 24) => return BootDevice::Network,
            // Hard drive, its signature a GUID.
            (4, 1) if node >= 42 && rest[41] == 2 => {
                if let Ok(guid) = <[u8; 16]>::try_from(&rest[24..40]) {
                    found = BootDevice::Partition(Uuid::from_bytes_le(guid).to_string());
                }
            }
            // A PCI device without more, as a virtio disk has it.
            (1, 1) if found == BootDevice::Other => found = BootDevice::Drive,
            // ATAPI, SCSI, USB, logical unit, SATA, NVMe, SD, UFS, eMMC.
            (3, 1 | 2 | 5 | 17 | 18 | 23 | 25 | 26 | 29) if found == BootDevice::Other => {
                found = BootDevice::Drive;
            }
            _ => {}
        }
        rest = &rest[node..];
    }
    found
}

/// Numbers of the entries that are there.
fn present(vars: &Path) -> Vec<u16> {
    let names = std::fs::read_dir(vars)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let digits = name.strip_prefix("Boot")?.strip_suffix(&format!("-{GLOBAL}"))?.to_owned();
            (digits.len() == 4).then(|| u16::from_str_radix(&digits, 16).ok())?
        })
        .collect()
}

/// Makes our entry the first, and reads the order back.
///
/// # Errors
/// A variable that the firmware does not take, or does not keep.
pub fn install(vars: &Path, loader: &Loader) -> Result<Vec<String>, StorageError> {
    let option = loader.load_option();
    let there = present(vars);
    let ours: Vec<u16> = there
        .iter()
        .copied()
        .filter(|number| read(vars, &format!("Boot{number:04X}")).is_some_and(|o| description(&o) == NAME))
        .collect();
    let free = (0..=u16::MAX).find(|number| !there.contains(number)).unwrap_or(u16::MAX);
    let number = ours.first().copied().unwrap_or(free);
    let name = format!("Boot{number:04X}");
    if read(vars, &name).as_ref() != Some(&option) {
        // A variable of another length is replaced, not written over.
        let _ = std::fs::remove_file(variable(vars, &name));
        write(vars, &name, &option)?;
    }
    for extra in ours.iter().skip(1) {
        let _ = std::fs::remove_file(variable(vars, &format!("Boot{extra:04X}")));
    }
    let mut order = vec![number];
    let before = numbers(&read(vars, "BootOrder").unwrap_or_default());
    order.extend(before.into_iter().filter(|n| *n != number && !ours.contains(n)));
    let bytes: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
    write(vars, "BootOrder", &bytes)?;
    let kept = read(vars, "BootOrder").unwrap_or_default();
    if read(vars, &name).as_ref() != Some(&option) || kept != bytes {
        return Err(StorageError::ReadBack {
            what: format!("the firmware's boot entry {name}"),
            expected: format!("{name} {NAME} first in BootOrder"),
            observed: entries(vars).join(", "),
        });
    }
    Ok(entries(vars))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(guid: u128) -> Loader {
        let path = "\\EFI\\dayzero\\grubx64.efi".to_owned();
        Loader { partition: 2, guid: Uuid::from_u128(guid), start: 4096, blocks: 196_608, path }
    }

    /// As OVMF leaves them: a PXE entry and the shell.
    fn firmware() -> tempfile::TempDir {
        let vars = tempfile::tempdir().unwrap();
        let mut option = 1_u32.to_le_bytes().to_vec();
        option.extend([0, 0]);
        for (number, text) in [(0_u16, "UEFI PXEv4"), (1, "EFI Internal Shell")] {
            let entry = [&option[..], &utf16(text)].concat();
            write(vars.path(), &format!("Boot{number:04X}"), &entry).unwrap();
        }
        write(vars.path(), "BootOrder", &[0, 0, 1, 0]).unwrap();
        vars
    }

    #[test]
    fn our_entry_comes_first_and_is_replaced_not_repeated() {
        let vars = firmware();
        let entries = install(vars.path(), &loader(1)).unwrap();
        assert_eq!(entries, ["Boot0002 Dayzero", "Boot0000 UEFI PXEv4", "Boot0001 EFI Internal Shell"]);
        let first = read(vars.path(), "Boot0002").unwrap();
        assert_eq!(install(vars.path(), &loader(2)).unwrap(), entries);
        assert_ne!(read(vars.path(), "Boot0002").unwrap(), first, "the entry names the new disk");
        assert_eq!(present(vars.path()).len(), 3);
    }

    #[test]
    fn the_load_option_is_as_the_specification_says() {
        let option = loader(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff).load_option();
        let hex: String = option.iter().map(|b| format!("{b:02x}")).collect();
        insta::assert_snapshot!(hex, @"0100000064004400610079007a00650072006f00000004012a00020000000010000000000000000003000000000033221100554477668899aabbccddeeff0202040436005c004500460049005c006400610079007a00650072006f005c0067007200750062007800360034002e0065006600690000007fff0400");
    }

    /// A load option with these nodes, each a kind, a subtype and its data.
    fn option_of(text: &str, nodes: &[(u8, u8, usize)]) -> Vec<u8> {
        let mut path = Vec::new();
        for (kind, sub, data) in nodes {
            path.extend([*kind, *sub]);
            path.extend((*data as u16 + 4).to_le_bytes());
            path.resize(path.len() + data, 0);
        }
        path.extend([0x7f, 0xff, 4, 0]);
        let mut option = 1_u32.to_le_bytes().to_vec();
        option.extend((path.len() as u16).to_le_bytes());
        option.extend(utf16(text));
        [option, path].concat()
    }

    #[test]
    fn where_an_entry_leads_is_told_by_its_device_path_not_by_its_name() {
        let guid = "00000000-0000-0000-0000-000000000001".to_owned();
        // As OVMF writes them: PCI root, PCI, then the device.
        let (root, pci) = ((2, 1, 8), (1, 1, 2));
        for (option, device) in [
            (loader(1).load_option(), BootDevice::Partition(guid)),
            (option_of("Dayzero", &[root, pci, (3, 11, 33), (3, 12, 23)]), BootDevice::Network),
            (option_of("UEFI DAYZERO LABDISK", &[root, pci, (3, 2, 4)]), BootDevice::Drive),
            (option_of("UEFI PXEv4", &[root, pci, (3, 18, 6)]), BootDevice::Drive),
            (option_of("UEFI Misc Device", &[root, pci]), BootDevice::Drive),
            (option_of("UiApp", &[(4, 7, 16), (4, 6, 16)]), BootDevice::Other),
        ] {
            assert_eq!(leads(&option), device, "{}", description(&option));
            for cut in 0..option.len() {
                leads(&option[..cut]);
            }
        }
    }

    #[test]
    fn order_and_current_are_read_as_the_firmware_keeps_them() {
        let vars = firmware();
        assert_eq!(current(vars.path()), None, "a firmware that does not say it");
        install(vars.path(), &loader(1)).unwrap();
        write(vars.path(), "BootOrder", &[0, 0, 9, 0, 2, 0]).unwrap();
        write(vars.path(), "BootCurrent", &[2, 0]).unwrap();
        let shown: Vec<String> = order(vars.path()).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["Boot0000 UEFI PXEv4", "Boot0002 Dayzero"]);
        assert_eq!(current(vars.path()).unwrap(), order(vars.path())[1]);
    }

    #[test]
    fn hostile_variables_are_survived() {
        let vars = firmware();
        std::fs::write(variable(vars.path(), "Boot00FF"), [7, 0, 0]).unwrap();
        std::fs::write(variable(vars.path(), "BootOrder"), [7, 0, 0, 0, 0xff]).unwrap();
        assert_eq!(install(vars.path(), &loader(1)).unwrap(), ["Boot0002 Dayzero"]);
    }
}
