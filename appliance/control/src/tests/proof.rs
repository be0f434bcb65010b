//! The proof: it holds on a whole host, refuses a degraded one, and fails when it must.

use super::ready_rack;
use crate::service::Service;
use dayzero_model::ids::HostName;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_refuses_a_degraded_host_and_fails_without_a_leg() {
    let dir = tempfile::tempdir().unwrap();
    let (control, rack) = ready_rack(dir.path(), 1).await;
    let host: HostName = "host1".parse().unwrap();
    let whole = control.prove(&host, None, "test").await.unwrap();
    assert!(whole.held && whole.trials.len() == 8, "{whole:#?}");
    assert!(whole.trials.iter().all(|trial| trial.recovered.is_some() && !trial.bound_is.is_empty()));
    // With one leg out, pulling the other must break the bound: else the proof sees nothing.
    let control_trial = control.prove(&host, Some("pod-a".parse().unwrap()), "test").await.unwrap();
    assert!(!control_trial.held && control_trial.refused.is_none(), "{control_trial:#?}");
    assert!(control_trial.trials[0].gap > control_trial.trials[0].bound);
    assert!(rack.with(&host, |machine| machine.broken.is_empty()), "everything is plugged in again");
    let counted = control.facts(&host).unwrap().proof.clone().unwrap();
    assert_eq!(counted, whole, "a control trial never counts as the host's proof");
    let none = control.prove(&host, Some("storage-a".parse().unwrap()), "test").await.unwrap();
    assert!(none.refused.unwrap().contains("no leg of the bond"));
    // Degraded: a storage path is out before the proof begins.
    super::ready(&control, "host1").await;
    let pulls = rack.pulls.lock().unwrap().len();
    rack.with(&host, |machine| machine.broken.insert("storage-b".parse().unwrap()));
    match control.prove(&host, None, "test").await {
        Ok(report) => assert!(!report.held && report.refused.unwrap().contains("degraded")),
        Err(error) => assert!(error.to_string().contains("not wired"), "{error}"),
    }
    assert_eq!(rack.pulls.lock().unwrap().len(), pulls, "nothing was pulled");
    control.stop().await;
}
