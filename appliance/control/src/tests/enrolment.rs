//! A perfect clone on the boot network gets nothing, whichever channel vouches, and is reported.

use super::rack::{Key, post_enrol};
use super::ready_rack;
use crate::service::Service;
use dayzero_model::ids::{BootId, HostName};
use dayzero_model::wire::EnrolAnswer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_inside_the_window_gets_no_certificate_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (control, _rack) = ready_rack(dir.path(), 2).await;
    for name in ["host1", "host2"] {
        let host: HostName = name.parse().unwrap();
        control.reset_host(&host, "test").await.unwrap();
        let boot = super::until(
            "a window",
            || control.facts(&host).unwrap().window.as_ref().map(|w| w.window.boot),
            Option::is_some,
        )
        .await;
        // It knows all that the boot network knows: boot id, MAC.
        let mac = control.plan().unwrap().site.host(&host).unwrap().host.bond.nics[0].mac;
        let clone = Key::new();
        let request = clone.request(boot.unwrap(), mac, None);
        let answer = post_enrol(&control, &request, "10.77.0.99").await;
        assert!(!matches!(answer, EnrolAnswer::Granted { .. }), "{name}: {answer:?}");
        super::until("the host enrols", || control.facts(&host).unwrap().vouch.clone(), Option::is_some)
            .await;
        let answer = post_enrol(&control, &request, "10.77.0.99").await;
        assert!(matches!(answer, EnrolAnswer::Refused { .. }), "{name}: {answer:?}");
        let facts = control.facts(&host).unwrap();
        assert_ne!(facts.vouch.as_ref().unwrap().key, clone.fingerprint());
        assert!(
            facts.refused_keys.iter().any(|key| key.key == clone.fingerprint() && key.peer == "10.77.0.99"),
            "{facts:#?}"
        );
        let status = control.status().await.unwrap();
        assert!(
            status.todo.iter().any(|todo| todo.code == "clone-refused" && todo.host.as_ref() == Some(&host))
        );
        let why = control.why(name).await.unwrap();
        assert!(why.findings.iter().any(|finding| finding.rule == "clone-refused"));
    }
    // A boot that never was.
    let request = Key::new().request(BootId(1), "52:54:00:77:01:01".parse().unwrap(), Some("00".repeat(32)));
    assert!(matches!(post_enrol(&control, &request, "10.77.0.99").await, EnrolAnswer::Refused { .. }));
    control.stop().await;
}
