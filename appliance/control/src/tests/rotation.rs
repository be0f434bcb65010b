//! Rotating a BMC's credential, by the real code and a store on disk, with the process ended right after each of its effects
//! on the BMC and right after each of its commits: nobody is ever locked out, and the next process finishes what was begun.

use super::rack::{FACTORY, Rack};
use super::{open, request, site, until};
use crate::control::Control;
use crate::service::Service;
use dayzero_model::facts::CredentialPhase;
use dayzero_model::ids::HostName;
use dayzero_model::site::Host;
use dayzero_trust::CredentialRecord;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a process ends.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Nowhere,
    /// Right after so many commits.
    Commit(i64),
    /// Right after so many effects on a BMC; nothing is committed any more.
    Effect(i64),
}

fn planned() -> Host {
    site(1).hosts().next().unwrap().host.clone()
}

/// One process, until the rotation is through or it dies. Whether it died, and its commits and effects.
fn run(dir: &Path, rack: &Arc<Rack>, cut: Cut) -> (bool, i64, i64) {
    let (commits, effects) = match cut {
        Cut::Nowhere => (i64::MAX, i64::MAX),
        Cut::Commit(at) => (at, i64::MAX),
        Cut::Effect(at) => (i64::MAX, at),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let died = runtime.block_on(async {
        let control = open(dir, rack);
        control.commits_left.store(commits, Ordering::SeqCst);
        rack.effects_left.store(effects, Ordering::SeqCst);
        let died = control.cancel.clone();
        let life = async {
            control.start();
            let base = control.plan().map(|plan| plan.hash);
            control.apply(request(site(1), base), "test").await.unwrap();
            let phase = || control.facts(&planned().name).map(|facts| facts.credential);
            until("the rotation", phase, |phase| *phase == Some(CredentialPhase::FactoryDisabled)).await;
        };
        let died = tokio::select! {
            () = died.cancelled() => true,
            () = life => false,
        };
        let left = control.commits_left.load(Ordering::SeqCst);
        if !died {
            control.stop().await;
        }
        (died, commits - left, effects - rack.effects_left.load(Ordering::SeqCst))
    });
    runtime.shutdown_background();
    died
}

/// What is stored of a BMC's credential, as a new process reads it.
fn stored(control: &Control) -> Option<CredentialRecord> {
    control.plan()?;
    Some(control.credential_record(&planned()).unwrap())
}

/// Stored credentials that the BMC takes.
fn accepted(record: &CredentialRecord, rack: &Rack) -> Vec<String> {
    let host = planned().name;
    let works = |user: &str, password: &str| rack.account(&host, user).as_deref() == Some(password);
    record
        .candidates()
        .into_iter()
        .filter(|credential| works(&credential.user, credential.password.expose()))
        .map(|credential| credential.user.clone())
        .collect()
}

#[test]
fn whenever_it_is_cut_a_stored_credential_works_and_the_next_process_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let (died, commits, effects) = run(dir.path(), &Rack::new(&site(1)), Cut::Nowhere);
    assert!(!died);
    assert_eq!(effects, 2, "our account is set, the factory's disabled");
    let cuts = (1..=commits).map(Cut::Commit).chain((1..=effects).map(Cut::Effect));
    let mut seen = BTreeSet::new();
    for cut in cuts {
        seen.extend(cut_and_go_on(cut));
    }
    // Not one of the ways is left out.
    for (state, ours, factory) in [
        ("factory", false, true),
        ("pending-stored", false, true),
        ("pending-stored", true, true),
        ("applied", true, true),
        ("applied", true, false),
        ("factory-disabled", true, false),
    ] {
        assert!(seen.contains(&(state, ours, factory)), "{state}, {ours}, {factory}: of {seen:?}");
    }
}

/// State of the record after a cut, and whether the BMC had our account and the factory's then.
fn cut_and_go_on(cut: Cut) -> Option<(&'static str, bool, bool)> {
    let host: HostName = planned().name;
    let dir = tempfile::tempdir().unwrap();
    let rack = Rack::new(&site(1));
    let (died, ..) = run(dir.path(), &rack, cut);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ours, factory) = (rack.account(&host, "dayzero"), rack.account(&host, "root"));
    let record = runtime.block_on(async { stored(&open(dir.path(), &rack)) });
    drop(runtime);
    match &record {
        None => assert!(ours.is_none() && factory.as_deref() == Some(FACTORY), "{cut:?}: nothing is stored"),
        Some(record) => {
            assert!(!accepted(record, &rack).is_empty(), "{cut:?}: locked out with a record {record:?}");
            let mut known = record.candidates().into_iter().map(|credential| credential.password.expose());
            assert!(
                ours.as_ref().is_none_or(|sent| known.any(|known| known == sent)),
                "{cut:?}: the BMC has a password of ours that is not stored"
            );
        }
    }

    let (again, ..) = run(dir.path(), &rack, Cut::Nowhere);
    assert!(!again, "{cut:?} ({died}): the next process did not come to its end");
    assert_eq!(rack.account(&host, "root"), None, "{cut:?}: the factory's account is open");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = runtime.block_on(async { stored(&open(dir.path(), &rack)) }).unwrap();
    assert_eq!(end.state(), "factory-disabled", "{cut:?}");
    assert_eq!(accepted(&end, &rack), ["dayzero"], "{cut:?}: ours is stored and works");
    record.map(|record| (record.state(), ours.is_some(), factory.is_some()))
}
