//! Puts sections behind those of a PE32+ file: a systemd stub becomes a unified kernel image (UKI).
//!
//! Why not a tool: Debian 12 has no `ukify`, and `objcopy` leaves addresses and the image's size to its caller, keeps the
//! stub's symbol table behind the sections, where Authenticode hashes it and firmware disagrees about it, and rewrites
//! the header. Invariants: the result depends on the inputs alone; new sections begin on pages, behind all others; what
//! was there stays byte for byte, but for counts, sizes and the dropped symbol table. It reads x86-64 images alone.
//! Source: Microsoft's "PE Format", the parts that a UEFI image uses.

/// New sections begin at multiples of this in memory.
const PAGE: u64 = 4096;
/// Largest image.
const MOST: u64 = 1 << 30;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const READ_DATA: u32 = 0x4000_0040;
const SECTION: usize = 40;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Where things are in an image.
struct Layout {
    /// COFF header, behind the signature.
    coff: usize,
    /// Optional header.
    optional: usize,
    /// Section table, and how many sections there are.
    table: usize,
    sections: usize,
    /// First free address in memory.
    memory: u64,
    /// End of the last section's bytes in the file.
    file: u64,
    /// Alignment of sections in the file.
    align: u64,
}

impl Layout {
    fn of(image: &[u8]) -> Option<Self> {
        let pe = usize::try_from(u32_at(image, 0x3c)?).ok()?;
        let (coff, optional) = (pe.checked_add(4)?, pe.checked_add(24)?);
        let good = image.starts_with(b"MZ")
            && image.get(pe..coff)? == b"PE\0\0"
            && u16_at(image, coff)? == 0x8664
            && u16_at(image, optional)? == 0x20b;
        let (sections, table) = (u16_at(image, coff + 2)?, optional + u16_at(image, coff + 16)?);
        let (mut memory, mut file) = (0, 0);
        for at in (0..sections).map(|index| table + index * SECTION) {
            memory = memory.max(u32_at(image, at + 12)? + u32_at(image, at + 8)?);
            file = file.max(u32_at(image, at + 20)? + u32_at(image, at + 16)?);
        }
        let align = u32_at(image, optional + 36)?;
        let sound = align.is_power_of_two() && file <= image.len() as u64 && memory < MOST;
        (good && sound).then_some(Self { coff, optional, table, sections, memory, file, align })
    }
}

