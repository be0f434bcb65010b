//! Threads that carry connections: a boot storm loads them, not the control plane's own tasks.
//!
//! Purpose: a read of a file that is not in memory blocks its thread; here that costs other downloads a moment, and
//! nothing else. Invariants: a connection stays on one thread; it is given to the one that has the fewest; all of them
//! end with the token.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

/// A connection's work, begun on its thread.
type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Gives work to threads.
#[derive(Clone)]
pub(crate) struct Workers {
    threads: Arc<[Thread]>,
}

struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    load: Arc<AtomicUsize>,
}

/// One for each processor, two to eight.
fn count() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

impl Workers {
    /// Starts the threads, as tasks of `running`; they end with `cancel`.
    ///
    /// # Errors
    /// No descriptor left for a thread's poll.
    pub(crate) fn start(running: &mut JoinSet<()>, cancel: &CancellationToken) -> io::Result<Self> {
        let mut threads = Vec::new();
        for _ in 0..count() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
            let (load, cancel) = (Arc::new(AtomicUsize::new(0)), cancel.clone());
            let counted = Arc::clone(&load);
            running.spawn_blocking(move || {
                let connections = LocalSet::new();
                let taking = connections.run_until(async {
                    while let Some(job) = tokio::select! {
                        () = cancel.cancelled() => None,
                        job = waiting.recv() => job,
                    } {
                        let place = Place(Arc::clone(&counted));
                        connections.spawn_local(async move {
                            job().await;
                            drop(place);
                        });
                    }
                });
                runtime.block_on(taking);
            });
            threads.push(Thread { jobs, load });
        }
        Ok(Self { threads: threads.into() })
    }

    /// Begins a connection's work on the thread that has the fewest.
    pub(crate) fn give(&self, job: Job) {
        let Some(thread) = self.threads.iter().min_by_key(|thread| thread.load.load(Ordering::Relaxed))
        else {
            return;
        };
        thread.load.fetch_add(1, Ordering::Relaxed);
        // It fails only when the threads have ended, and then so do the connections.
        let _ = thread.jobs.send(job);
    }
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
