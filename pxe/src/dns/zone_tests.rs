use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// 10.77.0.2 and fd77::10.77.0.2
const US: &[IpAddr] =
    &[IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, 2))];

fn zone() -> Zone {
    let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, last));
    let names = [
        ("host1", vec![IpAddr::from([10, 77, 0, 11]), v6(11)]),
        ("host1-bmc", vec![IpAddr::from([10, 77, 9, 11])]),
        ("wpad", vec![IpAddr::from([10, 77, 0, 66])]),
    ];
    Zone::new(&NameZone {
        domain: "Lab.Example".into(),
        names: names.into_iter().map(|(name, addresses)| (name.parse().unwrap(), addresses)).collect(),
        prefixes: vec![
            Ipv4Prefix { address: Ipv4Addr::new(10, 77, 0, 0), len: 24 },
            Ipv4Prefix { address: Ipv4Addr::new(10, 77, 9, 0), len: 24 },
        ],
        prefixes6: vec![Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0), len: 64 }],
    })
    .unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(message: &Message) -> Message {
    Message::from_vec(&zone().answer(&message.to_vec().unwrap(), US).unwrap()).unwrap()
}

#[test]
fn names_of_the_plan_and_nothing_else() {
    use RecordType::{A, AAAA, ANY, AXFR, IXFR, MX, NS, PTR, SOA};
    use ResponseCode::{NXDomain, NoError, Refused};
    let rows: Vec<(&str, RecordType, ResponseCode, &str)> = vec![
        ("host1.lab.example.", A, NoError, "10.77.0.11"),
        ("HOST1.lab.EXAMPLE.", A, NoError, "10.77.0.11"),
        ("host1.lab.example.", AAAA, NoError, "fd77::a4d:b"),
        ("host1.lab.example.", ANY, NoError, "10.77.0.11"),
        ("host1.lab.example.", MX, NoError, ""),
        ("host1-bmc.lab.example.", A, NoError, "10.77.9.11"),
        ("host1-bmc.lab.example.", AAAA, NoError, ""),
        ("host2.lab.example.", A, NXDomain, ""),
        ("wpad.lab.example.", A, NXDomain, ""),
        ("isatap.lab.example.", A, NXDomain, ""),
        ("ns.lab.example.", A, NoError, "10.77.0.2"),
        ("ns.lab.example.", AAAA, NoError, "fd77::a4d:2"),
        ("lab.example.", NS, NoError, "ns.lab.example."),
        ("lab.example.", SOA, NoError, "ns.lab.example. hostmaster.lab.example. 1 3600 600 86400 60"),
        ("11.0.77.10.in-addr.arpa.", PTR, NoError, "host1.lab.example."),
        ("11.9.77.10.in-addr.arpa.", PTR, NoError, "host1-bmc.lab.example."),
        ("66.0.77.10.in-addr.arpa.", PTR, NXDomain, ""),
        (
            "0.77.10.in-addr.arpa.",
            SOA,
            NoError,
            "ns.lab.example. hostmaster.lab.example. 1 3600 600 86400 60",
        ),
        ("11.1.77.10.in-addr.arpa.", PTR, Refused, ""),
        ("77.10.in-addr.arpa.", PTR, Refused, ""),
        (
            "b.0.0.0.d.4.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa.",
            PTR,
            NoError,
            "host1.lab.example.",
        ),
        ("a.0.0.0.d.4.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa.", PTR, NXDomain, ""),
        ("debian.org.", A, Refused, ""),
        ("example.", A, Refused, ""),
        (".", NS, Refused, ""),
        ("lab.example.", AXFR, Refused, ""),
        ("lab.example.", IXFR, Refused, ""),
    ];
    for (name, kind, code, want) in rows {
        let got = ask(&question(name, kind));
        let shown: Vec<String> = got.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!((got.metadata.response_code, shown.join(" ").as_str()), (code, want), "{name} {kind}");
        assert!(!got.metadata.recursion_available, "{name}");
        let negative = code != Refused && want.is_empty();
        let soa = got.authorities.iter().any(|record| record.data.record_type() == SOA);
        assert_eq!(soa, negative, "{name} {kind}: how long a no may be kept");
        assert_eq!(got.metadata.authoritative, code != Refused, "{name} {kind}");
    }
}

#[test]
fn what_is_no_plain_question_is_refused_in_kind() {
    let zone = zone();
    let mut two = question("host1.lab.example.", RecordType::A);
    two.add_query(Query::query(Name::root(), RecordType::A));
    assert_eq!(ask(&two).metadata.response_code, ResponseCode::FormErr);
    let mut update = question("host1.lab.example.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(ask(&update).metadata.response_code, ResponseCode::NotImp);
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(ask(&chaos).metadata.response_code, ResponseCode::Refused);
    let mut later = question("host1.lab.example.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    later.set_edns(edns);
    // 16 is BADVERS here; the decoder calls it by its other name, of signatures.
    assert_eq!(u16::from(ask(&later).metadata.response_code), 16);

    let answer = ask(&question("host1.lab.example.", RecordType::A)).to_vec().unwrap();
    assert_eq!(zone.answer(&answer, US), None, "an answer is not answered");
    assert_eq!(zone.answer(b"short", US), None);
    let garbage = [7, 7, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xc0];
    let said = Message::from_vec(&zone.answer(&garbage, US).unwrap()).unwrap();
    assert_eq!((said.metadata.id, said.metadata.response_code), (0x0707, ResponseCode::FormErr));
}

#[test]
fn a_domain_that_is_none_has_no_zone() {
    let names = |domain: &str| NameZone { domain: domain.into(), ..NameZone::default() };
    assert!(Zone::new(&names("lab.example")).is_some());
    assert!(Zone::new(&names(&"a".repeat(64))).is_none());
}

proptest! {
    #[test]
    fn any_datagram_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), head in any::<bool>()) {
        if head {
            let good = question("host1.lab.example.", RecordType::A).to_vec().unwrap();
            bytes.splice(0..bytes.len().min(12), good);
        }
        if let Some(answer) = zone().answer(&bytes, US) {
            prop_assert!(answer.len() <= bytes.len() + 300, "{} for {}", answer.len(), bytes.len());
        }
    }
}
