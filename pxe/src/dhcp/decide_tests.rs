use super::*;
use dayzero_model::BootId;
use dayzero_model::boot::BootWindow;

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PREFIX: Ipv4Prefix = Ipv4Prefix { address: Ipv4Addr::new(10, 77, 0, 0), len: 24 };

fn host(window: bool) -> Client {
    let host: dayzero_model::HostName = "host1".parse().unwrap();
    let window = window.then(|| BootWindow { boot: BootId(7), host: host.clone() });
    Client::Host { host, address: A, window, uuid: None, chain: dayzero_model::boot::Chain::Ipxe }
}

fn bmc(address: Ipv4Addr) -> Client {
    Client::Bmc { host: "host1".parse().unwrap(), address }
}

fn vm(address: Option<Ipv4Addr>) -> Client {
    Client::Vm { name: "hello".parse().unwrap(), address }
}

fn pdu() -> Client {
    Client::Fixed { name: "pdu1".parse().unwrap(), address: A }
}

fn loaders() -> Loaders {
    let mut loaders = Loaders { uefi_x86: Some("snponly-32.efi".into()), ..Loaders::default() };
    loaders.secure.uki = Chain::Uki.loader().map(str::to_owned);
    loaders.secure.shim = Chain::Shim.loader().map(str::to_owned);
    loaders
}

/// A plain client of a management network that sends a DISCOVER.
fn plain(loaders: &Loaders) -> Asking<'_> {
    Asking {
        step: Step::Discover(None),
        role: NetworkRole::Management,
        prefix: PREFIX,
        mode: DhcpMode::Serve,
        pool: None,
        wants_boot: false,
        ipxe: false,
        http: false,
        https: false,
        arch: None,
        identity: Identity::Untold,
        stage: Stage::Firmware,
        loaders,
    }
}

fn offer(boot: Boot) -> Answer {
    Answer::Offer(A, boot)
}

fn ack(boot: Boot) -> Answer {
    Answer::Ack(A, boot)
}

fn loader(name: &str) -> Boot {
    Boot::Loader(name.into())
}

