use proptest::prelude::*;

use super::*;

pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0x00ff, 0xfe77, 0x0001);
pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

/// A message with these options.
pub(crate) fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut all = Options::default();
    for (code, value) in options {
        all.raw(*code, value);
    }
    let mut out = vec![kind, 0xab, 0xcd, 0x01];
    out.extend_from_slice(&all.0);
    out
}

/// A relay's layer around a message.
pub(crate) fn relayed(link: Ipv6Addr, peer: Ipv6Addr, more: &[(u16, &[u8])], inner: &[u8]) -> Vec<u8> {
    let mut out = vec![12, 0];
    out.extend_from_slice(&link.octets());
    out.extend_from_slice(&peer.octets());
    let mut all = Options::default();
    for (code, value) in more {
        all.raw(*code, value);
    }
    all.raw(option::RELAYED, inner);
    out.extend_from_slice(&all.0);
    out
}

const DUID_LL: &[u8] = &[0, 3, 0, 1, 0x52, 0x54, 0, 0x77, 0, 1];
const DUID_LLT: &[u8] = &[0, 1, 0, 1, 9, 9, 9, 9, 0x52, 0x54, 0, 0x77, 0, 1];
const DUID_UUID: &[u8] = &[0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

#[test]
fn reads_a_pxe_solicit() {
    let association = [&[0, 0, 0, 7][..], &[0; 8], &[0, 5, 0, 24], &LINK_LOCAL.octets(), &[0; 8]].concat();
    let class = [&[0, 0, 1, 0x57][..], &[0, 20], b"HTTPClient:Arch:0001"].concat();
    let got = Message::parse(&message(
        1,
        &[(1, DUID_UUID), (3, &association), (16, &class), (61, &[0, 16]), (15, b"\x00\x04iPXE")],
    ))
    .unwrap();
    assert_eq!((got.kind, got.arch, got.ipxe), (Kind::Solicit, Some(Arch::UefiX64Http), true));
    assert!(got.wants_boot() && got.is_http() && !got.rapid);
    assert_eq!(got.associations, [Association { id: [0, 0, 0, 7], addresses: vec![LINK_LOCAL] }]);
}

#[test]
fn the_mac_is_found_wherever_it_stands() {
    let stable = Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4);
    let told = [0, 1, 0x52, 0x54, 0, 0x77, 0, 9];
    let by_relay = relayed(LINK_LOCAL, stable, &[(79, &told)], &message(1, &[(1, DUID_UUID)]));
    let by_peer = relayed(stable, LINK_LOCAL, &[], &message(1, &[(1, DUID_UUID)]));
    for (what, datagram, from, want) in [
        ("DUID-LL", message(1, &[(1, DUID_LL)]), stable, Some(MAC)),
        ("DUID-LLT", message(1, &[(1, DUID_LLT)]), stable, Some(MAC)),
        ("link-local address", message(1, &[(1, DUID_UUID)]), LINK_LOCAL, Some(MAC)),
        ("the relay's word", by_relay, stable, Some(MacAddr([0x52, 0x54, 0, 0x77, 0, 9]))),
        ("address behind a relay", by_peer, stable, Some(MAC)),
        ("nowhere", message(1, &[(1, DUID_UUID)]), stable, None),
        ("a group address", message(1, &[(1, &[0, 3, 0, 1, 1, 0, 0, 0, 0, 1])]), stable, None),
    ] {
        assert_eq!(Message::parse(&datagram).unwrap().mac(from), want, "{what}");
    }
}

#[test]
fn answers_go_back_through_their_relays_and_a_foreign_decoder_reads_them() {
    use dhcproto::v6::{DhcpOption, Message as Foreign, MessageType, OptionCode, RelayMessage};
    use dhcproto::{Decodable, Decoder};
    let inner = message(1, &[(1, DUID_LL), (3, &[0; 12])]);
    let (near, far) =
        (Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1));
    let asked = relayed(near, far, &[], &relayed(far, LINK_LOCAL, &[(18, b"e17")], &inner));
    let asked = Message::parse(&asked).unwrap();
    assert_eq!((asked.relays.len(), asked.peer(near)), (2, LINK_LOCAL));
    let mut options = Options::default();
    options.association([0; 4], 3600, &[(far, 3600)]).raw(option::BOOT_FILE, b"http://[fd77::2]/x");
    let bytes = encode(Kind::Advertise, &asked, DUID_LLT, &options);
    let outer = RelayMessage::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!((outer.msg_type(), outer.peer_addr()), (MessageType::RelayRepl, far));
    // Layer by layer, by hand: the decoder leaves what is inside as it is.
    assert_eq!((bytes[0], bytes[38]), (13, 13));
    assert!(bytes.windows(7).any(|w| w == [0, 18, 0, 3, b'e', b'1', b'7']), "the relay's port goes back");

    let plain = Message { relays: vec![], ..asked };
    let bytes = encode(Kind::Advertise, &plain, DUID_LLT, &options);
    let read = Foreign::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!((read.msg_type(), read.xid()), (MessageType::Advertise, [0xab, 0xcd, 1]));
    assert_eq!(read.opts().get(OptionCode::ClientId), Some(&DhcpOption::ClientId(DUID_LL.to_vec())));
    let Some(DhcpOption::IANA(given)) = read.opts().get(OptionCode::IANA) else { panic!("{read:?}") };
    assert_eq!((given.t1, given.t2), (1800, 2880));
    let Some(DhcpOption::IAAddr(one)) = given.opts.get(OptionCode::IAAddr) else { panic!("{given:?}") };
    assert_eq!((one.addr, one.valid_life), (far, 3600));
}

