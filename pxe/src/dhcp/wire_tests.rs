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

/// What Debian 12's iPXE (2019) and Debian 13's (May 2025) send in option 175, as captured.
pub(crate) const IPXE_12: &[u8] = &[
    0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x22, 1, 1, 0x13, 1, 1, 0x11, 1, 1, 0x27,
    1, 1, 0x19, 1, 1, 0x29, 1, 1, 0x10, 1, 2, 0x21, 1, 1, 0x15, 1, 1, 0x18, 1, 1, 0x12, 1, 1,
];
pub(crate) const IPXE_13: &[u8] = &[
    0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0xeb, 3, 1, 0, 0, 0x26, 1, 1, 0x17, 1, 1, 0x27, 1, 1, 0x24, 1, 1, 0x13,
    1, 1, 0x14, 1, 1, 0x11, 1, 1, 0x29, 1, 1, 0x15, 1, 1, 0x12, 1, 1,
];

#[test]
fn an_ipxe_with_https_says_so() {
    let class = (77, &b"iPXE"[..]);
    for (features, want) in
        [(IPXE_13, true), (IPXE_12, false), (&[0x14, 1, 0], false), (&[0x14, 2, 0], false), (&[], false)]
    {
        assert_eq!(request(&[(53, &[1]), class, (175, features)]).has_https(), want, "{features:x?}");
    }
    assert!(!request(&[(53, &[1]), (175, IPXE_13)]).has_https(), "no iPXE");
}

#[test]
fn the_known_architecture_wins() {
    for (codes, want) in [
        (&[0u8, 0][..], Arch::Bios),
        (&[0, 2, 0, 9], Arch::UefiX64),
        (&[0, 2, 0, 12], Arch::Other(2)),
        (&[0, 6], Arch::UefiX86),
        (&[0, 16], Arch::UefiX64Http),
        (&[0, 17], Arch::UefiX64Http),
        (&[0, 11], Arch::UefiArm64),
        (&[0, 15], Arch::UefiX86Http),
        (&[0, 19], Arch::UefiArm64Http),
        (&[0, 18], Arch::Other(18)),
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
        (changed(242, 0), BadDatagram::Kind(0)),
        (changed(242, 2), BadDatagram::Kind(2)),
        (changed(240, 0), BadDatagram::NoKind),
        (datagram(&[(53, &[1]), (93, &[0])]), BadDatagram::OptionLength { option: 93, len: 1 }),
        (datagram(&[(53, &[1]), (54, &[1, 2, 3])]), BadDatagram::OptionLength { option: 54, len: 3 }),
        (datagram(&[(53, &[1]), (52, &[4])]), BadDatagram::OptionLength { option: 52, len: 1 }),
        (datagram(&[(53, &[1]), (53, &[1])]), BadDatagram::OptionLength { option: 53, len: 2 }),
    ];
    for (packet, want) in cases {
        assert_eq!(Request::parse(&packet), Err(want.clone()), "{want}");
    }
}

/// What is refused is still told as its client's, with what stands before the fault; what is no client's is not.
#[test]
fn of_a_bad_datagram_is_read_whose_it_is_and_what_it_asks_for() {
    const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00007:UNDI:003016");
    let uuid: Vec<u8> = (0x10..0x20).collect();
    let good = datagram(&[(53, &[1]), PXE]);
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    for (packet, kind, boots, says) in [
        (
            datagram(&[(53, &[1]), PXE, (97, &uuid)]),
            "DISCOVER",
            true,
            "option 97 has 16 bytes, not 17 (type 0 and the UUID) or none",
        ),
        (
            datagram(&[(93, &[7]), (53, &[3]), PXE]),
            "REQUEST",
            true,
            "option 93 has 1 bytes, not 2 for each architecture",
        ),
        (changed(244, 200), "DISCOVER", false, "option 60 is longer than what is left of the datagram"),
        (datagram(&[PXE]), "BOOTP", true, "it has no message type"),
        (changed(237, 0), "BOOTP", false, "the magic cookie is missing"),
        (datagram(&[(52, &[4])]), "message", false, "option 52 has 1 bytes, not 1 with a value of 1 to 3"),
        (changed(242, 0), "message", true, "message type 0"),
        (good[..100].to_vec(), "message", false, "100 bytes"),
    ] {
        let refused = Request::parse(&packet).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        let read = Broken::read(&packet).expect(says);
        assert_eq!((read.kind, read.request.mac, read.request.wants_boot()), (kind, MAC, boots), "{says}");
    }
    for (what, packet) in [
        ("a server's answer", changed(0, 2)),
        ("no Ethernet", changed(1, 32)),
        ("a group's address", changed(28, 0xff)),
        ("cut before its MAC", good[..33].to_vec()),
        ("an OFFER", changed(242, 2)),
        ("a relay's question about a client", changed(242, 10)),
    ] {
        assert!(Broken::read(&packet).is_none(), "{what}");
    }
}