type Change = fn(&mut Asking<'_>);
type Row = (&'static str, Client, Change, Answer);

fn check(rows: Vec<Row>) {
    let loaders = loaders();
    for (what, client, change, want) in rows {
        let mut asking = plain(&loaders);
        change(&mut asking);
        assert_eq!(decide(&client, &asking), want, "{what}");
    }
}

fn pxe(a: &mut Asking<'_>, arch: Arch) {
    (a.wants_boot, a.arch) = (true, Some(arch));
}

fn ipxe(a: &mut Asking<'_>, arch: Arch, stage: Stage) {
    pxe(a, arch);
    (a.ipxe, a.stage) = (true, stage);
}

#[test]
#[rustfmt::skip]
fn reservations_of_every_kind_in_every_state() {
    use NetworkRole::{Bmc, Guest, Management, Storage};
    use Silence::{Foreign, NotHere, Nothing, WrongNetwork};
    let silent = Answer::Silent;
    check(vec![
        ("BMC", bmc(A), |a| a.role = Bmc, offer(Boot::Nothing)),
        ("BMC that PXE-boots", bmc(A), |a| { a.role = Bmc; pxe(a, Arch::Bios) }, offer(Boot::Nothing)),
        ("BMC takes the offer", bmc(A), |a| { a.role = Bmc; a.step = Step::Select(A) }, ack(Boot::Nothing)),
        ("BMC that rebooted, with its address", bmc(A), |a| { a.role = Bmc; a.step = Step::Reboot(A) }, ack(Boot::Nothing)),
        ("BMC that rebooted, with an old address", bmc(A), |a| { a.role = Bmc; a.step = Step::Reboot(B) }, Answer::Refuse(A)),
        ("BMC renews", bmc(A), |a| { a.role = Bmc; a.step = Step::Renew(A) }, ack(Boot::Nothing)),
        ("BMC renews what the plan took from it", bmc(A), |a| { a.role = Bmc; a.step = Step::Renew(B) }, Answer::Refuse(A)),
        ("BMC asks for nothing", bmc(A), |a| { a.role = Bmc; a.step = Step::Nothing }, silent(Nothing)),
        ("BMC on the hosts' network", bmc(A), |a| a.role = Management, silent(WrongNetwork)),
        ("BMC planned elsewhere", bmc(FAR), |a| a.role = Bmc, silent(NotHere(FAR))),
        ("power strip", pdu(), |a| a.role = Bmc, offer(Boot::Nothing)),
        ("switch on the hosts' network", pdu(), |a| a.step = Step::Renew(A), ack(Boot::Nothing)),
        ("installed host", host(false), |_| {}, offer(Boot::Nothing)),
        ("installed host renews", host(false), |a| a.step = Step::Renew(A), ack(Boot::Nothing)),
        ("installed host that rebooted", host(false), |a| a.step = Step::Reboot(A), ack(Boot::Nothing)),
        ("installed host informs itself", host(false), |a| a.step = Step::Inform(A), Answer::Inform(Boot::Nothing)),
        ("INFORM from anywhere", host(false), |a| a.step = Step::Inform(FAR), silent(Foreign(FAR))),
        ("host takes another server's offer", host(true), |a| a.step = Step::Elsewhere(B), silent(Silence::Elsewhere(B))),
        ("host on the BMCs' network", host(true), |a| { a.role = Bmc; pxe(a, Arch::Bios) }, silent(WrongNetwork)),
        ("host on a storage network", host(true), |a| { a.role = Storage; pxe(a, Arch::Bios) }, silent(WrongNetwork)),
        ("VM with a reservation", vm(Some(A)), |a| a.role = Guest, offer(Boot::Nothing)),
        ("VM that PXE-boots", vm(Some(A)), |a| { a.role = Guest; ipxe(a, Arch::Bios, Stage::Firmware) }, offer(Boot::Nothing)),
        ("VM on the hosts' network", vm(Some(A)), |_| {}, silent(WrongNetwork)),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_a_host_boots() {
    use Arch::{Bios, Other, UefiArm64, UefiArm64Http, UefiX64, UefiX64Http, UefiX86};
    use Stage::{Firmware, Loader};
    check(vec![
        ("BIOS firmware, window", host(true), |a| pxe(a, Bios), offer(loader("undionly.kpxe"))),
        ("its REQUEST", host(true), |a| { pxe(a, Bios); a.step = Step::Select(A) }, ack(loader("undionly.kpxe"))),
        ("old BIOS firmware that names no architecture", host(true), |a| a.wants_boot = true, offer(loader("undionly.kpxe"))),
        ("UEFI firmware, window", host(true), |a| pxe(a, UefiX64), offer(loader("snponly.efi"))),
        ("32-bit UEFI, where there is a loader", host(true), |a| pxe(a, UefiX86), offer(loader("snponly-32.efi"))),
        ("firmware that was reset while the loader ran", host(true), |a| { pxe(a, UefiX64); a.stage = Loader }, offer(loader("snponly.efi"))),
        ("UEFI HTTP boot, window", host(true), |a| { pxe(a, UefiX64Http); a.http = true }, offer(Boot::HttpLoader("snponly.efi".into()))),
        ("UEFI HTTP boot, its firmware trusts us", host(true), |a| { pxe(a, UefiX64Http); a.http = true; a.https = true }, offer(Boot::HttpsLoader("snponly.efi".into()))),
        ("UEFI PXE, its firmware trusts us", host(true), |a| { pxe(a, UefiX64); a.https = true }, offer(loader("snponly.efi"))),
        ("UEFI HTTP boot that names the PXE architecture", host(true), |a| { pxe(a, UefiX64); a.http = true }, offer(Boot::HttpLoader("snponly.efi".into()))),
        ("UEFI HTTP boot of arm64 without a loader", host(true), |a| { pxe(a, UefiArm64Http); a.http = true }, offer(Boot::NoLoader(Some(UefiArm64Http)))),
        ("iPXE of a BIOS ROM, window", host(true), |a| ipxe(a, Bios, Firmware), offer(loader("undionly.kpxe"))),
        ("iPXE of a UEFI ROM, window", host(true), |a| ipxe(a, UefiX64, Firmware), offer(loader("snponly.efi"))),
        ("our iPXE, window", host(true), |a| ipxe(a, Bios, Loader), offer(Boot::Script)),
        ("our iPXE's REQUEST", host(true), |a| { ipxe(a, Bios, Loader); a.step = Step::Select(A) }, ack(Boot::Script)),
        ("the agent's kernel, which asks for no file", host(true), |a| a.stage = Loader, offer(Boot::Nothing)),
        ("the agent renews", host(true), |a| { a.stage = Loader; a.step = Step::Renew(A) }, ack(Boot::Nothing)),
        ("firmware that PXEs first although it should not", host(false), |a| pxe(a, Bios), offer(loader("undionly.kpxe"))),
        ("the same by UEFI HTTP boot", host(false), |a| { pxe(a, UefiX64Http); a.http = true }, offer(Boot::HttpLoader("snponly.efi".into()))),
        ("iPXE of a ROM, no window: it can run the script that leaves", host(false), |a| ipxe(a, Bios, Firmware), offer(Boot::Script)),
        ("our iPXE, window closed meanwhile", host(false), |a| ipxe(a, UefiX64, Loader), offer(Boot::Script)),
        ("arm64 without a loader", host(true), |a| pxe(a, UefiArm64), offer(Boot::NoLoader(Some(UefiArm64)))),
        ("an architecture that nobody builds for", host(true), |a| pxe(a, Other(2)), offer(Boot::NoLoader(Some(Other(2))))),
        ("planned UUID", host(true), |a| { pxe(a, Bios); a.identity = Identity::Fits }, offer(loader("undionly.kpxe"))),
        ("another machine with this host's NIC", host(true), |a| { pxe(a, Bios); a.identity = Identity::Differs }, offer(Boot::OtherMachine)),
        ("the same, at our iPXE", host(true), |a| { ipxe(a, Bios, Loader); a.identity = Identity::Differs }, offer(Boot::OtherMachine)),
        ("another machine's OS", host(false), |a| a.identity = Identity::Differs, offer(Boot::Nothing)),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_a_host_boots_under_secure_boot() {
    let by = |chain, window| {
        let Client::Host { host, address, window, uuid, .. } = host(window) else { panic!("it is a host") };
        Client::Host { host, address, window, uuid, chain }
    };
    let (uki, shim) = (by(Chain::Uki, true), by(Chain::Shim, true));
    check(vec![
        ("UKI by PXE", uki.clone(), |a| pxe(a, Arch::UefiX64), offer(loader("uki.efi"))),
        ("UKI by HTTP", uki.clone(), |a| { pxe(a, Arch::UefiX64Http); a.http = true }, offer(Boot::HttpLoader("uki.efi".into()))),
        ("UKI over an iPXE in ROM", uki.clone(), |a| ipxe(a, Arch::UefiX64, Stage::Firmware), offer(loader("uki.efi"))),
        ("its agent, which only wants an address", uki.clone(), |_| {}, offer(Boot::Nothing)),
        ("BIOS, which knows no Secure Boot", uki.clone(), |a| pxe(a, Arch::Bios), offer(loader("undionly.kpxe"))),
        ("shim", shim, |a| pxe(a, Arch::UefiX64), offer(loader("shim/shimx64.efi"))),
        ("shim, which cannot go on by HTTP", by(Chain::Shim, true), |a| { pxe(a, Arch::UefiX64Http); a.http = true }, offer(Boot::NothingSigned(Chain::Shim))),
        ("nothing signed for it", by(Chain::Mok, true), |a| pxe(a, Arch::UefiX64), offer(Boot::NothingSigned(Chain::Mok))),
        ("no window: on to the disk", by(Chain::Uki, false), |a| pxe(a, Arch::UefiX64), offer(Boot::NoWindow)),
        ("no window, beside another server", by(Chain::Uki, false), |a| { a.mode = DhcpMode::Proxy; pxe(a, Arch::UefiX64) }, Answer::Proxy(Boot::NoWindow)),
        ("another machine", uki, |a| { pxe(a, Arch::UefiX64); a.identity = Identity::Differs }, offer(Boot::OtherMachine)),
    ]);
}

#[test]
#[rustfmt::skip]
fn clients_without_a_reservation() {
    use NetworkRole::{Bmc, Guest};
    use PoolFor::{All, Ours};
    let silent = Answer::Silent;
    let bind = |address, remembered| Answer::PoolBind { address, remembered };
    check(vec![
        ("unknown PXE client", Client::Unknown, |a| pxe(a, Arch::Bios), silent(Silence::Pending)),
        ("unknown client", Client::Unknown, |a| a.role = Bmc, silent(Silence::Pending)),
        ("unknown client that renews", Client::Unknown, |a| a.step = Step::Renew(B), silent(Silence::Pending)),
        ("unknown on a closed guest pool", Client::Unknown, |a| { a.role = Guest; a.pool = Some(Ours) }, silent(Silence::Pending)),
        ("unknown on an open pool", Client::Unknown, |a| { a.role = Guest; a.pool = Some(All) }, Answer::PoolOffer(None)),
        ("its wish", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Discover(Some(B)) }, Answer::PoolOffer(Some(B))),
        ("it takes the offer", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Select(B) }, bind(B, false)),
        ("it started again", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Reboot(B) }, bind(B, true)),
        ("it renews", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Renew(B) }, bind(B, true)),
        ("it informs itself", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Inform(B) }, Answer::Inform(Boot::Nothing)),
        ("from elsewhere", Client::Unknown, |a| { a.pool = Some(All); a.step = Step::Inform(FAR) }, silent(Silence::Foreign(FAR))),
        ("VM without a reservation", vm(None), |a| { a.role = Guest; a.pool = Some(Ours) }, Answer::PoolOffer(None)),
        ("VM without pool", vm(None), |a| a.role = Guest, silent(Silence::NoPool)),
    ]);
}

#[test]
#[rustfmt::skip]
fn beside_another_server_only_boots_are_answered() {
    let silent = Answer::Silent;
    let expected = Answer::Silent(Silence::Expected);
    check(vec![
        ("host that boots", host(true), |a| { a.mode = DhcpMode::Proxy; pxe(a, Arch::UefiX64) }, Answer::Proxy(loader("snponly.efi"))),
        ("it asks the boot server", host(true), |a| { a.mode = DhcpMode::Proxy; a.step = Step::BootServer; pxe(a, Arch::UefiX64) }, Answer::Proxy(loader("snponly.efi"))),
        ("our iPXE", host(true), |a| { a.mode = DhcpMode::Proxy; ipxe(a, Arch::Bios, Stage::Loader) }, Answer::Proxy(Boot::Script)),
        ("a ROM's iPXE without a window", host(false), |a| { a.mode = DhcpMode::Proxy; ipxe(a, Arch::Bios, Stage::Firmware) }, Answer::Proxy(Boot::Script)),
        ("it takes that server's offer", host(true), |a| { a.mode = DhcpMode::Proxy; a.step = Step::Elsewhere(B); pxe(a, Arch::Bios) }, expected.clone()),
        ("it renews", host(true), |a| { a.mode = DhcpMode::Proxy; a.step = Step::Renew(B) }, expected.clone()),
        ("installed host", host(false), |a| a.mode = DhcpMode::Proxy, expected.clone()),
        ("BMC", bmc(A), |a| { a.mode = DhcpMode::Proxy; a.role = NetworkRole::Bmc }, expected.clone()),
        ("unknown client that boots", Client::Unknown, |a| { a.mode = DhcpMode::Proxy; pxe(a, Arch::Bios) }, silent(Silence::Pending)),
        ("unknown client", Client::Unknown, |a| a.mode = DhcpMode::Proxy, expected),
        ("off", host(true), |a| { a.mode = DhcpMode::Off; pxe(a, Arch::Bios) }, silent(Silence::Off)),
    ]);
}

#[test]
fn identity_knows_both_byte_orders_and_junk() {
    let planned = Some("00112233-4455-6677-8899-aabbccddeeff");
    for (told, want) in [
        (Some("00112233-4455-6677-8899-AABBCCDDEEFF"), Identity::Fits),
        (Some("33221100-5544-7766-8899-aabbccddeeff"), Identity::Fits),
        (Some("33221100-5544-7766-9988-aabbccddeeff"), Identity::Differs),
        (Some("00000000-0000-0000-0000-000000000000"), Identity::Untold),
        (Some("ffffffff-ffff-ffff-ffff-ffffffffffff"), Identity::Untold),
        (Some("03000200-0400-0500-0006-000700080009"), Identity::Untold),
        (Some("Not Settable"), Identity::Untold),
        (None, Identity::Untold),
    ] {
        assert_eq!(identity(told, planned), want, "{told:?}");
    }
    assert_eq!(identity(planned, None), Identity::Untold);
    assert_eq!(identity(planned, Some("03000200-0400-0500-0006-000700080009")), Identity::Untold);
}
