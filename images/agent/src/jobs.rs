//! Orders under way. They outlive the connection that brought them: the appliance may restart while a host installs,
//! asks again, and is attached to the work that goes on.

use crate::orders::{self, Host};
use dayzero_model::Sha256;
use dayzero_model::wire::{AgentError, FromAgent, Order, Report};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

/// What an order is doing now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What is being done.
    pub what: String,
    /// Done so far.
    pub done: u64,
    /// Of so many; 0 = unknown.
    pub total: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    step: Step,
    result: Option<Result<Report, AgentError>>,
}

/// Reports progress of one order.
#[derive(Clone)]
pub struct Reporter(Arc<watch::Sender<State>>);

impl Reporter {
    /// Says what is being done.
    pub fn step(&self, what: &str, done: u64, total: u64) {
        self.0.send_modify(|state| state.step = Step { what: what.to_owned(), done, total });
    }
}

/// All orders of this boot, by content.
#[derive(Default)]
pub struct Jobs {
    known: Mutex<HashMap<Sha256, watch::Receiver<State>>>,
}

impl Jobs {
    /// Starts an order, or attaches to the same one: while it runs, and for an installation also once it succeeded
    /// in this boot (it is destructive, and done). Progress and result go to `out` under `id`.
    pub fn take(&self, host: &Arc<Host>, id: u64, order: Order, out: mpsc::Sender<FromAgent>) {
        let key = Sha256::of(&serde_json::to_vec(&order).unwrap_or_default());
        let Ok(mut known) = self.known.lock() else { return };
        known.retain(|_, job| {
            job.borrow().result.is_none() || matches!(job.borrow().result, Some(Ok(Report::Installed(_))))
        });
        let receiver = known.entry(key).or_insert_with(|| start(host.clone(), order)).clone();
        drop(known);
        tokio::task::spawn_local(forward(receiver, id, out));
    }
}

fn start(host: Arc<Host>, order: Order) -> watch::Receiver<State> {
    let (sender, receiver) = watch::channel(State::default());
    let reporter = Reporter(Arc::new(sender));
    tokio::task::spawn_local(async move {
        let result = orders::carry_out(&host, order, &reporter).await;
        reporter.0.send_modify(|state| state.result = Some(result));
    });
    receiver
}

async fn forward(mut job: watch::Receiver<State>, id: u64, out: mpsc::Sender<FromAgent>) {
    let mut told = Step::default();
    loop {
        let State { step, result } = job.borrow_and_update().clone();
        if step != told {
            told = step.clone();
            let Step { what, done, total } = step;
            if out.send(FromAgent::Progress { id, what, done, total }).await.is_err() {
                return;
            }
        }
        if let Some(result) = result {
            let _ = out.send(FromAgent::Done { id, result }).await;
            return;
        }
        if job.changed().await.is_err() {
            let lost = AgentError {
                code: "agent-failed".to_owned(),
                sentence: "the order's task ended without a result".to_owned(),
                expected: "a result".to_owned(),
                observed: "none".to_owned(),
                finding: None,
            };
            let _ = out.send(FromAgent::Done { id, result: Err(lost) }).await;
            return;
        }
    }
}
