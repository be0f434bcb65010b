//! Enrolment over a real store: clones, races, lost answers, restarts.
use super::*;
use crate::KeySource;
use dayzero_model::MacAddr;
use dayzero_model::wire::VERSION;
use dayzero_store::{Options, Store};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

const NOW: Timestamp = Timestamp(1_000_000);
const TTL: Millis = Millis(60_000);

fn site(dir: &std::path::Path) -> Enrolment {
    let store = Store::open(&dir.join("data"), Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::File(dir.join("key"))).unwrap();
    let ca = SiteCa::open(&vault).unwrap();
    Enrolment::new(&vault, &ca)
}

struct Machine {
    csr: String,
    public_key: String,
    key: Sha256,
}

fn machine() -> Machine {
    let pair = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    let spki = pair.subject_public_key_info();
    Machine { csr, public_key: BASE64.encode(&spki), key: Sha256::of(&spki) }
}

impl Machine {
    fn request(&self, boot: BootId, nonce: Option<&str>) -> EnrolRequest {
        EnrolRequest {
            version: VERSION,
            boot,
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            public_key: self.public_key.clone(),
            csr: self.csr.clone(),
            nonce: nonce.map(str::to_owned),
        }
    }
}

fn host() -> HostName {
    "host1".parse().unwrap()
}

#[tokio::test]
async fn the_nonce_from_the_virtual_medium_gets_one_key_its_certificate_and_the_clone_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = site(dir.path());
    let opened = enrolment.open_window(&host(), Channel::VirtualMedia, NOW, TTL).await.unwrap();
    let nonce = opened.nonce.unwrap();
    assert_eq!(enrolment.nonce(opened.boot).unwrap(), Some(nonce.clone()));
    let (real, clone) = (machine(), machine());
    let early = enrolment.enrol(&clone.request(opened.boot, None), "10.77.0.66", NOW).await.unwrap();
    assert!(
        matches!(&early, Enrolled::Refused { refusal, .. } if refusal.reason == RefusalReason::NoNonce),
        "{early:?}"
    );
    let granted =
        enrolment.enrol(&real.request(opened.boot, Some(nonce.expose())), "10.77.0.11", NOW).await.unwrap();
    let Enrolled::Granted { host: named, vouch, answer, .. } = &granted else { panic!("{granted:?}") };
    assert_eq!((named, vouch.key, vouch.channel), (&host(), real.key, Channel::VirtualMedia));
    assert!(matches!(answer, EnrolAnswer::Granted { .. }));
    let again = enrolment.enrol(&real.request(opened.boot, None), "10.77.0.11", NOW).await.unwrap();
    assert_eq!(again, granted, "a lost answer is given again, the same certificate");
    for first in [true, false] {
        let late = enrolment
            .enrol(&clone.request(opened.boot, Some(nonce.expose())), "10.77.0.66", NOW)
            .await
            .unwrap();
        let Enrolled::Refused { host: of, refusal, first: new, answer } = late else { panic!("{late:?}") };
        assert_eq!((of, new), (Some(host()), first));
        assert_eq!(
            (refusal.key, refusal.vouched, refusal.reason),
            (clone.key, Some(real.key), RefusalReason::SecondKey)
        );
        assert!(matches!(answer, EnrolAnswer::Refused { reason } if reason.contains("second machine")));
    }
    let window = enrolment.window(opened.boot).unwrap().unwrap();
    assert_eq!(
        window.refused.iter().map(|r| r.reason).collect::<Vec<_>>(),
        [RefusalReason::NoNonce, RefusalReason::SecondKey]
    );
    enrolment.close(opened.boot, NOW).await.unwrap();
    assert!(enrolment.nonce(opened.boot).unwrap().is_none());
    let closed = enrolment.enrol(&real.request(opened.boot, None), "10.77.0.11", NOW).await.unwrap();
    assert!(matches!(closed, Enrolled::Refused { refusal, .. } if refusal.reason == RefusalReason::Closed));
}