/// `image` with these sections behind its own; a name has at most eight bytes.
///
/// # Errors
/// In words: no unsigned PE32+ image for x86-64, no room for the section headers, or too large.
pub(crate) fn with_sections(image: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
    let layout = Layout::of(image).ok_or("it is no PE32+ image for x86-64, or it is cut short")?;
    let headers = u32_at(image, layout.optional + 60).unwrap_or(0);
    let signature = layout.optional + 112 + 4 * 8;
    if u32_at(image, signature + 4) != Some(0) {
        return Err("it is signed already: its sections cannot be changed".to_owned());
    }
    let end_of_table = layout.table + (layout.sections + sections.len()) * SECTION;
    if end_of_table as u64 > headers {
        let room = (headers as usize).saturating_sub(layout.table) / SECTION;
        return Err(format!(
            "its header has room for {room} sections, and {} are needed",
            layout.sections + sections.len()
        ));
    }
    let total: u64 = sections.iter().map(|(_, content)| content.len() as u64 + PAGE).sum();
    if layout.file + total > MOST {
        return Err(format!("{} bytes are too many: at most {MOST} are allowed", layout.file + total));
    }
    // Behind the last section lies only the symbol table: nothing of it is loaded.
    let mut out = image[..layout.file as usize].to_vec();
    put(&mut out, layout.coff + 8, 0);
    put(&mut out, layout.coff + 12, 0);
    let (mut memory, mut data) = (layout.memory, u32_at(image, layout.optional + 8).unwrap_or(0));
    for (index, (name, content)) in sections.iter().enumerate() {
        if name.is_empty() || name.len() > 8 {
            return Err(format!("section name '{name}': 1 to 8 bytes are allowed"));
        }
        out.resize(out.len().next_multiple_of(layout.align as usize), 0);
        memory = memory.next_multiple_of(PAGE);
        let raw = (content.len() as u64).next_multiple_of(layout.align);
        let mut header = [0; SECTION];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, value) in [(8, content.len() as u64), (12, memory), (16, raw), (20, out.len() as u64)] {
            put(&mut header, at, value as u32);
        }
        put(&mut header, 36, READ_DATA);
        let at = layout.table + (layout.sections + index) * SECTION;
        out[at..at + SECTION].copy_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(layout.align as usize), 0);
        memory += content.len() as u64;
        data += raw;
    }
    let count = (layout.sections + sections.len()) as u16;
    out[layout.coff + 2..layout.coff + 4].copy_from_slice(&count.to_le_bytes());
    put(&mut out, layout.optional + 8, data as u32);
    put(&mut out, layout.optional + 56, memory.next_multiple_of(PAGE) as u32);
    put(&mut out, layout.optional + 64, 0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One section of 0x200 bytes at 0x1000, room for two more, and a symbol table behind.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 0x200];
        image[..2].copy_from_slice(b"MZ");
        put(&mut image, 0x3c, 0x40);
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
        image[0x44..0x48].copy_from_slice(&[0x64, 0x86, 1, 0]);
        put(&mut image, 0x44 + 8, 0x400);
        put(&mut image, 0x44 + 12, 7);
        image[0x54] = 0xf0;
        image[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
        for (at, value) in [(32, 0x200), (36, 0x200), (56, 0x1200), (60, 0x200), (64, 0xdead)] {
            put(&mut image, 0x58 + at, value);
        }
        let table = 0x58 + 0xf0;
        image[table..table + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 0x180), (12, 0x1000), (16, 0x200), (20, 0x200)] {
            put(&mut image, table + at, value);
        }
        image.extend_from_slice(&[0xcc; 0x200]);
        image.extend_from_slice(b"symbols");
        image
    }

    #[test]
    fn sections_are_put_behind_and_found_again() {
        let made = with_sections(&image(), &[(".cmdline", b"quiet"), (".linux", &[7; 0x201])]).unwrap();
        let layout = Layout::of(&made).unwrap();
        assert_eq!((layout.sections, layout.memory, layout.file), (3, 0x3201, 0xa00));
        let header = |index: usize, at: usize| u32_at(&made, layout.table + index * SECTION + at).unwrap();
        assert_eq!([header(1, 8), header(1, 12), header(1, 16), header(1, 20)], [5, 0x2000, 0x200, 0x400]);
        assert_eq!(
            [header(2, 8), header(2, 12), header(2, 16), header(2, 20)],
            [0x201, 0x3000, 0x400, 0x600]
        );
        assert_eq!(&made[0x400..0x405], b"quiet");
        assert!(made[0x200..0x400] == [0xcc; 0x200] && made.len() == 0xa00, "the symbols are gone");
        assert_eq!(u32_at(&made, 0x58 + 56), Some(0x4000), "the image's size in memory");
        assert_eq!(u32_at(&made, 0x58 + 64), Some(0), "no sum that is no longer true");
        assert_eq!(
            made,
            with_sections(&image(), &[(".cmdline", b"quiet"), (".linux", &[7; 0x201])]).unwrap()
        );
    }

    #[test]
    fn what_is_no_image_or_has_no_room_is_refused() {
        let sections: [(&str, &[u8]); 1] = [(".x", b"x")];
        for length in [0, 0x40, 0x60, 0x150, 0x3ff] {
            assert!(with_sections(&image()[..length], &sections).is_err(), "cut at {length}");
        }
        let full: Vec<(&str, &[u8])> = vec![(".x", b"x"); 4];
        assert!(with_sections(&image(), &full).unwrap_err().contains("room for 4 sections"));
        let mut signed = image();
        put(&mut signed, 0x58 + 112 + 4 * 8 + 4, 8);
        assert!(with_sections(&signed, &sections).unwrap_err().contains("signed already"));
        assert!(with_sections(&image(), &[("a name", b""), ("longer.than", b"")]).is_err());
        let mut other = image();
        other[0x44] = 0x4c;
        assert!(with_sections(&other, &sections).is_err());
    }
}
