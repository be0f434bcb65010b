use super::*;
use proptest::prelude::*;

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

/// A client's datagram with these options (END added).
pub(crate) fn datagram(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; FIXED];
    out[0..3].copy_from_slice(&[1, 1, 6]);
    out[4..8].copy_from_slice(&0xabcd_0001_u32.to_be_bytes());
    out[28..34].copy_from_slice(&MAC.0);
    out.extend_from_slice(&COOKIE);
    for (code, value) in options {
        out.push(*code);
        out.push(value.len() as u8);
        out.extend_from_slice(value);
    }
    out.push(255);
    out
}

pub(crate) fn request(options: &[(u8, &[u8])]) -> Request {
    Request::parse(&datagram(options)).unwrap()
}

#[test]
fn reads_a_pxe_discover() {
    let mut uuid = vec![0];
    uuid.extend(0x10..0x20u8);
    let got = request(&[
        (53, &[1]),
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
        (93, &[0, 7]),
        (97, &uuid),
        (50, &[10, 77, 0, 11]),
    ]);
    assert_eq!(got.kind, Kind::Discover);
    assert_eq!(got.mac, MAC);
    assert_eq!(got.xid, 0xabcd_0001);
    assert!(got.wants_boot() && !got.is_ipxe());
    assert_eq!(got.arch(), Some(Arch::UefiX64));
    assert_eq!(got.uuid().unwrap(), "13121110-1514-1716-1819-1a1b1c1d1e1f");
    assert_eq!(got.requested_ip(), Some(Ipv4Addr::new(10, 77, 0, 11)));
}

#[test]
fn ipxe_is_recognised_in_both_spellings_and_no_other() {
    for (class, want) in [(&b"iPXE"[..], true), (b"\x04iPXE", true), (b"gPXE", false), (b"iPXEx", false)] {
        assert_eq!(request(&[(53, &[1]), (77, class)]).is_ipxe(), want, "{class:?}");
    }
}

#[test]
fn the_known_architecture_wins() {
    for (codes, want) in [
        (&[0u8, 0][..], Arch::Bios),
        (&[0, 6, 0, 9], Arch::UefiX64),
        (&[0, 6], Arch::Other(6)),
        (&[0, 16], Arch::UefiX64Http),
        (&[0, 11], Arch::UefiArm64),
    ] {
        assert_eq!(request(&[(53, &[1]), (93, codes)]).arch(), Some(want));
    }
}

#[test]
fn overload_and_fragments_are_joined() {
    let mut packet = datagram(&[(52, &[3]), (43, b"ab"), (43, b"cd")]);
    packet[108..111].copy_from_slice(&[53, 1, 1]);
    packet[111] = 255;
    packet[44..48].copy_from_slice(&[43, 2, b'e', b'f']);
    packet[48] = 255;
    let got = Request::parse(&packet).unwrap();
    assert_eq!(got.raw(43), Some(&b"abcdef"[..]));
    assert_eq!(got.kind, Kind::Discover);
}

#[test]
fn each_bad_datagram_is_refused_for_its_own_reason() {
    let good = datagram(&[(53, &[1])]);
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let cases: Vec<(Vec<u8>, BadDatagram)> = vec![
        (vec![], BadDatagram::Length(0)),
        (good[..240].to_vec(), BadDatagram::Length(240)),
        (vec![1; MAX_DATAGRAM + 1], BadDatagram::Length(MAX_DATAGRAM + 1)),
        (changed(0, 2), BadDatagram::Op(2)),
        (changed(2, 255), BadDatagram::Hardware { htype: 1, hlen: 255 }),
        (changed(1, 32), BadDatagram::Hardware { htype: 32, hlen: 6 }),
        (changed(28, 0xff), BadDatagram::Mac(MacAddr([0xff, 0x54, 0, 0x77, 0, 1]))),
        (changed(237, 0), BadDatagram::Cookie),
        (changed(241, 9), BadDatagram::Truncated(53)),
        (changed(242, 0), BadDatagram::Kind),
        (changed(242, 2), BadDatagram::Kind),
        (changed(240, 0), BadDatagram::Kind),
        (datagram(&[(53, &[1]), (93, &[0])]), BadDatagram::OptionLength { option: 93, len: 1 }),
        (datagram(&[(53, &[1]), (54, &[1, 2, 3])]), BadDatagram::OptionLength { option: 54, len: 3 }),
        (datagram(&[(53, &[1]), (52, &[4])]), BadDatagram::OptionLength { option: 52, len: 1 }),
        (datagram(&[(53, &[1]), (53, &[1])]), BadDatagram::OptionLength { option: 53, len: 2 }),
    ];
    for (packet, want) in cases {
        assert_eq!(Request::parse(&packet), Err(want.clone()), "{want}");
    }
}

proptest! {
    #[test]
    fn any_datagram_is_survived(
        tail in proptest::collection::vec(any::<u8>(), 0..1400), head in any::<bool>(), overload in 0u8..4,
    ) {
        let mut packet = tail.clone();
        if head {
            packet = datagram(&[(52, &[overload]), (53, &[1])]);
            packet.pop();
            packet.extend_from_slice(&tail);
            let n = tail.len().min(192);
            packet[44..44 + n].copy_from_slice(&tail[..n]);
        }
        if let Ok(request) = Request::parse(&packet) {
            let _ = (request.arch(), request.uuid(), request.vendor_class(), request.is_ipxe());
            let kept: usize = request.options.values().map(Vec::len).sum();
            prop_assert!(kept <= packet.len());
        }
    }
}