#[tokio::test]
async fn over_the_serial_console_a_key_waits_until_its_fingerprint_was_read_there() {
    let dir = tempfile::tempdir().unwrap();
    let (real, clone) = (machine(), machine());
    let boot = {
        let enrolment = site(dir.path());
        let opened = enrolment.open_window(&host(), Channel::SerialOverLan, NOW, TTL).await.unwrap();
        assert!(opened.nonce.is_none());
        for machine in [&real, &clone] {
            let waits = enrolment.enrol(&machine.request(opened.boot, None), "p", NOW).await.unwrap();
            assert!(matches!(waits, Enrolled::Wait { .. }), "{waits:?}");
        }
        let vouch = |key| enrolment.vouch_by_fingerprint(opened.boot, key, Channel::SerialOverLan, NOW);
        assert_eq!(vouch(real.key).await.unwrap(), Decision::Grant);
        assert_eq!(vouch(real.key).await.unwrap(), Decision::Grant, "the line is printed again and again");
        assert_eq!(vouch(clone.key).await.unwrap(), Decision::Refuse(RefusalReason::SecondKey));
        opened.boot
    };
    // The appliance restarts between vouch and request.
    let enrolment = site(dir.path());
    let refused = enrolment.enrol(&clone.request(boot, None), "p", NOW).await.unwrap();
    assert!(
        matches!(refused, Enrolled::Refused { refusal, .. } if refusal.reason == RefusalReason::SecondKey)
    );
    let granted = enrolment.enrol(&real.request(boot, None), "p", NOW).await.unwrap();
    assert!(matches!(granted, Enrolled::Granted { vouch, .. } if vouch.channel == Channel::SerialOverLan));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_at_once_with_the_right_nonce_one_key_wins() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = site(dir.path());
    let opened = enrolment.open_window(&host(), Channel::VirtualMedia, NOW, TTL).await.unwrap();
    let nonce = opened.nonce.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..12 {
        let (enrolment, nonce, boot) = (enrolment.clone(), nonce.clone(), opened.boot);
        tasks.spawn(async move {
            let machine = machine();
            enrolment
                .enrol(&machine.request(boot, Some(nonce.expose())), &format!("p{i}"), NOW)
                .await
                .unwrap()
        });
    }
    let mut granted = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Enrolled::Granted { .. } => granted += 1,
            Enrolled::Refused { refusal, .. } => assert_eq!(refusal.reason, RefusalReason::SecondKey),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn a_new_window_closes_the_host_s_old_ones_and_old_records_go() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = site(dir.path());
    let mut boots = Vec::new();
    for i in 0..8 {
        let opened =
            enrolment.open_window(&host(), Channel::VirtualMedia, NOW.plus(Millis(i)), TTL).await.unwrap();
        boots.push((opened.boot, opened.nonce.unwrap()));
    }
    let other: HostName = "host2".parse().unwrap();
    enrolment.open_window(&other, Channel::SerialOverLan, NOW, TTL).await.unwrap();
    let (last, _) = boots[7];
    assert_eq!(enrolment.open_window_of(&host(), NOW).unwrap().unwrap().0, last);
    let (old, nonce) = &boots[6];
    let refused = enrolment.enrol(&machine().request(*old, Some(nonce.expose())), "p", NOW).await.unwrap();
    assert!(matches!(refused, Enrolled::Refused { refusal, .. } if refusal.reason == RefusalReason::Closed));
    let kept = boots.iter().filter(|(boot, _)| enrolment.window(*boot).unwrap().is_some()).count();
    assert_eq!(kept, KEEP + 1);
    let gone = enrolment.enrol(&machine().request(boots[0].0, None), "p", NOW).await.unwrap();
    assert!(
        matches!(gone, Enrolled::Refused { host: None, refusal, .. } if refusal.reason == RefusalReason::NoWindow)
    );
    assert!(enrolment.open_window_of(&host(), NOW.plus(Millis(70_000))).unwrap().is_none(), "expired");
}

#[tokio::test]
async fn malformed_requests_are_the_sender_s_fault_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = site(dir.path());
    let opened = enrolment.open_window(&host(), Channel::VirtualMedia, NOW, TTL).await.unwrap();
    let good = machine().request(opened.boot, Some(opened.nonce.as_ref().unwrap().expose()));
    let broken = [
        EnrolRequest { version: VERSION + 1, ..good.clone() },
        EnrolRequest { csr: "no pem".into(), ..good.clone() },
        EnrolRequest { public_key: machine().public_key, ..good.clone() },
        EnrolRequest { public_key: "%%".into(), ..good.clone() },
        EnrolRequest { nonce: Some("ab".into()), ..good.clone() },
        EnrolRequest { nonce: Some("z".repeat(64)), ..good.clone() },
    ];
    for request in broken {
        let error = enrolment.enrol(&request, "p", NOW).await.unwrap_err();
        assert!(matches!(error, TrustError::BadRequest { .. }), "{error}");
    }
    assert!(matches!(enrolment.enrol(&good, "p", NOW).await.unwrap(), Enrolled::Granted { .. }));
}