#[test]
fn relays_say_where_the_client_stands() {
    let got = request(&[
        (53, &[1]),
        (82, b"\x01\x03e17\x02\x02sw\x05\x04\x0a\x4d\x07\x00\x0b\x04\x0a\x58\x00\x01"),
    ]);
    assert_eq!(
        (got.relayed(relay::CIRCUIT), got.relayed(relay::REMOTE)),
        (Some(&b"e17"[..]), Some(&b"sw"[..]))
    );
    assert_eq!(got.relayed_address(relay::LINK), Some(Ipv4Addr::new(10, 77, 7, 0)));
    assert_eq!(got.relayed_address(relay::SERVER), Some(Ipv4Addr::new(10, 88, 0, 1)));
    assert_eq!(got.relayed(9), None);
    for (bad, want) in [
        (&b"\x01\x04e17"[..], BadDatagram::Truncated(82)),
        (b"\x01", BadDatagram::Truncated(82)),
        (b"\x05\x03\x0a\x4d\x07", BadDatagram::OptionLength { option: 82, len: 5 }),
    ] {
        assert_eq!(Request::parse(&datagram(&[(53, &[1]), (82, bad)])), Err(want));
    }
}

/// What once broke a DHCP parser somewhere, or is at an edge of this one.
#[test]
fn the_corpus_is_survived() {
    let fragments: Vec<u8> = (0..1300u32).flat_map(|i| [if i % 2 == 0 { 43 } else { 60 }, 1, 0]).collect();
    let mut alternating = datagram(&[(53, &[1])]);
    alternating.pop();
    alternating.extend_from_slice(&fragments[..MAX_DATAGRAM - alternating.len()]);
    let long_hlen = {
        let mut d = datagram(&[(53, &[1])]);
        d[2] = 17;
        d
    };
    let nested = datagram(&[(53, &[1]), (82, &[82; 255]), (82, &[82; 255])]);
    let bad_mask = datagram(&[(1, &[255; 3]), (53, &[1]), (82, b"\x01\x01a"), (60, b"PXEClient")]);
    let two_tftp = datagram(&[(150, &[10, 0, 0, 1, 10, 0, 0, 2]), (53, &[1]), (97, &[])]);
    let not_text = datagram(&[(12, &[0xff, 0xfe]), (53, &[1]), (93, &[0, 7])]);
    let all_codes: Vec<(u8, &[u8])> =
        (1..=254u8).map(|code| (code, if code == 53 { &[1][..] } else { &[] })).collect();
    for (packet, reads) in [
        (alternating, false),
        (long_hlen, false),
        (nested, false),
        (bad_mask, true),
        (two_tftp, true),
        (not_text, true),
        (datagram(&all_codes), false),
        (vec![0; MAX_DATAGRAM], false),
        (vec![0xff; 241], false),
    ] {
        let begun = packet.len();
        assert_eq!(Request::parse(&packet).is_ok(), reads, "{begun} bytes: {:?}", Request::parse(&packet));
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
            let kept: usize = request.options.each().map(|(_, value)| value.len()).sum();
            prop_assert!(kept <= packet.len());
            prop_assert!(request.options.bytes.len() <= MOST_BYTES);
        }
    }
}