#[test]
fn each_bad_message_is_refused_for_its_own_reason() {
    let mut deep = message(1, &[(1, DUID_LL)]);
    for _ in 0..=MOST_RELAYS {
        deep = relayed(LINK_LOCAL, LINK_LOCAL, &[], &deep);
    }
    let many: Vec<(u16, &[u8])> = vec![(3, &[0; 12]); MOST_ITEMS + 1];
    for (datagram, want) in [
        (vec![1, 2, 3], BadMessage::Length(3)),
        (vec![1; MAX_DATAGRAM + 1], BadMessage::Length(MAX_DATAGRAM + 1)),
        (message(2, &[]), BadMessage::Kind(2)),
        (message(7, &[]), BadMessage::Kind(7)),
        (message(99, &[]), BadMessage::Kind(99)),
        (message(1, &[]), BadMessage::NoClient),
        (vec![1, 0, 0, 0, 0, 1, 0, 9, 1], BadMessage::Truncated(1)),
        (vec![1, 0, 0, 0, 5], BadMessage::Truncated(5)),
        (message(1, &[(1, &[0; 131])]), BadMessage::OptionLength { option: 1, len: 131 }),
        (message(1, &[(3, &[0; 11])]), BadMessage::OptionLength { option: 3, len: 11 }),
        (message(1, &[(6, &[0, 23, 0])]), BadMessage::OptionLength { option: 6, len: 3 }),
        (message(1, &[(14, &[0])]), BadMessage::OptionLength { option: 14, len: 1 }),
        (message(1, &[(15, &[0, 9, 1])]), BadMessage::OptionLength { option: 15, len: 3 }),
        (message(1, &[(61, &[0])]), BadMessage::OptionLength { option: 61, len: 1 }),
        (message(1, &many), BadMessage::TooMuch),
        (deep, BadMessage::TooMuch),
        (vec![12; 33], BadMessage::Length(33)),
        (vec![12; 34], BadMessage::Kind(12)),
    ] {
        assert_eq!(Message::parse(&datagram), Err(want.clone()), "{want}");
    }
}

#[test]
fn a_domain_is_told_as_labels_and_no_other_text_is() {
    let told = |text: &str| Options::default().domain(text).0.clone();
    let want = b"\x00\x18\x00\x0d\x03lab\x07example\x00";
    for text in ["lab.example", "lab.example."] {
        assert_eq!(told(text), want, "{text}");
    }
    let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
    let fits = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
    for text in ["", ".", "lab..example", &"a".repeat(64), &long] {
        assert!(told(text).is_empty(), "{text}");
    }
    assert_eq!(told(&fits).len(), 4 + 255);
}

/// What is refused is still told as its client's; what is no client's is not.
#[test]
fn of_a_bad_message_is_read_whose_it_is_and_what_it_asks_for() {
    let class = [&[0, 0, 1, 0x57][..], &[0, 20], b"HTTPClient:Arch:0001"].concat();
    let bad = message(1, &[(61, &[0]), (1, DUID_UUID), (16, &class)]);
    let cut = [&bad[..], &[0, 3, 0, 99, 1]].concat();
    let by_relay = relayed(LINK_LOCAL, LINK_LOCAL, &[], &bad);
    for datagram in [bad.clone(), cut, by_relay] {
        assert!(Message::parse(&datagram).is_err());
        let read = Message::broken(&datagram).unwrap();
        let (whose, asks) = (read.mac(LINK_LOCAL), read.wants_boot());
        assert_eq!((read.kind, whose, asks, read.arch), (Kind::Solicit, Some(MAC), true, None));
        assert_eq!(read.client, DUID_UUID);
    }
    let nobody = Message::broken(&message(1, &[])).unwrap();
    assert_eq!((nobody.mac(LINK_LOCAL), nobody.mac(Ipv6Addr::LOCALHOST)), (Some(MAC), None));
    for kind in [2, 7, 10, 13, 14] {
        assert!(Message::broken(&message(kind, &[])).is_none(), "{kind} is no client's");
    }
    assert!(Message::broken(&[1, 2, 3]).is_none());
}

proptest! {
    #[test]
    fn any_datagram_is_survived(tail in proptest::collection::vec(any::<u8>(), 0..1400), kind in 0u8..14) {
        let mut datagram = vec![kind];
        datagram.extend_from_slice(&tail);
        if let Ok(read) = Message::parse(&datagram) {
            let _ = (read.mac(LINK_LOCAL), read.wants_boot(), read.peer(LINK_LOCAL));
            prop_assert!(read.associations.len() <= MOST_ITEMS && read.relays.len() <= MOST_RELAYS);
        }
        if let Some(read) = Message::broken(&datagram) {
            prop_assert!(read.associations.len() <= MOST_ITEMS && read.relays.len() <= MOST_RELAYS);
        }
        if let Ok(read) = Message::parse_answer(&datagram) {
            prop_assert!(matches!(read.kind, Kind::Advertise | Kind::Reply) && read.relays.is_empty());
        }
    }
}
