//! The one thread that writes: it groups the commits that wait, puts each group into the log with one sync, makes it
//! visible, and answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::log::{FRAME_HEADER, GROUP_ROOM, Header, Slot, Totals, encode_write};
use crate::memory::{OwnedWrite, View};
use crate::recovery::Recovered;
use crate::tx::{Request, Write};
use crate::watch::Change;
use crate::{Clock, Revision, StoreError, envelope, flush, table};

/// How long the queue must be empty until the log's content goes into the engine.
const IDLE: Duration = Duration::from_secs(2);
const MAX_GROUP: usize = 1024;

/// Called once with the result of a commit.
pub(crate) type Answer = Box<dyn FnOnce(Result<Revision, StoreError>) + Send>;

/// What the thread is asked to do.
pub(crate) enum Job {
    Commit { request: Request, answer: Answer },
    Close { answer: Answer },
}

enum Spare {
    Ready(Slot),
    Flushing(JoinHandle<Result<(Slot, Totals), StoreError>>),
    Lost,
}

pub(crate) struct Writer {
    view: Arc<View>,
    changes: broadcast::Sender<Arc<Change>>,
    clock: Clock,
    revision: Revision,
    active: Slot,
    spare: Spare,
    totals: Totals,
    flushed: u64,
    failed: Option<String>,
    published: Arc<AtomicU64>,
}

/// What a group adds up to, before it is durable.
#[derive(Default)]
struct Group {
    frame: Vec<u8>,
    writes: Vec<OwnedWrite>,
    /// Revision of each commit, and how many of the writes are its and earlier ones'.
    commits: Vec<(Revision, usize)>,
    /// The keys written in this group, if any commit in it compares revisions.
    revisions: Option<HashMap<Vec<u8>, Revision>>,
}

impl Writer {
    pub(crate) fn new(
        view: Arc<View>,
        changes: broadcast::Sender<Arc<Change>>,
        clock: Clock,
        recovered: Recovered,
        published: Arc<AtomicU64>,
    ) -> Self {
        let flushed = recovered.active.header().map_or(0, |h| h.flushed);
        Self {
            view,
            changes,
            clock,
            revision: recovered.revision,
            active: recovered.active,
            spare: Spare::Ready(recovered.spare),
            totals: recovered.totals,
            flushed,
            failed: None,
            published,
        }
    }

