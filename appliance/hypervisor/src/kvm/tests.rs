use super::*;
use dayzero_model::Bytes;
use dayzero_model::storage::VolumeSpec;

const DISK: &str = "/dev/dz-lun0/vol-hello";
const LOG: &str = "/var/log/dayzero/vm/hello.console";

fn spec() -> VmSpec {
    VmSpec {
        name: "hello".parse().unwrap(),
        cpus: 1,
        memory: MebiBytes(256),
        mac: "52:54:00:d2:00:01".parse().unwrap(),
        bridge: "br-guest".into(),
        volume: VolumeSpec {
            name: "vol-hello".parse().unwrap(),
            storage: "lun0".parse().unwrap(),
            size: Bytes(64 << 20),
        },
    }
}

#[test]
fn the_domain_is_as_agreed() {
    insta::assert_snapshot!(domain_xml(&VmDomain::new(&spec(), DISK, LOG).unwrap()));
}

#[test]
fn it_is_well_formed_xml_with_our_values_in_their_places() {
    let xml = domain_xml(&VmDomain::new(&spec(), DISK, LOG).unwrap());
    let mut reader = quick_xml::Reader::from_str(&xml);
    let mut depth = 0;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(_) => depth += 1,
            quick_xml::events::Event::End(_) => depth -= 1,
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
    assert!(!xml.contains("<vlan"), "the bridge carries the guest VLAN untagged");
}

#[test]
fn nothing_that_could_be_other_xml_or_another_file_passes() {
    type Spoil = fn(&mut VmSpec, &mut String, &mut String);
    let cases: [(&str, Spoil); 12] = [
        ("number of CPUs", |vm, _, _| vm.cpus = 0),
        ("number of CPUs", |vm, _, _| vm.cpus = 1000),
        ("memory", |vm, _, _| vm.memory = MebiBytes(1)),
        ("MAC address", |vm, _, _| vm.mac = MacAddr([1, 0, 0, 0, 0, 1])),
        ("bridge", |vm, _, _| vm.bridge = "br'/><hostdev".into()),
        ("bridge", |vm, _, _| vm.bridge = "a-name-that-is-too-long".into()),
        ("disk", |_, disk, _| *disk = "/dev/sda".into()),
        ("disk", |_, disk, _| *disk = "/dev/mapper/../sda".into()),
        ("disk", |_, disk, _| *disk = "/dev/mapper/x'/>".into()),
        ("console log", |_, _, log| *log = "/etc/passwd".into()),
        ("console log", |_, _, log| *log = "/var/log/../../etc/passwd".into()),
        ("console log", |_, _, log| *log = "/var/log/a\nb".into()),
    ];
    for (expected, spoil) in cases {
        let (mut vm, mut disk, mut log) = (spec(), DISK.to_owned(), LOG.to_owned());
        spoil(&mut vm, &mut disk, &mut log);
        let error = VmDomain::new(&vm, &disk, &log).unwrap_err();
        assert!(
            matches!(error, DomainError::Refused { what, .. } if what == expected),
            "{expected}: {error}"
        );
    }
}

#[test]
fn the_uuid_is_stable_and_its_own() {
    let first = VmDomain::new(&spec(), DISK, LOG).unwrap();
    let other = VmDomain::new(&VmSpec { name: "other".parse().unwrap(), ..spec() }, DISK, LOG).unwrap();
    assert_eq!(first.uuid(), VmDomain::new(&spec(), DISK, LOG).unwrap().uuid());
    assert_ne!(first.uuid(), other.uuid());
    assert_eq!(first.uuid().as_bytes()[14], b'8', "version 8");
}