    /// Runs until the queue's last sender is gone or a close was asked for, and closes in order.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let mut closing = None;
        while closing.is_none() {
            let first = if self.active.is_empty() || self.failed.is_some() {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(IDLE)
            };
            match first {
                Ok(Job::Commit { request, answer }) => closing = self.gather(jobs, request, answer),
                Ok(Job::Close { answer }) => closing = Some(answer),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(e) = self.swap() {
                        self.fail(&e);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let revision = self.revision;
        let result = self.close();
        if let Err(e) = &result {
            tracing::error!(error = %e, "the store could not be closed in order; its log is replayed at the next start");
        }
        if let Some(answer) = closing {
            answer(result.map(|()| revision));
        }
    }

    fn gather(&mut self, jobs: &Receiver<Job>, request: Request, answer: Answer) -> Option<Answer> {
        let mut size = request.size;
        let mut batch = vec![(request, answer)];
        let mut closing = None;
        let mut yielded = false;
        while batch.len() < MAX_GROUP && size < GROUP_ROOM / 4 && closing.is_none() {
            match jobs.try_recv() {
                Ok(Job::Commit { request, answer }) => {
                    size += request.size;
                    batch.push((request, answer));
                }
                Ok(Job::Close { answer }) => closing = Some(answer),
                Err(_) if yielded => break,
                // One turn for the writers that the last group woke: a larger group costs the same sync.
                Err(_) => {
                    yielded = true;
                    std::thread::yield_now();
                }
            }
        }
        self.commit(batch, size);
        closing
    }

    fn commit(&mut self, batch: Vec<(Request, Answer)>, size: usize) {
        if self.failed.is_none()
            && !self.active.fits(size)
            && let Err(e) = self.swap()
        {
            self.fail(&e);
        }
        if let Some(cause) = &self.failed {
            for (_, answer) in batch {
                answer(Err(StoreError::Failed { cause: cause.clone() }));
            }
            return;
        }
        let at = (self.clock)();
        let compares = batch.iter().any(|(request, _)| !request.expectations.is_empty());
        let revisions = compares.then(HashMap::new);
        let mut group = Group { frame: vec![0; FRAME_HEADER], revisions, ..Group::default() };
        group.frame.reserve(size);
        let mut revision = self.revision;
        let mut answers = Vec::with_capacity(batch.len());
        for (request, answer) in batch {
            if let Err(e) = self.check(&request, &group) {
                answers.push((answer, Err(e)));
                continue;
            }
            if !request.writes.is_empty() {
                revision = Revision(revision.0 + 1);
                group.add(request, revision, at);
            }
            answers.push((answer, Ok(revision)));
        }
        let commits = u32::try_from(group.commits.len()).unwrap_or(u32::MAX);
        let first = Revision(self.revision.0 + 1);
        if commits > 0
            && let Err(e) = self.active.append(first, commits, &mut group.frame)
        {
            self.fail(&e);
            let cause = e.to_string();
            for (answer, _) in answers {
                answer(Err(StoreError::Failed { cause: cause.clone() }));
            }
            return;
        }
        self.revision = revision;
        let (commits, watchers) = (&group.commits, &self.changes);
        // Who subscribes later reads these writes anyway: describing them is for those who are there.
        let changes = self.view.insert(group.writes, |writes| match watchers.receiver_count() {
            0 => Vec::new(),
            _ => describe(commits, writes),
        });
        self.published.store(revision.0, Ordering::Release);
        for change in changes {
            // No receiver is no error.
            drop(self.changes.send(Arc::new(change)));
        }
        for (answer, result) in answers {
            answer(result);
        }
    }

    fn check(&self, request: &Request, group: &Group) -> Result<(), StoreError> {
        for (key, expected) in &request.expectations {
            let found = match group.revisions.as_ref().and_then(|known| known.get(key)) {
                Some(revision) => *revision,
                None => self.view.get(key)?.map_or(Revision::ABSENT, |v| envelope::revision_of(&v)),
            };
            if found != *expected {
                let (table, key) = table::split_key(key);
                let (table, key) = (table.to_owned(), key.to_owned());
                return Err(StoreError::Conflict { table, key, expected: *expected, found });
            }
        }
        Ok(())
    }

    /// The spare slot becomes the active one, and what the active one holds goes into the engine. Waits for the flush
    /// before, which bounds the memory of unflushed writes to two slots.
    fn swap(&mut self) -> Result<(), StoreError> {
        let mut next = self.await_flush()?;
        next.activate(self.next_header(false))?;
        let full = std::mem::replace(&mut self.active, next);
        let layer = self.view.begin_flush();
        let (view, before) = (Arc::clone(&self.view), self.totals);
        let work = move || {
            let totals = flush::flush(view.engine.as_ref(), &full, &layer, before)?;
            view.flushed();
            Ok((full, totals))
        };
        let thread = std::thread::Builder::new().name("store-flush".to_owned()).spawn(work);
        let source =
            |source| StoreError::Io { action: "start a thread for", path: "store-flush".into(), source };
        self.spare = Spare::Flushing(thread.map_err(source)?);
        Ok(())
    }

    fn await_flush(&mut self) -> Result<Slot, StoreError> {
        match std::mem::replace(&mut self.spare, Spare::Lost) {
            Spare::Ready(slot) => Ok(slot),
            Spare::Flushing(thread) => {
                let died = |_| StoreError::Failed { cause: "the flush thread died".to_owned() };
                let (slot, totals) = thread.join().map_err(died)??;
                self.totals = totals;
                self.flushed = slot.header().map_or(self.flushed, |h| h.epoch);
                Ok(slot)
            }
            Spare::Lost => Err(StoreError::Failed { cause: "an earlier flush failed".to_owned() }),
        }
    }

    fn next_header(&self, clean: bool) -> Header {
        let epoch = self.active.header().map_or(0, |h| h.epoch) + 1;
        Header { epoch, flushed: self.flushed, totals: self.totals, revision: self.revision, clean }
    }

    fn close(mut self) -> Result<(), StoreError> {
        if let Some(cause) = self.failed {
            return Err(StoreError::Failed { cause });
        }
        if !self.active.is_empty() {
            self.swap()?;
        }
        let mut slot = self.await_flush()?;
        // The active slot holds no frame now, so the engine has all of its epoch too.
        self.flushed = self.active.header().map_or(self.flushed, |h| h.epoch);
        slot.activate(self.next_header(true))
    }

    fn fail(&mut self, error: &StoreError) {
        tracing::error!(error = %error, "the store takes no more writes");
        self.failed = Some(crate::error::chain(error));
    }
}

impl Group {
    fn add(&mut self, request: Request, revision: Revision, at: dayzero_model::Timestamp) {
        for write in request.writes {
            let (key, value) = match write {
                Write::Put { key, schema, at: given, body } => {
                    let value = envelope::seal(&key, schema, revision, given.unwrap_or(at), &body);
                    (key, Some(value))
                }
                Write::Delete { key } => (key, None),
            };
            encode_write(&mut self.frame, &key, value.as_deref());
            if let Some(revisions) = &mut self.revisions {
                let now = if value.is_some() { revision } else { Revision::ABSENT };
                revisions.insert(key.clone(), now);
            }
            self.writes.push((key, value.map(Arc::from)));
        }
        self.commits.push((revision, self.writes.len()));
    }
}

fn describe(commits: &[(Revision, usize)], writes: &[OwnedWrite]) -> Vec<Change> {
    let mut from = 0;
    let one = |(revision, end): &(Revision, usize)| {
        let keys = writes[from..*end].iter().map(|(key, value)| Change::key(key, value.is_none())).collect();
        from = *end;
        Change { revision: *revision, keys }
    };
    commits.iter().map(one).collect()
}
